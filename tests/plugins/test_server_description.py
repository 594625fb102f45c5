"""What /openapi.json says of the server is so, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
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


@pytest.fixture(scope="module")
def description(server: httpx.Client) -> Any:
    return schemathesis.openapi.from_dict(server.get("/openapi.json").json())


schema = schemathesis.pytest.from_fixture("description")


@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_it_is_described(case: Any, server: httpx.Client) -> None:
    reply = case.call(base_url=str(server.base_url), headers={"Authorization": "Bearer token"})
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
