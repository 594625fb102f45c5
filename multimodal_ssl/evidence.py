"""What tells a wrong pair from one that is merely hard: a judge trusts both alike, but they stand elsewhere.

A hard pair has no rival either: no partner of another sample would do much better. Trust, rivals and parallels together
tell decoys from samples by logistic regression, as Percolator does in the search of mass spectra (Käll et al. 2007). So
what is hard, and believed as little as a decoy, is no more likely to be wrong than any other pair.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from multimodal_ssl.neighbours import nearest_other, neighbours

Floats = NDArray[np.float64]
NEAR = 20  # nearest neighbours, among which parallels are looked for
RIDGE = 1e-3  # of the mean loss, on standardised terms
DEVIATIONS = 4.0  # beyond which evidence counts no more
ENOUGH = 100  # decoys to fit to: ten for each of the terms of three kinds of evidence


def surroundings(
    a: NDArray[np.float32], b: NDArray[np.float32], decoy: NDArray[np.bool_], rows: NDArray[np.int64]
) -> Floats:
    """Return the rival and the parallel [R, 2] of these rows of the pairs of unit vectors a, b [N, D].

    The rival is the cosine with the partner of another sample that goes best with the a, plus that of the a that goes
    best with the b. The parallel is the greatest cosine of its a with those of the samples, no decoys, whose b are
    nearest, plus the same the other way round: is there another pair like this one?
    """
    found = np.zeros((len(rows), 2))
    for one, other in ((a, b), (b, a)):
        found[:, 0] += (one[rows] * other[nearest_other(other, one[rows], rows)]).sum(1)
        closest = np.full(len(rows), -1.0)
        for column in neighbours(other, other[rows], NEAR + 1).T:  # itself among them
            cosines = np.where((column == rows) | decoy[column], -1, (one[rows] * one[column]).sum(1))
            closest = np.maximum(closest, cosines)
        found[:, 1] += closest
    return found


def belief(
    evidence: Floats,
    judge: NDArray[np.int64],
    decoy: NDArray[np.bool_],
    *,
    source: NDArray[np.int64],
    kind: NDArray[np.int64],
) -> Floats:
    """Return the log odds [J, N] of each sample, as each judge sees it, against a decoy of its source and kind.

    The regression that weighs the evidence on a judge's samples was fitted to those of the other judges. A source with
    too few decoys of some kind to fit to has the first column of the evidence, trust, alone.

    Args:
        evidence: [J, N, E]; NaN where a judge knows nothing of the sample.
        judge: [N], that the sample belongs to. To all others it is a decoy if it is one.
        source: [N], where the sample comes from.
        kind: [J, N], which of its items the evidence is about.
    """
    odds, known = evidence[..., 0].copy(), np.isfinite(evidence).all(-1)
    judges = range(len(evidence))
    for here in np.unique(source):
        own_source = known & (source == here)
        parts = [own_source & (kind == one) for one in np.unique(kind[own_source])]
        fitted = [_fit(evidence, judge, decoy, part) for part in parts]
        for part, regressions in zip(parts, fitted, strict=True) if all(fitted) else ():
            for view, own in itertools.product(judges, judges):
                rows = part[view] & (judge == own)
                others = [own] if own != view else [one for one in judges if one != own]
                odds[view, rows] = -np.mean([regressions[one].log_odds(evidence[view, rows]) for one in others], 0)
    return odds


def _fit(
    evidence: Floats, judge: NDArray[np.int64], decoy: NDArray[np.bool_], part: NDArray[np.bool_]
) -> list[Regression]:
    """Return what tells decoys, in a part [J, N] of what the judges see, for the samples of each judge.

    Nothing if there are too few decoys to fit to.
    """
    regressions = []
    for own in range(len(evidence)):
        fit = part & (judge != np.arange(len(evidence))[:, None]) & (judge != own)
        labels = np.broadcast_to(decoy, fit.shape)[fit]
        if min(labels.sum(), (~labels).sum()) < ENOUGH:
            return []
        regressions.append(Regression(evidence[fit], labels))
    return regressions


class Regression:
    """Logistic regression on evidence [N, E], its squares and products; of labels [N]."""

    def __init__(self, evidence: Floats, labels: NDArray[np.bool_]) -> None:
        self.mean, self.deviation = evidence.mean(0), np.maximum(evidence.std(0), 1e-9)
        terms, truth = self._terms(evidence), torch.from_numpy(labels.astype(np.float64))
        self.weights = torch.zeros(terms.shape[1], dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [self.weights], max_iter=1000, tolerance_grad=1e-7, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss() -> float:
            solver.zero_grad()
            value = F.binary_cross_entropy_with_logits(terms @ self.weights, truth)
            value = value + RIDGE / 2 * self.weights[1:].square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value.item()

        solver.step(loss)  # type: ignore[no-untyped-call]

    def log_odds(self, evidence: Floats) -> Floats:
        """Return the log odds [N] of the label."""
        with torch.no_grad():
            odds: Floats = (self._terms(evidence) @ self.weights).numpy()
        return odds

    def _terms(self, evidence: Floats) -> torch.Tensor:
        scaled = np.clip((evidence - self.mean) / self.deviation, -DEVIATIONS, DEVIATIONS)
        first, second = np.triu_indices(scaled.shape[1])
        terms = np.concatenate([np.ones((len(scaled), 1)), scaled, scaled[:, first] * scaled[:, second]], 1)
        return torch.from_numpy(terms)
