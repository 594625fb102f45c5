"""Which rows of two lists match: pairs (i, j) with how well they do, block by block; all pairs are found, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from mmssl_wrappers.links import BLOCK, Rows, spans
from multimodal_ssl import InputError

Reals = NDArray[np.float64]
Block = tuple[Rows, Rows, Reals]  # i, j and a score that is higher where they match better
Many = Literal["all", "best", "first"]

RADIUS = 6_371_008.8  # of the Earth in metres, the mean one (IUGG)
QUERIES = 256  # texts of a block; their lengths should be alike
MOST = 2**25  # pairs
_SLACK = 1e-12  # of lengths, beyond what rounding can do
_LEAST_CELL = 2e-6  # 13 m: three numbers of such cells fit in 63 bits


def choose(blocks: Iterable[Block], many: Many) -> Block:
    """Return all pairs by i and j, or of each i its best or its first; of equally good ones the first counts."""
    kept: list[Block] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    total = 0
    for block in blocks:
        kept.append(block)
        if many == "all":
            total += len(block[0])
            if total > MOST:
                raise InputError(
                    f"join: more than {MOST:,} pairs match; lower tolerance, or keep one of each left sample by "
                    "many: best (co-label pairs at random by a label)"
                )
        else:
            kept = [_one_each(_concatenate(kept), many)]
    i, j, score = _concatenate(kept)
    order = np.lexsort((j, i))
    return i[order], j[order], score[order]


def _concatenate(blocks: Sequence[Block]) -> Block:
    i, j, score = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return i, j, score


def _one_each(block: Block, many: Many) -> Block:
    i, j, score = block
    order = np.lexsort((j, -score, i) if many == "best" else (j, i))
    order = order[np.diff(i[order], prepend=-1) > 0]
    return i[order], j[order], score[order]


def equal_texts(left: Sequence[str], right: Sequence[str], *, once: bool) -> Iterator[Block]:
    """Yield the pairs of equal texts; once: of each left one only the first."""
    numbers: dict[str, int] = {}
    of_right, of_left = (np.array([numbers.setdefault(one, len(numbers)) for one in side]) for side in (right, left))
    order, starts = _by_number(of_right, len(numbers))
    low, high = starts[of_left], starts[of_left + 1]
    for i, place in spans(low, np.minimum(high, low + 1) if once else high):
        yield i, order[place], np.ones(len(i))


def like_texts(left: Sequence[str], right: Sequence[str], cutoff: float) -> Iterator[Block]:
    """Yield the pairs whose token sort ratio (rapidfuzz, 0 to 100) is at least the cutoff, which is above 0.

    The ratio is that of the texts with their words sorted: 200 M / (A + B), A and B being their lengths and M that of
    their longest common subsequence, so that none is lost by comparing only lengths of which 2 min(A, B) / (A + B) is
    enough. Each pair of different texts of such lengths is compared once.
    """
    forms: list[list[str]] = []
    tables: list[tuple[Rows, Rows]] = []
    for side in (left, right):
        sorted_words = [" ".join(sorted(text.split())) for text in side]
        different = sorted(set(sorted_words), key=lambda form: (len(form), form))
        number = {form: n for n, form in enumerate(different)}
        forms.append(different)
        tables.append(_by_number(np.array([number[form] for form in sorted_words]), len(different)))
    (order_left, starts_left), (order_right, starts_right) = tables
    for u, v, score in _like_forms(forms[0], forms[1], cutoff):
        for one, place in spans(starts_left[u], starts_left[u + 1]):
            i = order_left[place]
            for other, place_right in spans(starts_right[v[one]], starts_right[v[one] + 1]):
                yield i[other], order_right[place_right], score[one][other]


def _like_forms(left: list[str], right: list[str], cutoff: float) -> Iterator[Block]:
    """Yield the pairs of texts, which are sorted by their length."""
    lengths = np.array([len(form) for form in right])
    ratio = 200 / cutoff - 1 + _SLACK  # of the longer to the shorter
    for start in range(0, len(left), QUERIES):
        some = left[start : start + QUERIES]
        low = int(np.searchsorted(lengths, len(some[0]) / ratio - _SLACK * len(some[0])))
        high = int(np.searchsorted(lengths, len(some[-1]) * ratio, "right"))
        for begin in range(low, high, BLOCK // QUERIES):
            others = right[begin : min(high, begin + BLOCK // QUERIES)]
            # The cutoff only saves time here: it is applied below, to the same numbers that fuzz.ratio gives.
            scores = process.cdist(
                some, others, scorer=fuzz.ratio, score_cutoff=max(0, cutoff - 1e-6), dtype=np.float64, workers=-1
            )
            i, j = np.nonzero(scores >= cutoff)
            yield i + start, j + begin, scores[i, j]


def near_numbers(left: NDArray[Any], right: NDArray[Any], tolerance: float, *, nearest: bool) -> Iterator[Block]:
    """Yield the pairs that differ by the tolerance at most; nearest: only the nearest of each left one, and ties."""
    order = np.argsort(right, kind="stable")
    line = right[order]
    reach: NDArray[Any] = np.full(len(left), tolerance, left.dtype)
    if nearest:
        after = np.searchsorted(line, left)
        before = abs(left - line[np.maximum(after - 1, 0)])
        reach = np.minimum(reach, np.minimum(before, abs(left - line[np.minimum(after, len(line) - 1)])))
    pad = (abs(left) + reach) * 4e-15  # more than rounding can do; what is exact is the test below
    for i, place in spans(
        np.searchsorted(line, left - reach - pad), np.searchsorted(line, left + reach + pad, "right")
    ):
        away = abs(left[i] - line[place])
        close = away <= reach[i]
        yield i[close], order[place[close]], -away[close].astype(np.float64)


def near_places(left: Reals, right: Reals, metres: float) -> Iterator[Block]:
    """Yield the pairs of places [N, 2] (latitude, longitude in degrees) so far from each other at most.

    The Earth is a sphere. Unit vectors lie in a grid of cells as large as the chord of that distance, so that places
    that are near are in the same cell or in neighbours; what is found there is measured by the haversine.
    """
    angle = min(metres / RADIUS, np.pi)
    cell = max(2 * np.sin(angle / 2) * (1 + 1e-6), _LEAST_CELL)
    size = int(2 / cell) + 4  # cells along an edge, with one more at each end
    codes_left, codes_right = (_cells(one, cell, size) for one in (left, right))
    order = np.argsort(codes_right, kind="stable")
    line = codes_right[order]
    for step in product((-1, 0, 1), repeat=3):
        code = codes_left + (step[0] * size + step[1]) * size + step[2]
        for i, place in spans(np.searchsorted(line, code), np.searchsorted(line, code, "right")):
            j = order[place]
            away = haversine(left[i], right[j])
            close = away <= metres
            yield i[close], j[close], -away[close]


def haversine(a: Reals, b: Reals) -> Reals:
    """Return the metres [N] between places [N, 2] in degrees."""
    (north, east), (other_north, other_east) = np.radians(a).T, np.radians(b).T
    half = (
        np.sin((other_north - north) / 2) ** 2
        + np.cos(north) * np.cos(other_north) * np.sin((other_east - east) / 2) ** 2
    )
    metres: Reals = 2 * RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1)))
    return metres


def _cells(places: Reals, cell: float, size: int) -> Rows:
    """Return the number of the cell that each place [N, 2] is in."""
    north, east = np.radians(places).T
    vectors = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    x, y, z = np.floor((vectors + 1) / cell).astype(np.int64) + 1
    codes: Rows = (x * size + y) * size + z
    return codes


def _by_number(numbers: Rows, count: int) -> tuple[Rows, Rows]:
    """Return the rows in the order of their number, and where each of so many numbers begins in it [count + 1]."""
    order = np.argsort(numbers, kind="stable")
    return order, np.searchsorted(numbers[order], np.arange(count + 1))
