"""The page at /: static files that load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from mmssl_server.refusals import Refusal
from mmssl_server.service import Service

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class File(NamedTuple):
    """A file of the page."""

    data: bytes
    type: str
    tag: str


def page_routes(_: Service) -> APIRouter:
    """Return the routes; the page talks to the others as any client does."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in TYPES}

    @router.get("/")
    def page(request: Request) -> Response:
        return _answer(files["index.html"], request)

    @router.get("/page/{name}")
    def part(request: Request, name: str) -> Response:
        if name not in files:
            raise Refusal(404, f"the page has no {name!r:.80}")
        return _answer(files[name], request)

    return router


def _read(path: Path) -> File:
    data = path.read_bytes()
    return File(data, TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def _answer(file: File, request: Request) -> Response:
    # Browsers ask each time whether it is still the same: after an update no file of the old page meets one of the new.
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.type)
