"""How probable it is that an answer is a match, so that a query may have none.

A cosine tells nothing by itself: it is high for some queries whatever they are compared with. So it is told in
deviations above the cosines of the same query with a background, items drawn at random (the z-norm of speaker
verification, Auckenthaler et al. 2000), and these become a probability by logistic regression on pairs whose groups
tell the truth (Platt 1999).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.logistic import fit_logistic

Floats = NDArray[np.float64]

RIDGE = 1.0
BACKGROUND = 1000  # items at most
FEWEST = 50  # answers that match, and that do not, from which there is something to learn
PRIOR = 0.5  # of a query's having an answer at all
BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes a probability of a cosine, for queries of one modality among items of another.

    Attributes:
        weights: of 1, z and z^2; the last two are not below 0, so that a greater cosine is never less probable.
        items: among which the answers were that it was learnt from.
        queries: whose answers these were.
        error: expected calibration error of queries that it was not learnt from (Naeini et al. 2015).
    """

    weights: tuple[float, float, float]
    items: int
    queries: int
    error: float

    def probability(self, z: Floats, items: int) -> Floats:
        """Return the probability [...] of a match, of answers at z [...] among so many items."""
        # Each item is the match with one chance in `items`: the odds before its cosine is looked at.
        odds = _terms(z) @ np.array(self.weights) - np.log(max(1, items) / self.items)
        return np.asarray(1 / (1 + np.exp(-odds))).reshape(z.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; Calibration(**values) reads them."""
        return asdict(self)


def standardised(cosines: NDArray[np.float32], background: NDArray[np.float32]) -> Floats:
    """Return cosines [Q, K] in deviations above the background's cosines [Q, B] with the same queries.

    Median and upper quantile stand for mean and deviation, since some of the background may match.
    """
    middle, above = np.quantile(background.astype(np.float64), [0.5, 0.841], axis=1, keepdims=True)
    return (cosines - middle) / np.maximum(above - middle, 1e-6)


def calibrate(z: Floats, is_match: NDArray[np.bool_], items: int) -> Calibration | None:
    """Learn from the first answers [Q, K] of queries, or return None where there is too little to learn from.

    A match counts as often as PRIOR tells, and what is no match always: it would be an answer without the match, too.
    """
    if min(is_match.sum(), (~is_match).sum()) < 2 * FEWEST:
        return None
    halves = np.random.default_rng(0).permutation(len(z)) % 2 == 0
    errors = [_error(_fitted(z[~half], is_match[~half]), z[half], is_match[half]) for half in (halves, ~halves)]
    first, second, third = _fitted(z, is_match).tolist()
    return Calibration((first, second, third), items, len(z), float(np.mean(errors)))


def _terms(z: Floats) -> Floats:
    return np.stack([np.ones(z.size), z.ravel(), z.ravel() ** 2], 1)


def _fitted(z: Floats, is_match: NDArray[np.bool_]) -> Floats:
    """Return weights with which the probability never goes down as z > 0 goes up: without z^2 where it would."""
    labels, count = is_match.ravel(), _importance(is_match)
    weights = fit_logistic(_terms(z), labels, ridge=RIDGE, importance=count)
    if (weights[1:] >= 0).all():
        return weights
    return np.append(fit_logistic(_terms(z)[:, :2], labels, ridge=RIDGE, importance=count), 0.0)


def _importance(is_match: NDArray[np.bool_]) -> Floats:
    return np.where(is_match.ravel(), PRIOR, 1.0)


def _error(weights: Floats, z: Floats, is_match: NDArray[np.bool_]) -> float:
    probability = 1 / (1 + np.exp(-_terms(z) @ weights))
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    count = _importance(is_match)
    gaps = np.bincount(bins, count * (probability - is_match.ravel()), BINS)
    return float(np.abs(gaps).sum() / count.sum())
