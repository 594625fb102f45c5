"""The routes of clip-retrieval's service, see knn.py."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from mmssl_server.bodies import described, parse
from mmssl_server.knn import check_name, knn_answers, knn_query, known
from mmssl_server.refusals import Refusal
from mmssl_server.schemas import READS, TAKES, KnnIn, MetadataIn
from mmssl_server.service import Service


def clip_routes(service: Service) -> APIRouter:
    """Return the routes; what its client sends has no media type."""
    router = APIRouter()
    library, limits = service.library, service.limits

    @router.post("/knn-service", responses=TAKES, openapi_extra=described(KnnIn))
    async def knn_service(request: Request) -> list[dict[str, Any]]:
        """Answer as the service of clip-retrieval does."""
        with service.batcher.admitted():
            with service.batcher.coming():
                asked = parse(KnnIn, await request.body())
                query = await knn_query(library, service.preparer, limits, asked)
            hits = (await service.batcher.ask(query)).hits
        return knn_answers(hits, asked)

    @router.get("/indices-list", responses=READS)
    def indices_list() -> list[str]:
        """Name what can be searched."""
        return [library.name]

    @router.post("/metadata", responses=TAKES, openapi_extra=described(MetadataIn))
    async def metadata(request: Request) -> list[dict[str, Any]]:
        """Tell what is known of answers by their ids."""
        asked = parse(MetadataIn, await request.body())
        check_name(library, asked.indice_name)
        if len(asked.ids) > limits.k:
            raise Refusal(422, f"ids: {len(asked.ids)} are too many: at most {limits.k} are given")
        found = await asyncio.to_thread(library.index.store.items, asked.ids)
        return [{"id": id, "metadata": known(one)} for id, one in found.items()]

    return router
