"""Retrieval metrics with groups, fair ties, chance level and confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.ranking import DEPTH, Floats, everything_tied, expected, find_ties
from multimodal_ssl.resampling import percentile_interval, resampled_means

MEASURES = ("MRR", "mAP", f"nDCG@{DEPTH}", "R-precision")  # beside R@k


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its 95 % interval over groups, and what a random order gives."""

    value: float
    low: float
    high: float
    chance: float


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
        measures: MRR, mAP, nDCG@10 and R-precision.
    """

    n: int
    unanswerable: int
    gallery: int
    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    chance: dict[int, float]
    median_rank: float
    measures: dict[str, Estimate]

    @property
    def times_chance(self) -> float:
        """R@1 as a multiple of its chance level, which is above 0 because every query has something to find."""
        return self.recall[1] / self.chance[1]


@dataclass(frozen=True, slots=True)
class Answers:
    """How each query was answered.

    Attributes:
        rows: [Q], of the queries that have something to find; `unanswerable` is how many have not.
        groups: [Q].
        gallery: items searched.
        ks: of R@k.
        values: measure (see `ranking.expected`) -> [Q].
        chance: measure -> what a random order gives, [Q].
    """

    rows: NDArray[np.int64]
    unanswerable: int
    groups: NDArray[np.int64]
    gallery: int
    ks: tuple[int, ...]
    values: dict[str, Floats]
    chance: dict[str, Floats]


def answer(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_groups: NDArray[np.int64],
    gallery_groups: NDArray[np.int64],
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Answers:
    """Tell how queries [N, D] find, by inner product, the items of their group in a gallery [M, D].

    Ties count as their expectation over random orders, so a collapsed model scores chance. Raises InputError if there
    is nothing to measure, or a vector is not finite.
    """
    for name, vectors in (("queries", queries), ("gallery", gallery)):
        if not np.isfinite(vectors).all():
            raise InputError(f"some vectors of the {name} are not finite: they would seem to be found at once")
    sizes, which = np.unique(gallery_groups, return_counts=True)
    rows = np.flatnonzero(np.isin(query_groups, sizes))
    if not len(rows):
        raise InputError("no query has an item of its group in the gallery: nothing to measure")
    groups = query_groups[rows]
    parts = [expected(one, ks=ks) for one in find_ties(queries[rows], gallery, groups, gallery_groups)]
    hits, size = np.unique(which[np.searchsorted(sizes, groups)], return_inverse=True)
    random = expected(everything_tied(hits, len(gallery)), ks=ks)
    return Answers(
        rows=rows,
        unanswerable=len(queries) - len(rows),
        groups=groups,
        gallery=len(gallery),
        ks=tuple(ks),
        values={name: np.concatenate([part[name] for part in parts]) for name in random},
        chance={name: values[size] for name, values in random.items()},
    )


def summarise(answers: Answers) -> Retrieval:
    """Return the means over queries, with intervals over groups: Wilson's for R@k, a bootstrap for all others."""
    values, chance = answers.values, {name: float(one.mean()) for name, one in answers.chance.items()}
    low, high = percentile_interval(resampled_means(np.stack([values[name] for name in MEASURES], 1), answers.groups))
    return Retrieval(
        n=len(answers.rows),
        unanswerable=answers.unanswerable,
        gallery=answers.gallery,
        recall={k: float(values[f"R@{k}"].mean()) for k in answers.ks},
        interval={k: wilson_interval(values[f"R@{k}"], answers.groups) for k in answers.ks},
        chance={k: chance[f"R@{k}"] for k in answers.ks},
        median_rank=float(np.median(values["rank"])),
        measures={
            name: Estimate(float(values[name].mean()), float(low[i]), float(high[i]), chance[name])
            for i, name in enumerate(MEASURES)
        },
    )


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
