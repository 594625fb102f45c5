"""What tells a wrong pair from one that is merely hard: a judge trusts both alike, but they stand elsewhere.

Of a wrong pair the partner of some other sample would fit much better, of a hard one none. Trust, rivals and parallels
together tell decoys from samples by logistic regression, as Percolator does in the search of mass spectra (Käll et al.
2007). So what is hard, and believed as little as a decoy, is no more likely to be wrong than any other pair.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.logistic import fit_logistic
from multimodal_ssl.neighbours import nearest_other, neighbours

Floats = NDArray[np.float64]
NEAR = 20  # nearest neighbours, among which parallels are looked for
RIDGE = 400.0  # of the sum of losses, on standardised terms: few decoys prove little
DEVIATIONS = 4.0  # beyond which evidence counts no more
ENOUGH = 60  # decoys to fit to: six for each of the terms of three kinds of evidence


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
        own = one[rows]
        found[:, 0] += (own * other[nearest_other(other, own, rows)]).sum(1)
        closest = np.full(len(rows), -1.0)
        for column in neighbours(other, other[rows], NEAR + 1).T:  # itself among them
            cosines = np.where((column == rows) | decoy[column], -1, (own * one[column]).sum(1))
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
) -> tuple[Floats, list[int]]:
    """Return the log odds [J, N] of each sample, as each judge sees it, against a decoy of its source and kind.

    The regression that weighs the evidence on a judge's samples was fitted to those of the other judges. Of a source
    with too few decoys of some kind to fit to there is the first kind of evidence, trust, instead; these are returned,
    too.

    Args:
        evidence: [J, N, E]; NaN where a judge knows nothing of the sample, as are the odds then.
        judge: [N], that the sample belongs to. To all others it is a decoy if it is one.
        source: [N], where the sample comes from.
        kind: [J, N], which of its items the evidence is about.
    """
    odds, known = np.full(evidence.shape[:2], np.nan), np.isfinite(evidence).all(-1)
    judges, alone = range(len(evidence)), []
    for here in np.unique(source).tolist():
        own_source = known & (source == here)
        parts = [own_source & (kind == one) for one in np.unique(kind[own_source])]
        fitted = [one for part in parts if (one := _fit(evidence, judge, decoy, part))]
        if len(fitted) < len(parts):
            odds[own_source] = evidence[own_source, 0]
            alone.append(here)
            continue
        for part, regressions in zip(parts, fitted, strict=True):
            for view, own in itertools.product(judges, judges):
                rows = part[view] & (judge == own)
                others = [own] if own != view else [one for one in judges if one != own]
                odds[view, rows] = -np.mean([regressions[one].log_odds(evidence[view, rows]) for one in others], 0)
    return odds, alone


def _fit(
    evidence: Floats, judge: NDArray[np.int64], decoy: NDArray[np.bool_], part: NDArray[np.bool_]
) -> list[Regression]:
    """Return what tells decoys, in a part [J, N] of what the judges see, for the samples of each judge.

    Nothing if there are too few to fit to.
    """
    regressions = []
    for own in range(len(evidence)):
        fit = part & (judge != np.arange(len(evidence))[:, None]) & (judge != own)
        seen = fit.any(0)
        if min((seen & decoy).sum(), (seen & ~decoy).sum()) < ENOUGH:
            return []
        regressions.append(Regression(evidence[fit], np.broadcast_to(decoy, fit.shape)[fit]))
    return regressions


class Regression:
    """Logistic regression on evidence [N, E], its squares and products; of labels [N].

    The ridge is large since chance carries over: a mismatch that one judge owns has the right partner of one that
    another judge owns, and so what stands out about it by chance. Decoys exchange among those of one judge.
    """

    def __init__(self, evidence: Floats, labels: NDArray[np.bool_]) -> None:
        self.mean, self.deviation = evidence.mean(0), np.maximum(evidence.std(0), 1e-9)
        self.weights = fit_logistic(self._terms(evidence), labels, ridge=RIDGE)

    def log_odds(self, evidence: Floats) -> Floats:
        """Return the log odds [N] of the label."""
        odds: Floats = self._terms(evidence) @ self.weights
        return odds

    def _terms(self, evidence: Floats) -> Floats:
        scaled = np.clip((evidence - self.mean) / self.deviation, -DEVIATIONS, DEVIATIONS)
        first, second = np.triu_indices(scaled.shape[1])
        return np.concatenate([np.ones((len(scaled), 1)), scaled, scaled[:, first] * scaled[:, second]], 1)
