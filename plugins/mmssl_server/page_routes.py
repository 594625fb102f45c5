"""The page at /: static files that load nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
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


def page_routes(service: Service) -> APIRouter:
    """Return the routes; the page talks to the others as any client does."""
    router = APIRouter(include_in_schema=False)
    limits = service.limits
    told = {b"most-answers": limits.k, b"most-bytes": limits.body}
    files = {path.name: _file(path.name, path.read_bytes()) for path in FOLDER.iterdir() if path.suffix in TYPES}
    files["index.html"] = _file("index.html", _tell(files["index.html"].data, told))

    @router.get("/")
    def page(request: Request) -> Response:
        return _answer(files["index.html"], request)

    @router.get("/page/{name}")
    def part(request: Request, name: str) -> Response:
        if name not in files:
            raise Refusal(404, f"the page has no {name!r:.80}")
        return _answer(files[name], request)

    return router


def _file(name: str, data: bytes) -> File:
    return File(data, TYPES[Path(name).suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def _tell(html: bytes, told: Mapping[bytes, int]) -> bytes:
    """Return the page with the server's limits in the place of the usual ones."""
    for name, value in told.items():
        html = re.sub(rb'data-%b="\d+"' % name, b'data-%b="%d"' % (name, value), html)
    return html


def _answer(file: File, request: Request) -> Response:
    # Browsers ask each time whether it is still the same: after an update no file of the old page meets one of the new.
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.type)
