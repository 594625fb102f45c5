"""Search, and how the server does."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from mmssl_server.answering import Options, Query
from mmssl_server.bodies import Form, described, kind_of, parse, read_form
from mmssl_server.items import hit_out
from mmssl_server.refusals import Refusal
from mmssl_server.schemas import READS, TAKES, HealthOut, ModalityOut, SearchIn, SearchOut
from mmssl_server.service import Service


def search_routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    library, limits = service.library, service.limits

    @router.get("/health", responses=READS)
    def health() -> HealthOut:
        """Tell what is served."""
        index, encoders = library.index, library.binder.encoders
        kinds = {name: modality.name for name, modality in library.binder.modalities.items()}
        modalities = {
            name: ModalityOut(kind=kind, items=index.counts.get(name, 0), queries=name in encoders)
            for name, kind in kinds.items()
        }
        return HealthOut(
            fingerprint=index.fingerprint,
            version=index.store.version(),
            modalities=modalities,
            threads=service.threads,
        )

    @router.get("/metrics", response_class=Response, responses=READS)
    def metrics() -> Response:
        """Tell Prometheus how the server does."""
        text = service.metrics.text(library.index.counts)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.post(
        "/search", response_model=SearchOut, responses=TAKES, openapi_extra=described(SearchIn, form_field="request")
    )
    async def search(request: Request) -> Response:
        """Search by one part or several: words, items of the index, and files.

        The body is JSON, or a form with files whose field `request` is that JSON.
        """
        began = time.perf_counter()
        with service.batcher.admitted():
            with service.batcher.coming():
                asked, form = await read_search(request)
                if asked.k > limits.k:
                    raise Refusal(422, f"k: {asked.k} is too many: at most {limits.k} are given")
                query = Query(await service.preparer.parts(asked.terms, form.files), options_of(asked))
            hits = (await service.batcher.ask(query)).hits
        root = request.scope.get("root_path", "")
        found = SearchOut(hits=[hit_out(hit, root) for hit in hits], seconds=time.perf_counter() - began)
        return Response(found.model_dump_json(), media_type="application/json")

    async def read_search(request: Request) -> tuple[SearchIn, Form]:
        match kind_of(request):
            case "application/json":
                return parse(SearchIn, await request.body()), Form({}, {})
            case "multipart/form-data":
                form = await read_form(request, limits)
                return parse(SearchIn, form.text("request")), form
            case other:
                raise Refusal(415, f"expected application/json or multipart/form-data, not {other!r:.80}")

    return router


def options_of(asked: SearchIn) -> Options:
    """Return the options of a search."""
    return Options(
        among=tuple(dict.fromkeys(asked.among)) if asked.among else None,
        k=asked.k,
        where=asked.where,
        one_per_group=asked.one_per_group,
        fold=asked.fold,
        centre=asked.centre,
        csls=asked.csls,
        min_probability=asked.min_probability,
    )
