"""Move an index to another Binder: embed its items again, and tell how far the answers agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_ssl.binder import Binder
from multimodal_ssl.config import parse_sources
from multimodal_ssl.database import Item
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.index import Index, check_folder
from multimodal_ssl.indexing import building, fill, finish
from multimodal_ssl.pipeline import open_supplies, run_config
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import load

TOP, QUERIES = 10, 500  # answers that are compared, and queries
BATCH = 256


class Overlap(NamedTuple):
    """How far two indices answer alike in one direction.

    `shared` is the mean share of the first ten answers that both give, `found_before` and `found_after` the share of
    queries that have an item of their group among these.
    """

    query: str
    gallery: str
    queries: int
    shared: float
    found_before: float
    found_after: float


@dataclass(frozen=True, slots=True)
class Migration:
    """What came of it.

    Attributes:
        index: the new one.
        overlaps: by direction.
        lost: modality -> keys of items that could not be embedded again.
    """

    index: Index
    overlaps: tuple[Overlap, ...]
    lost: Mapping[str, list[str]]


def migrate(
    old: Index, run: Path | str, folder: Path | str, *, binder: Binder | None = None, catalog: Catalog | None = None
) -> Migration:
    """Embed the items of an index with the Binder of another run into a new index in a folder.

    What `mmssl index` took from sources is read from them again; of what was added by hand the text or the file. What
    was stopped goes on where it was. The old index is left as it is.
    """
    folder = Path(folder)
    check_folder(folder)
    catalog = catalog or Catalog.discover()
    binder = binder or load(run, catalog=catalog)
    if binder.fingerprint() == old.fingerprint:
        raise InputError(f"{old.store.folder} was made by the Binder of {run} already")
    missing = [name for name in old.counts if name not in binder.modalities]
    if missing:
        raise InputError(f"the Binder of {run} has no {', '.join(missing)}, which {old.store.folder} holds")
    sources = old.store.facts.get("sources", [])
    supplies = open_supplies(parse_sources(sources, f"the sources of {old.store.folder}"), catalog)
    index = fill(building(folder), binder, supplies, sources, workers=run_config(run).train.workers)
    lost = {name: _follow(old, index, name, binder) for name in old.counts}
    done = finish(index, folder)
    return Migration(done, tuple(_overlaps(old, done)), {name: keys for name, keys in lost.items() if keys})


def _follow(old: Index, new: Index, name: str, binder: Binder) -> list[str]:
    """Make the new index hold what the old one holds of a modality; return the keys of which that is not possible."""
    before, after = _items(old, name), _items(new, name)
    if gone := sorted(after.keys() - before.keys()):
        new.delete(name, gone)
    lost = []
    added = [before[key] for key in sorted(before.keys() - after.keys())]
    for start in range(0, len(added), BATCH):
        raw = [(item, _raw(item, binder.modalities[name].type)) for item in added[start : start + BATCH]]
        lost += [item.key for item, one in raw if one is None]
        kept = [(item, one) for item, one in raw if one is not None]
        if kept:
            items = [item for item, _ in kept]
            new.add(name, Embedded(
                binder.encode(name, [one for _, one in kept]), [item.key for item in items],
                [item.group for item in items], [item.preview for item in items],
                metadata=[item.metadata for item in items],
            ))  # fmt: skip
    return lost


def _raw(item: Item, kind: type) -> Any:
    """Return what an item can be embedded from: its file, if it is there, or its text."""
    if item.preview.path and Path(item.preview.path).is_file():
        return Path(item.preview.path)
    return item.preview.text if kind is str else None


def _items(index: Index, name: str) -> dict[str, Item]:
    places = index.store.places(name)
    return {item.key: item for item in index.store.items(places.ids.tolist()).values()}


def _overlaps(old: Index, new: Index) -> list[Overlap]:
    found = []
    names = [name for name in old.counts if name in new.counts]
    for query, gallery in itertools.permutations(names, 2):
        before, after = _items(old, query), _items(new, query)
        keys = sorted(before.keys() & after.keys())
        keys = [keys[i] for i in np.random.default_rng(0).permutation(len(keys))[:QUERIES]]
        if not keys:
            continue
        answers = []
        for index, items in ((old, before), (new, after)):
            vectors = index.vectors(query, np.array([items[key].id for key in keys]))
            scores, ids = index.nearest(gallery, vectors, TOP)
            answers.append([[hit.item for hit in index.hits(*one)] for one in zip(ids, scores, strict=True)])
        shared = [
            len({item.key for item in one} & {item.key for item in other}) / max(1, len(one))
            for one, other in zip(*answers, strict=True)
        ]
        hits = [
            np.mean([any(item.group == before[key].group for item in one) for key, one in zip(keys, some, strict=True)])
            for some in answers
        ]
        found.append(Overlap(query, gallery, len(keys), float(np.mean(shared)), float(hits[0]), float(hits[1])))
    return found
