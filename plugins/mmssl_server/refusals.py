"""What a client is told if there is no answer: one line of JSON, {"error": "..."}."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from multimodal_ssl import InputError
from multimodal_ssl.errors import StorageError

LOG = logging.getLogger("mmssl.serve")


class Refusal(Exception):
    """Ends a request with a status and one line."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that tells an error."""
    line = " ".join(message.split())
    return Response(json.dumps({"error": line}), status, headers, "application/json")


def hide_folder(message: str, folder: Path) -> str:
    """Leave of a folder's path in a message the name alone: where it lies is no client's business."""
    for path in (folder.absolute(), folder):
        message = message.replace(str(path), path.name) if path.name else message
    return message


def register_errors(app: FastAPI, folder: Path) -> None:
    """Turn exceptions into answers; what is unforeseen the guard turns."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, one: Refusal) -> Response:
        return error(one.status, one.message, one.headers)

    @app.exception_handler(InputError)
    async def wrong(_: Request, one: InputError) -> Response:
        message = hide_folder(str(one), folder)
        if isinstance(one, StorageError):
            LOG.error("%s", one)
            return error(503, message)
        return error(422, message)

    @app.exception_handler(HTTPException)
    async def impossible(request: Request, one: HTTPException) -> Response:
        told = {
            404: f"there is no {request.url.path}: /openapi.json describes what there is",
            405: f"{request.method} is no method of {request.url.path}: /openapi.json describes what there is",
        }
        return error(one.status_code, told.get(one.status_code, str(one.detail)), one.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, one: RequestValidationError) -> Response:
        return error(422, explain(one.errors()))


def explain(problems: Any) -> str:
    """Return what pydantic found in one line, e.g. "terms.0.weight: Input should be a finite number"."""
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
