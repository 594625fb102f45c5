"""Items of the index: to look at, to add, to delete."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi import Query as InUrl
from starlette.responses import Response

from mmssl_server.answering import Part, Prepared, Query
from mmssl_server.bodies import described, parse, read_form
from mmssl_server.items import find, item_out
from mmssl_server.preparing import Ready
from mmssl_server.refusals import Refusal
from mmssl_server.schemas import CHANGES, READS, ChangeOut, ItemOut, NewItem, NewItems
from mmssl_server.service import Service
from multimodal_ssl import Index
from multimodal_ssl.embed import Embedded

ALONE = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "no-cache"}
KeyInUrl = Annotated[str, InUrl(alias="key", description="The key, if it can't stand in the path.")]


def item_routes(service: Service) -> APIRouter:
    """Return the routes; a key stands in the path, or behind a question mark (see `items.address`)."""
    router = APIRouter()
    library, limits = service.library, service.limits

    @router.get("/items/{modality}/{key:path}", responses=READS)
    def item(request: Request, modality: str, key: str, other: KeyInUrl = "") -> ItemOut:
        """Tell of an item."""
        return item_out(find(library.index, modality, key or other), request.scope.get("root_path", ""))

    @router.get("/preview/{modality}/{key:path}", response_class=Response, responses=_gives("image/png"))
    def preview(modality: str, key: str, other: KeyInUrl = "") -> Response:
        """Give an item's picture as a PNG."""
        png = find(library.index, modality, key or other).preview.png
        if not png:
            raise Refusal(404, f"this {modality} has no picture")
        return Response(png, media_type="image/png", headers=ALONE)

    @router.get("/sound/{modality}/{key:path}", response_class=Response, responses=_gives("audio/wav"))
    def sound(modality: str, key: str, other: KeyInUrl = "") -> Response:
        """Give an item's sound as a WAV."""
        wav = find(library.index, modality, key or other).preview.wav
        if not wav:
            raise Refusal(404, f"this {modality} has no sound")
        return Response(wav, media_type="audio/wav", headers=ALONE)

    @router.post(
        "/items",
        responses=CHANGES,
        dependencies=[Depends(service.check_token)],
        openapi_extra=described(NewItems, form_field="items", json=False),
    )
    async def add(request: Request) -> ChangeOut:
        """Add items, or put them in the place of those with their keys: all of one modality, or none of it.

        The body is a form whose field `items` is a JSON list; files are in fields of their own.
        """
        with service.batcher.admitted():
            with service.batcher.coming():
                form = await read_form(request, limits)
                items = parse(NewItems, form.text("items")).root
                if len(items) > limits.files:
                    raise Refusal(422, f"items: {len(items)} are too many: at most {limits.files} are taken at once")
                ready = await service.preparer.items(items, form.files)
                parts = [Part(one.modality, Prepared(made.inputs)) for one, made in zip(items, ready, strict=True)]
            vectors = (await service.batcher.ask(Query(parts))).vectors
            by_modality = {name: _embedded(name, items, ready, vectors) for name in {one.modality for one in items}}

            def change(index: Index) -> int:
                for name, embedded in by_modality.items():
                    index.add(name, embedded, update=True)
                return index.store.version()

            version = await service.write(change)
        return ChangeOut(items=len(items), version=version)

    @router.delete("/items/{modality}/{key:path}", responses=CHANGES, dependencies=[Depends(service.check_token)])
    async def delete(modality: str, key: str, other: KeyInUrl = "") -> ChangeOut:
        """Delete an item."""

        def change(index: Index) -> int:
            index.delete(modality, [find(index, modality, key or other).key])
            return index.store.version()

        with service.batcher.admitted():
            version = await service.write(change)
        return ChangeOut(items=1, version=version)

    return router


def _embedded(name: str, items: list[NewItem], ready: list[Ready], vectors: Any) -> Embedded:
    """Return the items of one modality."""
    own = [place for place, one in enumerate(items) if one.modality == name]
    return Embedded(
        np.ascontiguousarray(vectors[own]),
        [items[place].key for place in own],
        [items[place].group or items[place].key for place in own],
        [ready[place].preview for place in own],
        metadata=[items[place].metadata for place in own],
    )


def _gives(kind: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "contentMediaType": kind}
    return {**READS, 200: {"description": "The file.", "content": {kind: {"schema": schema}}}}
