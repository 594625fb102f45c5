"""Logistic regression by Newton's method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-12  # share of the loss, less than which a step is the last

Floats = NDArray[np.float64]


def fit_logistic(
    terms: Floats, labels: NDArray[np.bool_], *, ridge: float = 0.0, importance: Floats | None = None
) -> Floats:
    """Return the weights [T] of greatest likelihood of labels [N] given terms [N, T]; the first term is 1.

    Args:
        ridge: times half the squares of all weights but the first is added to the sum of losses.
        importance: how often each label counts [N].
    """
    count = np.ones(len(terms)) if importance is None else importance
    penalty = ridge * (np.arange(terms.shape[1]) > 0)

    def loss(weights: Floats) -> float:
        odds = terms @ weights
        return float((count * (np.logaddexp(0, odds) - odds * labels)).sum() + (penalty * weights**2).sum() / 2)

    weights = np.zeros(terms.shape[1])
    while True:
        probability = np.exp(-np.logaddexp(0, -terms @ weights))
        gradient = terms.T @ (count * (probability - labels)) + penalty * weights
        curvature = (terms * (count * probability * (1 - probability))[:, None]).T @ terms + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        before = loss(weights)
        while loss(weights - step) > before * (1 + TOLERANCE):
            step /= 2
        weights = weights - step
        if loss(weights) >= before * (1 - TOLERANCE):
            return weights
