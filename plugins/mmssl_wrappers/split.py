"""The pairing source ``split``: one part of a source, what belongs together being in one part."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmssl_wrappers.contents import Glance, digests, glance
from mmssl_wrappers.links import Link, Rows, equal, unite
from mmssl_wrappers.reading import Through, check_items, check_keys, rows_of
from multimodal_ssl import InputError, MapSource, PairingSource, Sample
from multimodal_ssl.data import draw, hash64
from multimodal_ssl.errors import nearest
from multimodal_ssl.items import find
from multimodal_ssl.subset import Subset

Interval = tuple[float, float]


def split(
    source: PairingSource, part: str, shares: Mapping[str, float], *, seed: int, by: Literal["group"] | Sequence[str]
) -> PairingSource:
    """Return one part, see the plugin's `open_split`."""
    interval = _interval(part, shares)
    items = [] if by == "group" else list(by)
    check_items(source, items, "split.by")
    if not items and not isinstance(source, MapSource):
        flow = partial(_of_part, seed, interval)
        if next(flow(iter(source)), None) is None:
            raise _empty(part, shares, "")
        return Through(source, flow)
    keys, names, sets = _read(source, items)
    if not isinstance(source, MapSource):
        check_keys(keys, "split.by")
    drawn = _places(seed, names, sets)
    inside = (drawn >= interval[0]) & (drawn < interval[1])
    if not inside.any():
        largest = max(Counter(sets.tolist()).values(), default=0)
        raise _empty(part, shares, f"; of {len(sets):,} samples the largest lot that belongs together has {largest:,}")
    if isinstance(source, MapSource):
        return Subset(source, np.flatnonzero(inside))
    return Through(source, partial(_among, frozenset(itertools.compress(keys, inside.tolist()))))


def _read(source: PairingSource, items: Sequence[str]) -> tuple[list[str], list[str], Rows]:
    """Return the key of each row [N], the name that it is drawn by, and the set of what belongs together."""
    keys, names, groups = list[str](), list[str](), list[str]()
    seen: list[list[Glance | None]] = [[] for _ in items]
    for _, sample in rows_of(source):
        had = sample if isinstance(sample, Sample) else Sample(sample.key, {})
        keys.append(had.key)
        groups.append(had.group)
        names.append(_name(had) if isinstance(sample, Sample) else "")
        for column, name in zip(seen, items, strict=True):
            column.append(glance(find(had.items, name)) if name in had.items else None)
    links: list[Iterator[Link]] = [equal(group or None for group in groups)]
    links += [equal(digests(column)) for column in seen]
    if isinstance(source, MapSource) and (numbers := source.manifest().group) is not None:
        links.append(equal(numbers.tolist()))  # tells the group of what can't be read too
    sets = unite(len(keys), itertools.chain.from_iterable(links))
    named = {one for one, name in zip(sets.tolist(), names, strict=True) if name}
    for row, one in enumerate(sets.tolist()):
        if one not in named:  # nothing of the set can be read
            names[row] = f"key {keys[row]}"
    return keys, names, sets


def _places(seed: int, names: Sequence[str], sets: Rows) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row [N], the same for all of a set.

    It is drawn by the name of least hash in the set, so that a new row seldom moves it; by two independent hashes,
    since the least of many is small.
    """
    least: dict[int, tuple[int, str]] = {}
    for one, number, name in zip(sets.tolist(), hash64(names).tolist(), names, strict=True):
        if name:
            least[one] = min(least.get(one, (number, name)), (number, name))
    drawn = dict(zip(least, draw(f"{seed} {name}" for _, name in least.values()), strict=True))
    return np.array([drawn[one] for one in sets.tolist()])


def _name(sample: Sample) -> str:
    return f"group {sample.group}" if sample.group else f"key {sample.key}"


def _of_part(seed: int, interval: Interval, samples: Iterator[Sample]) -> Iterator[Sample]:
    low, high = interval
    return (sample for sample in samples if low <= draw([f"{seed} {_name(sample)}"])[0] < high)


def _among(keys: Set[str], samples: Iterator[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if sample.key in keys)


def _interval(part: str, shares: Mapping[str, float]) -> Interval:
    if part not in shares:
        raise InputError(f"split.part is {part!r}, which has no share: {nearest(part, shares)}")
    total = math.fsum(shares.values())
    if min(shares.values()) <= 0 or abs(total - 1) > 1e-6:
        raise InputError(f"split.shares are {dict(shares)}: each must be above 0, and their sum 1 (it is {total:g})")
    names = list(shares)
    ends = [0.0, *itertools.accumulate(shares.values())]
    ends[-1] = 1.0
    return ends[names.index(part)], ends[names.index(part) + 1]


def _empty(part: str, shares: Mapping[str, float], why: str) -> InputError:
    return InputError(
        f"split: no sample is in the part {part!r}, whose share is {shares[part]:g}{why}; raise its share, or join less"
    )
