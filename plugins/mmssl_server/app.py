"""The application: routes and what stands around them."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import FastAPI

from mmssl_server.clip_routes import clip_routes
from mmssl_server.guard import Guard
from mmssl_server.item_routes import item_routes
from mmssl_server.library import Library
from mmssl_server.limits import Limits
from mmssl_server.page_routes import page_routes
from mmssl_server.refusals import register_errors
from mmssl_server.search_routes import search_routes
from mmssl_server.service import Service
from multimodal_ssl import __version__

DESCRIPTION = """Search an index of multimodal_ssl by items of any modality, and change it.

Every error is one line of JSON, `{"error": "..."}`. Routes that change the index want the server's token as
`Authorization: Bearer TOKEN`."""


def create_app(
    library: Library,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    threads: int | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Return the application that serves a library, and closes it in the end.

    Args:
        token: of who may change the index; without one nobody may.
        threads: of torch and FAISS; None leaves it to them.
        hosts: names by which it may be called; None allows all.
    """
    service = Service(library, limits or Limits(), token=token, threads=threads)
    app = FastAPI(
        title="multimodal_ssl",
        version=__version__,
        description=DESCRIPTION,
        lifespan=service.lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, limits=service.limits, metrics=service.metrics, hosts=hosts)
    register_errors(app, library.folder)
    for routes in (search_routes, item_routes, clip_routes, page_routes):
        app.include_router(routes(service))
    return app
