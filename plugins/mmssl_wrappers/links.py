"""Rows that belong together: links between them, and the sets that links make."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Link = tuple[int, int]

BLOCK = 2**22  # pairs that are held at once


def equal(values: Iterable[Hashable | None]) -> Iterator[Link]:
    """Yield (first, row) for each row [N] whose value came before; None is equal to nothing."""
    first: dict[Hashable, int] = {}
    for row, value in enumerate(values):
        if value is not None and (before := first.setdefault(value, row)) != row:
            yield before, row


def unite(count: int, links: Iterable[Link]) -> Rows:
    """Return the least row [N] of the set that each of so many rows is in (union-find; Tarjan 1975)."""
    root = list(range(count))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for a, b in links:
        low, high = sorted((find(a), find(b)))
        root[high] = low
    return np.array([find(row) for row in range(count)], np.int64)


def name_sets(sets: Rows, keys: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return the group of each row [N] of sets: the least of its set, or else one named after its first row."""
    name = dict[int, str]()
    size = np.bincount(sets, minlength=len(keys))
    for one, group in zip(sets.tolist(), groups, strict=True):
        if group:
            name[one] = min(name.get(one, group), group)
    return [name.get(one, f"like {keys[one]}" if size[one] > 1 else "") for one in sets.tolist()]


def spans(low: Rows, high: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield, block by block, each place in the ranges low to high - 1 [N], after the number of its range."""
    lengths = np.maximum(high - low, 0)
    ends = np.cumsum(lengths)
    start = 0
    while start < len(low):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK, "right")))
        some = lengths[start:stop]
        owner = np.repeat(np.arange(start, stop), some)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(some) - some, some) + low[owner]
        if len(owner):
            yield owner, place
        start = stop
