"""Verification: does this pair belong together? How many right pairs a threshold accepts, and how many wrong ones.

A threshold accepts all pairs that score as much or more, so that it stands between distinct scores: pairs that tie are
accepted together or not at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.metrics import Estimate
from multimodal_ssl.ranking import Floats
from multimodal_ssl.resampling import percentile_interval, times_drawn

FARS = (0.1, 0.01, 0.001)
ERRORS = 30  # wrong pairs accepted, from which a rate is known to 30 % nine times in ten (Doddington et al. 2000)
WRONG = 100_000  # pairs that are drawn
POINTS = 200  # of a curve that are kept


class Pairs(NamedTuple):
    """Scores of pairs [N], whether they are right, and the groups of both sides."""

    scores: Floats
    right: NDArray[np.bool_]
    groups: NDArray[np.int64]
    other_groups: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verification:
    """How well a threshold tells right pairs from wrong ones.

    FAR is the share of wrong pairs that are accepted, TAR that of right ones.

    Attributes:
        right, wrong: pairs of each kind.
        auroc: probability that a right pair scores more than a wrong one; a tie is half.
        eer: the rate at which as many wrong pairs are accepted as right ones refused; 0 is best.
        tar: FAR -> TAR at the lowest threshold that accepts no greater share of the wrong.
        roc: FAR and TAR of thresholds from the highest to the lowest, some of them if they are many.
    """

    right: int
    wrong: int
    auroc: Estimate
    eer: Estimate
    tar: dict[float, Estimate]
    roc: list[tuple[float, float]]


def verify(pairs: Pairs, *, fars: Sequence[float] | None = None) -> Verification:
    """Measure how well scores tell right pairs from wrong ones, with 95 % intervals over groups.

    The bootstrap draws groups; a wrong pair counts as often as both of its groups are drawn, together. Raises
    InputError for a FAR that so many wrong pairs can't resolve; if none is given, those of FARS are taken that can be.
    """
    right, wrong = int(pairs.right.sum()), int((~pairs.right).sum())
    if not right or not wrong:
        raise InputError(f"verification needs right pairs and wrong ones (given: {right:,} and {wrong:,})")
    if fars is None:
        fars = [far for far in FARS if wrong >= needed(far)]
    for asked in fars:
        if wrong < needed(asked):
            raise InputError(
                f"{wrong:,} wrong pairs can't resolve a FAR of {asked:g}: it takes {needed(asked):,}, so that "
                f"{ERRORS} are accepted; ask for a greater FAR, or evaluate more items"
            )
    descending, which = np.unique(-pairs.scores, return_inverse=True)

    def measure(weights: Floats) -> tuple[list[float], Floats, Floats]:
        """Return AUROC, EER and the TARs of pairs that count so often [N], and FAR and TAR of every threshold."""
        tar, far = (
            np.cumsum(np.concatenate([[0.0], np.bincount(which[some], weights[some], len(descending))]))
            for some in (pairs.right, ~pairs.right)
        )
        tar, far = tar / tar[-1], far / far[-1]
        # Between two thresholds the curve is straight, as if the pairs that tie were accepted at random.
        eer = float(np.interp(1.0, far + tar, far))
        at = tar[np.searchsorted(far, fars, "right") - 1]
        return [float(np.trapezoid(tar, far)), eer, *at.tolist()], far, tar

    values, far, tar = measure(np.ones(len(which)))
    both = np.unique(np.concatenate([pairs.groups, pairs.other_groups]), return_inverse=True)[1].reshape(2, -1)
    spread = []
    for times in times_drawn(int(both.max()) + 1):
        for row in times:
            weights = np.where(pairs.right, row[both[0]], row[both[0]] * row[both[1]]).astype(np.float64)
            if weights[pairs.right].any() and weights[~pairs.right].any():
                spread.append(measure(weights)[0])
    low, high = percentile_interval(np.array(spread))
    estimates = [Estimate(*map(float, one)) for one in zip(values, low, high, [0.5, 0.5, *fars], strict=True)]
    some = np.unique(np.searchsorted(far, [0, *np.geomspace(1 / wrong, 1, POINTS)], "right") - 1)
    return Verification(
        right=right,
        wrong=wrong,
        auroc=estimates[0],
        eer=estimates[1],
        tar=dict(zip(fars, estimates[2:], strict=True)),
        roc=list(zip(far[some].tolist(), tar[some].tolist(), strict=True)),
    )


def needed(far: float) -> int:
    """Return how many wrong pairs resolve a FAR."""
    return math.ceil(ERRORS / far)


def draw_pairs(a: Embedded, b: Embedded, *, wrong: int = WRONG, seed: int = 0) -> Pairs:
    """Return the cosines of each a with one b of its group, and of so many pairs of different groups, drawn at random.

    If there are no more wrong pairs, all of them. An a without a b of its group stands in wrong pairs only.
    """
    rng = np.random.default_rng(seed)
    groups, other_groups = hash64(a.groups), hash64(b.groups)
    order = np.argsort(other_groups, kind="stable")
    first, last = (np.searchsorted(other_groups[order], groups, side) for side in ("left", "right"))
    left = np.flatnonzero(last > first)
    right = order[rng.integers(first[left], last[left])]
    drawn = rng.choice(len(a.vectors) * len(b.vectors), min(wrong, len(a.vectors) * len(b.vectors)), replace=False)
    rows, others = np.divmod(drawn, len(b.vectors))
    apart = groups[rows] != other_groups[others]
    rows, others = np.concatenate([left, rows[apart]]), np.concatenate([right, others[apart]])
    scores = np.concatenate(
        [
            (a.vectors[some] * b.vectors[with_]).sum(1)
            for some, with_ in zip(np.array_split(rows, 64), np.array_split(others, 64), strict=True)
        ]
    )
    return Pairs(scores.astype(np.float64), np.arange(len(rows)) < len(left), groups[rows], other_groups[others])


def verify_items(
    items: Mapping[str, Embedded], *, fars: Sequence[float] | None = None
) -> dict[tuple[str, str], Verification]:
    """Verify the pairs of any two names that share a group; the right ones are those of the one with more items."""
    found, wrong = {}, max(WRONG, *(2 * needed(far) for far in fars or FARS))
    for names in itertools.combinations(items, 2):
        a, b = sorted((items[name] for name in names), key=lambda one: -len(one.keys))
        if not set(a.groups).isdisjoint(b.groups):
            found[names] = verify(draw_pairs(a, b, wrong=wrong), fars=fars)
    if not found:
        raise InputError(f"no two modalities of the evaluation share a group: {', '.join(items)}")
    return found


def draw_roc(path: Path, found: Mapping[tuple[str, str], Verification]) -> None:
    """Draw the curve of each pair of names into a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    least = min(1 / one.wrong for one in found.values())
    for names, one in found.items():
        far, tar = zip(*one.roc, strict=True)
        axes.step(np.maximum(far, least), tar, where="post", label=f"{'-'.join(names)}, EER {one.eer.value:.3f}")
    axes.plot(chance := np.geomspace(least, 1), chance, "--", color="grey", label="chance")
    axes.set(xscale="log", xlabel="FAR: wrong pairs accepted", ylabel="TAR: right pairs accepted", ylim=(0, 1.02))
    axes.legend(loc="upper left", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
