"""How numbers are spread: the least, the median, the 95th percentile, the most, and a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 32


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread of n numbers; the counts are of the bins between one edge and the next.

    Attributes:
        edges: of the bins, whole numbers if all numbers are; their distances grow if the numbers do so.
    """

    n: int
    least: float
    median: float
    p95: float
    most: float
    edges: list[float]
    counts: list[int]


def spread(values: Sequence[float] | NDArray[np.generic]) -> Spread | None:
    """Return how finite numbers are spread; None if there is none."""
    found = np.asarray(values, np.float64)
    if not len(found):
        return None
    least, most = float(found.min()), float(found.max())
    median, p95 = (float(np.quantile(found, q, method="lower")) for q in (0.5, 0.95))
    edges = _edges(least, most, median, whole=bool((found == np.floor(found)).all()))
    return Spread(len(found), least, median, p95, most, edges.tolist(), np.histogram(found, edges)[0].tolist())


def _edges(least: float, most: float, median: float, *, whole: bool) -> NDArray[np.float64]:
    if least == most:
        return np.array([least, least + 1])
    is_skewed = least >= 0 and most > 20 * max(median, 1e-9)  # on a straight scale all but a few were in one bin
    low = max(least, min(median, most) / 100, 1e-9)
    if is_skewed:
        edges = np.concatenate([[least], np.geomspace(low, most, BINS + 1)[1:]])
    else:
        edges = np.linspace(least, most, BINS + 1)
    if whole:
        edges = np.unique(np.append(np.floor(edges[:-1]), most + 1))
    else:
        edges[-1] = most
    return edges
