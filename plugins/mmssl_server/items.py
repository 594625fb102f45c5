"""How an item of the index is told to clients, and where they get its picture and sound."""

from __future__ import annotations

import re
from urllib.parse import quote

from mmssl_server.library import Library
from mmssl_server.refusals import Refusal
from mmssl_server.schemas import HitOut, ItemOut
from multimodal_ssl.database import Item
from multimodal_ssl.index import Hit


def find(library: Library, modality: str, key: str) -> Item:
    """Return an item by its key; refuse with 404."""
    store = library.index.store
    ids = store.find(modality, [key])
    found = store.items(ids.values())
    if not found:
        raise Refusal(404, f"there is no {modality} with the key {key!r}")
    return next(iter(found.values()))


def item_out(item: Item, root: str) -> ItemOut:
    """Return what is told of an item.

    Args:
        root: path that all addresses begin with, or "".
    """
    seen = item.preview
    return ItemOut(
        key=item.key,
        modality=item.modality,
        group=item.group,
        text=seen.text,
        caption=seen.caption,
        path=re.split(r"[/\\]", seen.path)[-1] if seen.path else None,
        metadata=dict(item.metadata),
        preview=address(root, "preview", item) if seen.png else None,
        sound=address(root, "sound", item) if seen.wav else None,
    )


def hit_out(hit: Hit, root: str) -> HitOut:
    """Return what is told of an answer."""
    return HitOut(**item_out(hit.item, root).model_dump(), score=hit.score, probability=hit.probability)


def address(root: str, what: str, item: Item) -> str:
    """Return the path of an item's picture or sound.

    A key that browsers or proxies would tidy up, such as "a/../b", stands behind a question mark.
    """
    modality = quote(item.modality, safe="")
    if {"", ".", ".."} & set(item.key.split("/")):
        return f"{root}/{what}/{modality}/?key={quote(item.key, safe='')}"
    return f"{root}/{what}/{modality}/{quote(item.key)}"
