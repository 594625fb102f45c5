"""Read what a request holds: JSON, or a form with JSON in one field and files in others; and describe both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from mmssl_server.limits import Limits
from mmssl_server.refusals import Refusal, explain

M = TypeVar("M", bound=BaseModel)


class Form(NamedTuple):
    """The fields of a form: texts, and the bytes of files."""

    texts: Mapping[str, str]
    files: Mapping[str, bytes]

    def text(self, name: str) -> str:
        """Return a field; refuse a form without it."""
        if name not in self.texts:
            raise Refusal(422, f"the form has no field {name!r} with JSON")
        return self.texts[name]


def kind_of(request: Request) -> str:
    """Return the media type of a request's body, such as "application/json"."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse(model: type[M], data: bytes | str) -> M:
    """Read JSON; what is none is refused with 400, what is not as described with 422."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise Refusal(400 if problems[0]["type"] == "json_invalid" else 422, explain(problems)) from error


async def read_form(request: Request, limits: Limits) -> Form:
    """Read a form; no name may stand twice, since nobody could tell which is meant."""
    if kind_of(request) != "multipart/form-data":
        raise Refusal(415, f"expected multipart/form-data, not {kind_of(request)!r:.80}")
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    async with request.form(max_files=limits.files, max_fields=8, max_part_size=limits.body) as form:
        for name, value in form.multi_items():
            if name in texts or name in files:
                raise Refusal(422, f"the field {name!r:.80} stands twice in the form")
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            else:
                texts[name] = value
    return Form(texts, files)


def described(model: type[BaseModel], *, form_field: str | None = None, json: bool = True) -> dict[str, Any]:
    """Return the part of OpenAPI that tells what a route takes, for ``openapi_extra``.

    Args:
        form_field: of a multipart form, which has this JSON, beside files in fields of any name.
        json: whether the JSON may be the whole body.
    """
    schema = inlined(model.model_json_schema())
    content: dict[str, Any] = {"application/json": {"schema": schema}} if json else {}
    if form_field:
        fields = {form_field: {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}}
        files = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = {"type": "object", "properties": fields, "required": [form_field], "additionalProperties": files}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def inlined(schema: Any, parts: Mapping[str, Any] | None = None) -> Any:
    """Return a JSON schema with its `$defs` in the places that refer to them."""
    if isinstance(schema, list):
        return [inlined(one, parts) for one in schema]
    if not isinstance(schema, dict):
        return schema
    parts = schema.get("$defs", parts)
    if "$ref" in schema:
        return inlined((parts or {})[schema["$ref"].rpartition("/")[2]], parts)
    return {name: inlined(one, parts) for name, one in schema.items() if name != "$defs"}
