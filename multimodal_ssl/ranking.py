"""Where the items of a query's group stand, and what measures of a ranking expect of it.

Items of one score have no order. Every measure is its mean over all orders of them (McSherry and Najork 2008), which is
exact and needs no drawing: a collapsed model, whose items all tie, scores what a random order gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

CHUNK = 2**25  # scores that stand in memory together
FEW = 16  # hits of a query, up to which counting the row for each is faster than sorting it once
DEPTH = 10  # of nDCG

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


class Ties(NamedTuple):
    """The scores that items of the queries' groups have, [S] each; those of one query follow each other, best first.

    Of the query [0, Q) in question `above` items score more, `before` of them of its group; `tied` items have this very
    score, `hits` of them of its group.
    """

    query: Counts
    above: Counts
    before: Counts
    tied: Counts
    hits: Counts


def find_ties(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_groups: NDArray[np.int64],
    gallery_groups: NDArray[np.int64],
) -> Iterator[Ties]:
    """Yield the ties of queries [Q, D] in a gallery [M, D] by inner product, for some queries at a time.

    About CHUNK scores are in memory together. A query with h hits costs min(h, FEW) comparisons of its row, and one
    sort if it has more, beside the matrix product.
    """
    order = np.argsort(gallery_groups, kind="stable")  # so that the hits of a query stand together
    # At its edges a matrix product may round otherwise: a vector that stands there twice is multiplied once, and ties.
    some, which = distinct(gallery[order])
    items = torch.from_numpy(some).T
    first, last = (np.searchsorted(gallery_groups[order], query_groups, side) for side in ("left", "right"))
    size = max(1, CHUNK // max(1, len(gallery)))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        scores = (torch.from_numpy(queries[part]) @ items).numpy()
        yield _ties(scores if len(some) == len(which) else scores[:, which], first[part], last[part])


def everything_tied(hits: Counts, items: int) -> Ties:
    """Return the ties of queries with so many hits [Q] among items that all have one score: any order, at random."""
    none = np.zeros_like(hits)
    return Ties(np.arange(len(hits)), none, none, np.full_like(hits, items), hits)


def expected(ties: Ties, *, ks: Sequence[int]) -> dict[str, Floats]:
    """Return measure -> its value [Q] for each query, of which each has a hit, as the mean over all orders of ties.

    R@k, MRR, mAP, nDCG@10 with binary relevance (Järvelin and Kekäläinen 2002) and R-precision; and the ``rank`` of
    the first hit. With s = above, n = tied, r = hits and b = before, each place of a tie holds a hit with probability
    r / n. H(m) is the sum of the first m of 1, 1/2, 1/3, ...
    """
    query, above, before, tied, hits = ties
    ends, share = above + tied, hits / tied
    total = np.bincount(query, hits).astype(np.int64)  # [Q]
    depth = total[query]

    # Given a hit in place t of a tie, (t - 1)(r - 1)/(n - 1) of the t - 1 before it are hits: the precision there is
    # (b + 1 + (t - 1) c) / (s + t), whose sum over t = 1..n is c n + (b + 1 - c (s + 1)) (H(s + n) - H(s)).
    c = (hits - 1) / np.maximum(tied - 1, 1)
    harmonic = _running(1 / np.arange(1, int(ends.max(initial=0)) + 1))
    precision = c * tied + (before + 1 - c * (above + 1)) * (harmonic[ends] - harmonic[above])
    discount = _running(1 / np.log2(np.arange(2, DEPTH + 2)))
    gain = discount[np.minimum(ends, DEPTH)] - discount[np.minimum(above, DEPTH)]
    places = np.minimum(ends, depth) - np.minimum(above, depth)

    first = before == 0
    above, tied, hits = above[first], tied[first], hits[first]
    return {
        **{f"R@{k}": chance_of_hit(hits, tied, k - above) for k in ks},
        "MRR": _reciprocal_ranks(above, tied, hits),
        "mAP": np.bincount(query, share * precision) / total,
        f"nDCG@{DEPTH}": np.bincount(query, share * gain) / discount[np.minimum(total, DEPTH)],
        "R-precision": np.bincount(query, share * places) / total,
        "rank": above + (tied + 1) / (hits + 1),
    }


def chance_of_hit(hits: Counts, items: Counts, draws: Counts) -> Floats:
    """Return the probability that some of `hits` among `items` are among `draws` drawn at random (hypergeometric)."""
    miss = np.ones(len(hits))
    for drawn in range(max(0, int(draws.max(initial=0)))):
        left = np.maximum(items - drawn, 1)
        miss *= np.where(drawn < draws, np.maximum(items - hits - drawn, 0) / left, 1.0)
    return 1 - miss


def distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], Counts]:
    """Return the distinct ones of vectors [M, D], and which of them each is [M]; themselves if all are."""
    whole = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors[:1].nbytes)))[:, 0]
    _, rows, which = np.unique(whole, return_index=True, return_inverse=True)
    return (vectors, np.arange(len(rows))) if len(rows) == len(vectors) else (vectors[rows], which)


def _ties(scores: NDArray[np.float32], first: Counts, last: Counts) -> Ties:
    """Return the ties of scores [Q, M] where the hits of each query are the items from `first` to `last`."""
    size = last - first
    counted = [
        _count(row, np.sort(row[begin:end])[::-1])
        for row, begin, end in zip(scores, first.tolist(), last.tolist(), strict=True)
    ]
    above, upto = np.concatenate([np.empty((2, 0), np.int64), *counted], 1)
    query = np.repeat(np.arange(len(size)), size)
    new = np.ones(len(query), bool)
    new[1:] = (query[1:] != query[:-1]) | (above[1:] != above[:-1])
    starts = np.flatnonzero(new)
    query, above = query[starts], above[starts]
    before = starts - (np.cumsum(size) - size)[query]
    return Ties(query, above, before, upto[starts] - above, np.diff(starts, append=len(new)))


def _count(row: NDArray[np.float32], values: NDArray[np.float32]) -> Counts:
    """Return how many of a row [M] are more than each of the values, and how many are at least as much, [2, V]."""
    if len(values) <= FEW:
        counts = [[np.count_nonzero(row > one) for one in values], [np.count_nonzero(row >= one) for one in values]]
        return np.array(counts, np.int64)
    ordered = np.sort(row)
    return len(row) - np.stack([np.searchsorted(ordered, values, side) for side in ("right", "left")])


def _reciprocal_ranks(above: Counts, tied: Counts, hits: Counts) -> Floats:
    """Return the mean of 1 / rank of the first hit, which stands behind `above` items among `tied`, [Q]."""
    ranks = 1 / (above + 1)
    mixed = np.flatnonzero(tied > hits)
    cases, which = np.unique(np.stack([above, tied, hits])[:, mixed], axis=1, return_inverse=True)
    ranks[mixed] = np.array([_reciprocal_rank(*case) for case in cases.T.tolist()])[which]
    return ranks


def _reciprocal_rank(above: int, tied: int, hits: int) -> float:
    drawn = np.arange(tied - hits + 1)  # others of the tie that come first
    missed = np.cumprod((tied - hits - drawn[:-1]) / (tied - drawn[:-1]))
    chance = np.concatenate([[1.0], missed]) * hits / (tied - drawn)
    return float((chance / (above + 1 + drawn)).sum())


def _running(values: Floats) -> Floats:
    """Return the sums of the first 0, 1, 2, ... values."""
    return np.concatenate([[0.0], np.cumsum(values)])
