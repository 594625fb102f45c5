"""What /openapi.json says of the server is so, whatever is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .serving import make_binder, open_library, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("described") / "index"
    with serving(open_library(folder, make_binder()), token="token") as client:
        yield client


BOUNDED = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_it_is_described(server: httpx.Client, mode: GenerationMode) -> None:
    description = schemathesis.openapi.from_dict(server.get("/openapi.json").json())
    seen: Counter[tuple[str, int]] = Counter()
    for result in description.get_all_operations():
        operation = result.ok()

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def is_as_described(case: Any) -> None:
            reply = case.call(base_url=str(server.base_url), headers={"Authorization": "Bearer token"})
            case.validate_response(reply, checks=CHECKS)
            seen[case.operation.label, reply.status_code] += 1

        with suppress(Unsatisfiable):  # nothing of a route without parameters is wrong
            is_as_described()
    assert len({label for label, _ in seen}) >= 8


def test_good_answers_are_as_they_are_described(server: httpx.Client) -> None:
    description = schemathesis.openapi.from_dict(server.get("/openapi.json").json())
    search = {"terms": [{"by": "text", "text": "snow"}], "among": ["image", "text", "voice"], "k": 100}
    low = {"modality": "voice", "key": "low"}
    cases = [
        description["/search"]["POST"].Case(body=search, media_type="application/json"),
        description["/knn-service"]["POST"].Case(body={"text": "snow"}, media_type="application/json"),
        description["/metadata"]["POST"].Case(body={"ids": [1, 2]}, media_type="application/json"),
        *(
            description[f"/{what}/{{modality}}/{{key}}"]["GET"].Case(path_parameters=low)
            for what in ("items", "preview", "sound")
        ),
        description["/items/{modality}/{key}"]["DELETE"].Case(path_parameters=low),
    ]
    for case in cases:
        reply = case.call(base_url=str(server.base_url), headers={"Authorization": "Bearer token"})
        assert reply.status_code == 200, reply.text
        case.validate_response(reply, checks=CHECKS)


def test_the_description_names_every_route_with_an_example_of_a_search(server: httpx.Client) -> None:
    told = server.get("/openapi.json").json()
    assert sorted(told["paths"]) == [
        "/health", "/indices-list", "/items", "/items/{modality}/{key}", "/knn-service", "/metadata", "/metrics",
        "/preview/{modality}/{key}", "/search", "/sound/{modality}/{key}",
    ]  # fmt: skip
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            assert one["description"], (path, method)
    body = told["paths"]["/search"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "multipart/form-data"}
    for example in body["application/json"]["schema"]["examples"]:
        assert server.post("/search", json=example).status_code in (200, 422)
