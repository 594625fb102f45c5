"""Near duplicates: pictures by a difference hash, items by the vectors of a run; all pairs, by rows i < j."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmssl_wrappers.links import BLOCK, Rows, spans

BITS, BANDS = 64, 4
WIDTH = BITS // BANDS
MOST_FLIPS = 2  # of a band: 137 patterns; more are no faster than comparing all

Hashes = NDArray[np.uint64]


def difference_hash(picture: Image.Image) -> int | None:
    """Return 64 bits that tell where 9 x 8 grey pixels become lighter (Krawetz 2013, dHash); None if all are equal."""
    small = picture.convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(small)
    if pixels.min() == pixels.max():
        return None
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())


def pairs_within(hashes: Hashes, distance: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield all pairs of hashes [N] that differ in so many bits at most; some more than once.

    By multi-index hashing (Norouzi et al. 2012): two hashes that differ in d bits agree in one of four bands of 16 bits
    but for d // 4 of them, so that up to a distance of 11 only those are compared that do. What is looked up: 4 bands,
    each once up to a distance of 3, with 17 patterns up to 7, with 137 up to 11. Above that all are compared.
    """
    flips = distance // BANDS
    if flips > MOST_FLIPS or len(hashes) < 2 ** (8 + flips):
        yield from _all_within(hashes, distance)
        return
    patterns = [0] + [
        sum(1 << bit for bit in bits) for many in range(1, flips + 1) for bits in combinations(range(WIDTH), many)
    ]
    for band in range(BANDS):
        codes = ((hashes >> np.uint64(WIDTH * band)) & np.uint64(2**WIDTH - 1)).astype(np.int64)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=2**WIDTH))
        starts = ends - np.bincount(codes, minlength=2**WIDTH)
        for pattern in patterns:
            near = codes ^ pattern
            for i, place in spans(starts[near], ends[near]):
                j = order[place]
                close = (i < j) & (np.bitwise_count(hashes[i] ^ hashes[j]) <= distance)
                yield i[close], j[close]


def _all_within(hashes: Hashes, distance: int) -> Iterator[tuple[Rows, Rows]]:
    size = max(1, BLOCK // max(1, len(hashes)))
    for start in range(0, len(hashes), size):
        differ = np.bitwise_count(hashes[start : start + size, None] ^ hashes[None, start:])
        i, j = np.nonzero(differ <= distance)
        yield i[i < j] + start, j[i < j] + start


def pairs_above(vectors: NDArray[np.float32], cosine: float) -> Iterator[tuple[Rows, Rows]]:
    """Yield all pairs of unit vectors [N, D] of this cosine or more, each once, by comparing all."""
    size = max(1, BLOCK // max(1, len(vectors)))
    for start in range(0, len(vectors), size):
        cosines = vectors[start : start + size] @ vectors[start:].T
        i, j = np.nonzero(cosines >= cosine)
        yield i[i < j] + start, j[i < j] + start
