"""Groups are drawn again for an interval, and their signs flipped for a p-value.

Items of one group are no independent evidence, so that it is always whole groups that are drawn or flipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000  # of a bootstrap
FLIPS = 10_000  # the least p-value is one in so many
BLOCK = 2**20  # groups that are drawn or flipped together
ROUNDING = 1e-9  # of a sum, below which two are the same

Floats = NDArray[np.float64]


def times_drawn(groups: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yield how often each group is drawn, with replacement and as many as there are (Efron 1979), [some, G]."""
    rng, size = np.random.default_rng(seed), max(1, BLOCK // groups)
    for start in range(0, resamples, size):
        rows = np.arange(min(size, resamples - start))[:, None]
        drawn = rng.integers(groups, size=(len(rows), groups)) + rows * groups
        yield np.bincount(drawn.ravel(), minlength=len(rows) * groups).reshape(len(rows), groups)


def resampled_means(values: Floats, groups: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return the means [R, V] of values [N, V] over groups drawn again."""
    sums = group_sums(np.column_stack([values, np.ones(len(values))]), groups)
    drawn = np.concatenate([times @ sums for times in times_drawn(len(sums), resamples=resamples, seed=seed)])
    means: Floats = drawn[:, :-1] / drawn[:, -1:]
    return means


def percentile_interval(resampled: Floats) -> tuple[Floats, Floats]:
    """Return the ends [V] of the 95 % interval of what was measured of each resample [R, V]."""
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    return low, high


def flip_signs(differences: Floats, groups: NDArray[np.int64], *, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Return the two-sided p-value [V] of paired differences [N, V], whose signs could as well be the others.

    The permutation test (Fisher 1935; Pitman 1937) by drawn flips of whole groups, what was found being one of them.
    """
    sums = group_sums(differences, groups)
    sums = sums[sums.any(1)]
    found, scale = np.abs(sums.sum(0)), np.abs(sums).sum(0)
    rng, size = np.random.default_rng(seed), max(1, BLOCK // max(1, len(sums)))
    reached = np.ones(differences.shape[1])
    for start in range(0, flips, size):
        shape = (min(size, flips - start), len(sums))
        signs = 1 - 2 * rng.integers(2, size=shape, dtype=np.int8)
        reached += (np.abs(signs @ sums) >= found - ROUNDING * scale).sum(0)
    p_values: Floats = reached / (flips + 1)
    return p_values


def group_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Return the sums [G, V] of values [N, V] over each group."""
    _, which = np.unique(groups, return_inverse=True)
    return np.stack([np.bincount(which, column) for column in values.T], 1)
