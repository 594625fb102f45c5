"""The geometry of a space: how the items of each modality are spread in it, and how modalities lie to each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.metrics import Estimate
from multimodal_ssl.ranking import Floats, distinct
from multimodal_ssl.resampling import percentile_interval, times_drawn

EXACT = 10_000  # items, up to which all pairs are looked at; of more so many are drawn
TILE = 1024  # items whose scores with all others stand in memory together
NEAREST = 10  # that a query is answered with, for hubs
TERMS = 60  # of a series whose n-th term is less than 4^n / n!^2

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the n items of one modality are spread in D dimensions.

    Attributes:
        looked_at: items whose pairs `uniformity` is the mean of, all or drawn ones.
        uniformity: log E exp(-2 |x - x'|^2) of different items; 0 if all are one point, None if there is but one item.
        evenly: that of the uniform distribution on the sphere, the least that a distribution has.
        effective_rank: from 1 to D.
    """

    n: int
    looked_at: int
    dim: int
    uniformity: float | None
    evenly: float
    effective_rank: float


@dataclass(frozen=True, slots=True)
class Distance:
    """How two modalities lie to each other.

    Attributes:
        pairs, groups: that have items of both.
        alignment: E |x - y|^2 over pairs of one group, by chance that over all pairs; None if they share no group.
        gap: |mean x - mean y|.
        gap_by_chance: root mean square of the gap between as many independent items of one modality.
    """

    items: tuple[str, str]
    pairs: int
    groups: int
    alignment: Estimate | None
    gap: float
    gap_by_chance: float


@dataclass(frozen=True, slots=True)
class Hubs:
    """How unevenly the items of a gallery are found by the queries of another modality.

    Attributes:
        n, gallery_size: queries and items that were looked at, all or drawn ones.
        skewness: of how often an item is among the 10 nearest of a query.
        chance: of that where each answer is drawn at random.
    """

    query: str
    gallery: str
    n: int
    gallery_size: int
    skewness: float
    chance: float


@dataclass(frozen=True, slots=True)
class Space:
    """The geometry of all modalities, of any two, and of retrieval from one to another."""

    shapes: dict[str, Shape]
    distances: list[Distance]
    hubs: list[Hubs]


def measure_space(items: Mapping[str, Embedded], *, exact: int = EXACT, seed: int = 0) -> Space:
    """Measure the geometry of embedded items; of modalities of more than `exact` some figures are of a sample."""
    drawn = {name: one.vectors[sample(len(one.vectors), exact, seed=seed)] for name, one in items.items()}
    groups = {name: hash64(one.groups) for name, one in items.items()}
    shapes = {
        name: Shape(
            n=len(one.vectors),
            looked_at=len(drawn[name]),
            dim=one.vectors.shape[1],
            uniformity=uniformity(drawn[name]),
            evenly=even_uniformity(one.vectors.shape[1]),
            effective_rank=effective_rank(one.vectors),
        )
        for name, one in items.items()
    }
    distances = [
        _distance((a, b), items[a].vectors, items[b].vectors, groups[a], groups[b])
        for a, b in itertools.combinations(items, 2)
    ]
    hubs = []
    for query, gallery in itertools.permutations(items, 2):
        found = occurrences(drawn[query], drawn[gallery])
        n, size = len(drawn[query]), len(drawn[gallery])
        hubs.append(Hubs(query, gallery, n, size, skewness(found), chance_skewness(n, size)))
    return Space(shapes, distances, hubs)


def sample(count: int, most: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the rows of all of `count` items, or of so many that are drawn, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def uniformity(vectors: Vectors) -> float | None:
    """Return log E exp(-2 |x - x'|^2) over pairs of different rows of vectors [N, D] (Wang and Isola 2020, sec. 4.1).

    None if there is but one.
    """
    if len(vectors) < 2:
        return None
    squares, total = np.einsum("nd,nd->n", vectors, vectors), 0.0
    for start in range(0, len(vectors), TILE):
        rows = slice(start, start + TILE)
        for other in range(start, len(vectors), TILE):
            columns = slice(other, other + TILE)
            distances = squares[rows, None] + squares[columns] - 2 * (vectors[rows] @ vectors[columns].T)
            near = np.exp(-2 * np.maximum(distances, 0))
            if other == start:
                np.fill_diagonal(near, 0)
            total += float(near.sum(dtype=np.float64)) * (1 if other == start else 2)
    return math.log(total / (len(vectors) * (len(vectors) - 1)))


def even_uniformity(dim: int) -> float:
    """Return the uniformity of the uniform distribution on the sphere in D dimensions.

    E exp(4 x.x') is 0F1(D / 2; 4), as in the constant of the von Mises-Fisher distribution (Mardia and Jupp 2000).
    """
    terms = np.cumprod([4 / ((k + 1) * (dim / 2 + k)) for k in range(TERMS)])
    return math.log1p(float(terms.sum())) - 4


def effective_rank(vectors: Vectors) -> float:
    """Return exp of the entropy of the singular values of vectors [N, D], over their sum (Roy and Vetterli 2007).

    They are those of R in vectors = QR, which is found some rows at a time.
    """
    triangle = torch.empty((0, vectors.shape[1]), dtype=torch.float64)
    for start in range(0, len(vectors), TILE):
        some = torch.from_numpy(vectors[start : start + TILE]).double()
        triangle = torch.linalg.qr(torch.cat([triangle, some]), mode="r").R
    values = torch.linalg.svdvals(triangle).numpy()
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def distances_by_group(
    a: Vectors, b: Vectors, groups: NDArray[np.int64], other_groups: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the sum of |x - y|^2 over all pairs of a [N, D] and b [M, D] in each group of both, and how many they are.

    With n and m items it is m sum |x|^2 + n sum |y|^2 - 2 (sum x).(sum y), so that no pair is looked at. The mean over
    all groups is the alignment (Wang and Isola 2020, sec. 4.1, with alpha = 2).
    """
    shared = np.intersect1d(groups, other_groups)
    sides = []
    for vectors, of in ((a, groups), (b, other_groups)):
        rows = np.flatnonzero(np.isin(of, shared))
        rows = rows[np.argsort(of[rows], kind="stable")]
        starts = np.searchsorted(of[rows], shared)
        some = vectors[rows].astype(np.float64)
        sides.append(
            (
                np.diff(starts, append=len(rows)).astype(np.float64),
                np.add.reduceat(np.einsum("nd,nd->n", some, some), starts) if len(rows) else np.empty(0),
                np.add.reduceat(some, starts) if len(rows) else some,
            )
        )
    (n, squares, sums), (m, other_squares, other_sums) = sides
    apart = m * squares + n * other_squares - 2 * np.einsum("gd,gd->g", sums, other_sums)
    return np.maximum(apart, 0), n * m


def _distance(
    names: tuple[str, str], a: Vectors, b: Vectors, groups: NDArray[np.int64], other_groups: NDArray[np.int64]
) -> Distance:
    means = [one.mean(0, dtype=np.float64) for one in (a, b)]
    squares = [float(np.einsum("nd,nd->", one, one, dtype=np.float64)) / len(one) for one in (a, b)]
    spreads = [square - float(mean @ mean) for square, mean in zip(squares, means, strict=True)]
    apart, pairs = distances_by_group(a, b, groups, other_groups)
    near = None
    if len(apart):
        sums = np.stack([apart, pairs], 1)
        drawn = np.concatenate([times @ sums for times in times_drawn(len(sums))])
        low, high = map(float, percentile_interval(drawn[:, 0] / drawn[:, 1]))
        chance = sum(squares) - 2 * float(means[0] @ means[1])
        near = Estimate(float(apart.sum() / pairs.sum()), low, high, chance)
    return Distance(
        items=names,
        pairs=int(pairs.sum()),
        groups=len(apart),
        alignment=near,
        gap=float(np.linalg.norm(means[0] - means[1])),
        gap_by_chance=math.sqrt(max(0.0, spreads[0] / len(a) + spreads[1] / len(b))),
    )


def occurrences(queries: Vectors, gallery: Vectors, *, k: int = NEAREST) -> Floats:
    """Return how often each item of a gallery [M, D] is among the k nearest of queries [Q, D] by inner product, [M].

    The places that items of one score would share are shared among them evenly.
    """
    some, which = distinct(gallery)
    times, k = np.zeros(len(gallery)), min(k, len(gallery))
    for start in range(0, len(queries), TILE):
        scores = (queries[start : start + TILE] @ some.T)[:, which]
        least = np.partition(scores, len(gallery) - k, axis=1)[:, len(gallery) - k, None]
        above, tied = scores > least, scores == least
        shares = (k - above.sum(1)) / tied.sum(1)
        times += above.sum(0) + shares @ tied
    return times


def skewness(values: Floats) -> float:
    """Return E (v - mean)^3 / sd^3, above 0 where a few are far more than the rest; 0 if all are the same.

    Of occurrences it is the hubness (Radovanović et al. 2010).
    """
    apart = values - values.mean()
    spread = float(np.sqrt((apart**2).mean()))
    return float((apart**3).mean()) / spread**3 if spread > 1e-9 * abs(float(values.mean())) else 0.0


def chance_skewness(queries: int, gallery: int, *, k: int = NEAREST) -> float:
    """Return the skewness of how often an item is drawn if each query draws k of the gallery: that of a binomial."""
    p = min(1.0, k / gallery)
    return (1 - 2 * p) / math.sqrt(queries * p * (1 - p)) if p < 1 else 0.0
