"""The service of clip-retrieval (github.com/rom1504/clip-retrieval), so that its client works unchanged."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmssl_server.answering import Options, Part, Query
from mmssl_server.library import Library
from mmssl_server.limits import Limits
from mmssl_server.preparing import Preparer
from mmssl_server.refusals import Refusal
from mmssl_server.schemas import KnnIn, TermIn
from multimodal_ssl import Vector
from multimodal_ssl.database import Item
from multimodal_ssl.index import Hit

ALIKE = 0.94  # cosine from which its service holds two answers to be duplicates


async def knn_query(library: Library, preparer: Preparer, limits: Limits, asked: KnnIn) -> Query:
    """Return what is asked for; of text, image and embedding the first that is given counts."""
    check_name(library, asked.indice_name)
    if asked.num_images > limits.k:
        raise Refusal(422, f"num_images: {asked.num_images} is too many: at most {limits.k} are given")
    if asked.image_url:
        raise Refusal(422, "image_url: this server asks no other one: send the picture itself in base64 as image")
    count = max(asked.num_images, min(asked.num_result_ids or asked.num_images, limits.k))
    options = Options((asked.modality,), count, fold=ALIKE if asked.deduplicate else None, centre=False)
    if asked.text:
        parts = await preparer.parts([TermIn(by=_name_of(library, "text"), text=asked.text)], {})
    elif asked.image:
        try:
            data = base64.b64decode(asked.image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refusal(422, "image: expected a picture in base64") from error
        by = _name_of(library, "image")
        parts = [Part(by, await preparer.upload(by, data, "image"))]
    elif asked.embedding_input:
        vector = np.array(asked.embedding_input, np.float64)
        length = np.linalg.norm(vector)
        if len(vector) != library.binder.dim or not np.isfinite(length) or not length:
            raise Refusal(422, f"embedding_input: expected {library.binder.dim} numbers that are not all 0")
        parts = [Part(asked.modality, Vector((vector / length).astype(np.float32)))]
    else:
        raise Refusal(422, "expected one of text, image and embedding_input")
    return Query(parts, options)


def knn_answers(hits: Sequence[Hit], asked: KnnIn) -> list[dict[str, Any]]:
    """Return the answers as its service does: beyond `num_images` by id and similarity alone."""
    return [
        {
            **(known(hit.item) if place < asked.num_images else {}),
            "id": hit.item.id,
            "similarity": hit.score,
        }
        for place, hit in enumerate(hits)
    ]


def known(item: Item) -> dict[str, Any]:
    """Return metadata, caption and picture of an item."""
    about: dict[str, Any] = {"caption": item.preview.caption or item.preview.text, "key": item.key, **item.metadata}
    if item.preview.png:
        about["image"] = base64.b64encode(item.preview.png).decode()
    return about


def check_name(library: Library, name: str | None) -> None:
    """Refuse an index of another name."""
    if name not in (None, library.name):
        raise Refusal(422, f"indice_name: there is no {name!r}: known: {library.name}")


def _name_of(library: Library, kind: str) -> str:
    """Return the name of the items of a modality that can be searched by."""
    kinds = {name: library.binder.modalities[name].name for name in library.binder.encoders}
    names = [name for name, one in kinds.items() if one == kind]
    if not names:
        raise Refusal(422, f"nothing can be searched by {kind} here")
    return kind if kind in names else names[0]
