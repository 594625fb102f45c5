"""Retrieval metrics with groups, fair ties, chance level and confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError

CHUNK = 2**25  # scores that stand in memory together

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well queries find items of their group.

    Attributes:
        n: queries that have something to find; `unanswerable` is how many have not.
        gallery: items searched.
        recall: k -> share of queries with an item of their group among the first k.
        interval: k -> 95 % interval of it, over groups.
        chance: k -> what a random order gives.
        median_rank: of the first item of the group; 1 is best.
    """

    n: int
    unanswerable: int
    gallery: int
    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    chance: dict[int, float]
    median_rank: float


class FirstHits(NamedTuple):
    """Where the best item of each query's group stands, counts [N]: `greater` items score more; of the items with its
    very score, `tied_hits` are of the group and `tied_others` are not. `hits` is the size of the group."""

    greater: Counts
    tied_hits: Counts
    tied_others: Counts
    hits: Counts


def retrieval(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_groups: NDArray[np.int64],
    gallery_groups: NDArray[np.int64],
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Retrieval:
    """Score queries [N, D] against a gallery [M, D] by inner product; items of the query's group are hits.

    Ties count as their expectation over random orders, so a collapsed model scores chance. Raises InputError if there
    is nothing to measure, or a vector is not finite.
    """
    for name, vectors in (("queries", queries), ("gallery", gallery)):
        if not np.isfinite(vectors).all():
            raise InputError(f"some vectors of the {name} are not finite: they would seem to be found at once")
    found = first_hits(queries, gallery, query_groups, gallery_groups)
    answerable = found.hits > 0
    if not answerable.any():
        raise InputError("no query has an item of its group in the gallery: nothing to measure")
    found = FirstHits(*(counts[answerable] for counts in found))
    tied = found.tied_hits + found.tied_others
    shares = {k: chance_of_hit(found.tied_hits, tied, k - found.greater) for k in ks}
    groups = query_groups[answerable]
    return Retrieval(
        n=len(groups),
        unanswerable=int((~answerable).sum()),
        gallery=len(gallery),
        recall={k: float(shares[k].mean()) for k in ks},
        interval={k: wilson_interval(shares[k], groups) for k in ks},
        chance={
            k: float(chance_of_hit(found.hits, np.full_like(tied, len(gallery)), np.full_like(tied, k)).mean())
            for k in ks
        },
        median_rank=float(np.median(found.greater + (tied + 1) / (found.tied_hits + 1))),
    )


def first_hits(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_groups: NDArray[np.int64],
    gallery_groups: NDArray[np.int64],
) -> FirstHits:
    """Find the best item of each query's group."""
    items, item_groups = torch.from_numpy(gallery).T, torch.from_numpy(gallery_groups)
    parts = []
    size = max(1, CHUNK // max(1, len(gallery)))
    for start in range(0, len(queries), size):
        scores = torch.from_numpy(queries[start : start + size]) @ items  # [size, M]
        same = torch.from_numpy(query_groups[start : start + size])[:, None] == item_groups
        best = scores.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
        tied = scores == best
        parts.append(torch.stack([(scores > best).sum(1), (tied & same).sum(1), (tied & ~same).sum(1), same.sum(1)]))
    return FirstHits(*torch.cat(parts, 1).numpy())


def chance_of_hit(hits: Counts, items: Counts, draws: Counts) -> NDArray[np.float64]:
    """Return the probability that some of `hits` among `items` are among `draws` drawn at random (hypergeometric)."""
    miss = np.ones(len(hits))
    for drawn in range(max(0, int(draws.max(initial=0)))):
        left = np.maximum(items - drawn, 1)
        miss *= np.where(drawn < draws, np.maximum(items - hits - drawn, 0) / left, 1.0)
    return 1 - miss


def wilson_interval(values: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values [N] in [0, 1] whose groups were drawn as wholes.

    Wilson's score interval (1927) of as many independent values as have the variance of the mean over groups (Kish
    1965, the design effect). Unlike a bootstrap it keeps its width where all values are 0 or 1.
    """
    _, which = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(which, values), np.bincount(which)
    mean, number = float(values.mean()), len(sums)
    variance = float(((sums - mean * counts) ** 2).sum()) * number / max(1, number - 1) / len(values) ** 2
    simple = mean * (1 - mean)
    effective = min(len(values), max(1.0, simple / variance)) if variance * simple > 0 else number
    z = 1.959964
    centre = (mean + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * math.sqrt(simple / effective + z**2 / (4 * effective**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive scores more than a negative; a tie is half (Mann and Whitney 1947)."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    hits = int(positive.sum())
    if hits in (0, len(positive)):
        raise InputError("an AUROC needs positives and negatives")
    return float((ranks[positive].mean() - (hits + 1) / 2) / (len(positive) - hits))
