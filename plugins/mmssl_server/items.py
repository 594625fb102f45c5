"""How an item of the index is told to clients, and where they get its picture and sound."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from mmssl_server.refusals import Refusal
from mmssl_server.schemas import HitOut, ItemOut
from multimodal_ssl import Index
from multimodal_ssl.database import Item
from multimodal_ssl.index import Hit


def find(index: Index, modality: str, key: str) -> Item:
    """Return an item by its key; refuse with 404."""
    store = index.store
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
    return ItemOut(**_told(item, root))


def hit_out(hit: Hit, root: str) -> HitOut:
    """Return what is told of an answer."""
    return HitOut(**_told(hit.item, root), score=hit.score, probability=hit.probability)


def _told(item: Item, root: str) -> dict[str, Any]:
    seen = item.preview
    return {
        "key": item.key,
        "modality": item.modality,
        "group": item.group,
        "text": seen.text,
        "caption": seen.caption,
        "path": re.split(r"[/\\]", seen.path)[-1] if seen.path else None,
        "metadata": dict(item.metadata),
        "preview": address(root, "preview", item) if seen.png else None,
        "sound": address(root, "sound", item) if seen.wav else None,
    }


def address(root: str, what: str, item: Item) -> str:
    """Return the path of an item's picture or sound.

    A key that browsers or proxies would tidy up, such as "a/../b", stands behind a question mark.
    """
    modality = quote(item.modality, safe="")
    if {"", ".", ".."} & set(item.key.split("/")):
        return f"{root}/{what}/{modality}/?key={quote(item.key, safe='')}"
    return f"{root}/{what}/{modality}/{quote(item.key)}"
