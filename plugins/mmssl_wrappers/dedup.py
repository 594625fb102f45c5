"""The pairing source ``dedup``: samples that say the same as another are dropped, or made one group with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import numpy as np
from PIL import Image

from mmssl_wrappers.contents import Glance, digests, glance
from mmssl_wrappers.links import Link, equal, name_sets, unite
from mmssl_wrappers.near import BITS, difference_hash, pairs_above, pairs_within
from mmssl_wrappers.reading import Through, check_items, check_keys, count, rows_of, tell
from multimodal_ssl import Catalog, InputError, Manifest, MapSource, Modality, PairingSource, Sample, load
from multimodal_ssl.data import Supply, number_groups
from multimodal_ssl.embed import embed
from multimodal_ssl.items import find
from multimodal_ssl.subset import Subset


class ByHash(NamedTuple):
    """Pictures whose difference hashes differ in so many bits at most."""

    distance: int


class ByRun(NamedTuple):
    """Items whose vectors by a run have a cosine of `above` at least."""

    run: Path
    above: float


class Deduplicated(NamedTuple):
    """What is left, and of each sample that was dropped its key and the key of the one that stayed for it."""

    source: PairingSource
    dropped: list[tuple[str, str]]


@final
class Regrouped(MapSource):
    """A MapSource with other groups [N]."""

    def __init__(self, source: MapSource, groups: Sequence[str]) -> None:
        self.source, self.groups = source, groups
        self.modalities, self.skipped = source.modalities, source.skipped

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return replace(self.source[index], group=self.groups[index])

    def manifest(self) -> Manifest:
        return replace(self.source.manifest(), group=number_groups(self.groups))


def parse_near(given: Mapping[str, Any] | None) -> ByHash | ByRun | None:
    """Read the option: {hash: bits} or {run: folder, above: cosine}."""
    if given is None:
        return None
    match dict(given):
        case {"hash": int() | float() as bits, **others} if not others and 0 <= bits <= BITS and bits == int(bits):
            return ByHash(int(bits))
        case {"run": str() as run, "above": int() | float() as above, **others} if not others and -1 <= above <= 1:
            return ByRun(Path(run), float(above))
    raise InputError(
        f"dedup.near is {dict(given)}: give {{hash: 3}}, a number of bits from 0 to 64, "
        "or {run: runs/x, above: 0.98}, a cosine from -1 to 1"
    )


def deduplicate(
    source: PairingSource, by: Sequence[str], near: ByHash | ByRun | None, then: Literal["drop", "group"]
) -> Deduplicated:
    """Find duplicates and drop them, or make them one group, see the plugin's `open_dedup`."""
    check_items(source, by, "dedup.by")
    if not by or (near and len(by) != 1):
        raise InputError(f"dedup.by is {[*by]}: name the items to compare{', one alone with near' if near else ''}")
    picture = _pictures(source.modalities[by[0]]) if isinstance(near, ByHash) else None
    keys, groups, seen, hashes = list[str](), list[str](), list[tuple[Glance | None, ...]](), list[int | None]()
    for _, sample in rows_of(source):
        keys.append(sample.key)
        items = sample.items if isinstance(sample, Sample) else {}
        groups.append(sample.group if isinstance(sample, Sample) else "")
        seen.append(tuple(glance(find(items, name)) if name in items else None for name in by))
        if picture:
            hashes.append(_hash(picture, find(items, by[0])) if by[0] in items else None)
    if not isinstance(source, MapSource):
        check_keys(keys, "dedup")
    columns = [list(digests(column)) for column in zip(*seen, strict=True)]
    same = list(equal(None if all(one is None for one in row) else row for row in zip(*columns, strict=True)))
    if isinstance(near, ByHash):
        same += _within(hashes, near.distance)
    elif isinstance(near, ByRun):
        same += _above(source, by[0], near, keys)
    if then == "drop":
        return _drop(source, keys, same)
    return _group(source, keys, groups, same)


def _drop(source: PairingSource, keys: Sequence[str], same: Sequence[Link]) -> Deduplicated:
    """Keep the first of those that are alike: of each sample that goes there is one alike that stays."""
    stays = dict[int, int]()  # row that goes -> row that stays
    for row, before in sorted({(max(link), min(link)) for link in same}):
        if row not in stays and before not in stays:
            stays[row] = before
    dropped = [(keys[row], keys[before]) for row, before in sorted(stays.items())]
    if dropped:
        tell(f"dedup: {count(len(dropped), 'duplicate')} of {count(len(keys), 'sample')} dropped")
    if isinstance(source, MapSource):
        rows = np.setdiff1d(np.arange(len(source)), np.array([*stays], np.int64))
        return Deduplicated(Subset(source, rows), dropped)
    return Deduplicated(Through(source, partial(_without, frozenset(key for key, _ in dropped))), dropped)


def _group(source: PairingSource, keys: Sequence[str], groups: Sequence[str], same: Sequence[Link]) -> Deduplicated:
    """Make samples that are alike, or of one group, one group; those of none get one named after the first of them."""
    sets = unite(len(keys), [*same, *equal(group or None for group in groups)])
    names = name_sets(sets, keys, groups)
    changed = sum(one != other for one, other in zip(names, groups, strict=True))
    if changed:
        tell(f"dedup: {count(changed, 'sample')} of {len(keys):,} joined to a group of duplicates")
    if isinstance(source, MapSource):
        return Deduplicated(Regrouped(source, names), [])
    new = {key: name for key, name, group in zip(keys, names, groups, strict=True) if name != group}
    return Deduplicated(Through(source, partial(_renamed, new)), [])


def _without(keys: Set[str], samples: Iterator[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if sample.key not in keys)


def _renamed(names: Mapping[str, str], samples: Iterator[Sample]) -> Iterator[Sample]:
    return (replace(sample, group=names.get(sample.key, sample.group)) for sample in samples)


def _pictures(name: str) -> Modality:
    modality = Catalog.discover().modality(name)
    if not issubclass(modality.type, Image.Image):
        raise InputError(f"dedup.near: hash compares pictures, and {name!r} is none; use {{run: ..., above: ...}}")
    return modality


def _hash(modality: Modality, item: Any) -> int | None:
    try:
        return difference_hash(modality.open(item))
    except Exception:  # noqa: BLE001 - whatever is wrong with a picture, it stays, and training records it
        return None


def _within(hashes: Sequence[int | None], distance: int) -> list[Link]:
    """Return the links between rows whose hashes are near; equal ones are linked to the first of them."""
    rows = [row for row, one in enumerate(hashes) if one is not None]
    links = list(equal(hashes))
    later = {row for _, row in links}
    first = np.array([row for row in rows if row not in later], np.int64)
    different = np.array([hashes[row] for row in first.tolist()], np.uint64)
    found = {
        link
        for i, j in pairs_within(different, distance)
        for link in zip(first[i].tolist(), first[j].tolist(), strict=True)
    }
    return links + sorted(found)


def _above(source: PairingSource, name: str, near: ByRun, keys: Sequence[str]) -> list[Link]:
    binder = load(near.run)
    if name not in binder.encoders:
        raise InputError(f"dedup.near: the run {near.run} has no encoder of {name!r}: {', '.join(binder.encoders)}")
    found, _ = embed(binder, [Supply(source, (name,))])
    check_keys(found[name].keys, "dedup.near")
    row_of = {key: row for row, key in enumerate(keys)}
    rows = np.array([row_of[key] for key in found[name].keys], np.int64)
    order = np.argsort(rows)
    rows, vectors = rows[order], found[name].vectors[order]
    return [
        link
        for i, j in pairs_above(vectors, near.above)
        for link in zip(rows[i].tolist(), rows[j].tolist(), strict=True)
    ]
