"""Which pairs are wrong: the rank of a pair among known mismatches as a p-value, and what p-values tell together.

A wrong partner is a stranger itself, so that its p-value is uniform in [0, 1]; that of a right one is small. The rate
of wrong pairs is then the share of uniform p-values, and the probability that one pair is wrong is the local false
discovery rate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multimodal_ssl.metrics import wilson_interval
from multimodal_ssl.neighbours import neighbours

Floats = NDArray[np.float64]
LEVELS = np.arange(0.5, 0.96, 0.05)  # p-values above are those of wrong pairs, nearly all
ENOUGH = 200  # p-values above a level, were all pairs wrong
LEAST = 10  # decoys by which a sample can be judged at all
FEWEST = 20  # decoys of one kind, from which samples are ranked among them alone


class Rate(NamedTuple):
    """A share of wrong pairs, with its 95 % interval."""

    value: float
    low: float
    high: float


def decoy_p_values(
    scores: Floats,
    judge: NDArray[np.int64],
    decoy: NDArray[np.bool_],
    *,
    source: NDArray[np.int64],
    suspect: NDArray[np.int64],
    exchanged: NDArray[np.int64],
    drawn: Floats,
) -> Floats:
    """Return the p-value [N] of each sample: its rank among the decoys of as many judges (see decoys.py).

    A sample belongs to a judge and is scored by the mean of all others, as are the decoys of that judge. One that is a
    decoy to the others is scored by its own judge, to whom the decoys of the others are decoys.

    Args:
        scores: [J, N], high where a judge believes the sample; NaN where it knows it not.
        source: [N], where the sample comes from; it is ranked among decoys from there, and has no p-value (NaN) if they
            are fewer than LEAST: another source may be harder, or easier, for all of its samples.
        suspect: [N], what might be wrong with the sample; it is ranked among the decoys that have that exchanged, or
            among all of its source if they are few.
        exchanged: [N], what is exchanged where the sample is a decoy.
        drawn: [N], in [0, 1): the place of each sample among those that it ties with, drawn at random.
    """
    p_values = np.full(len(judge), np.nan)
    for index, own in enumerate(scores):
        mine, others = judge == index, np.delete(scores, index, 0).mean(0)
        for some, score, null in ((mine & ~decoy, others, mine & decoy), (mine & decoy, own, ~mine & decoy)):
            for here, one in np.unique(np.stack([source, suspect])[:, some], axis=1).T:
                rows, among = some & (source == here) & (suspect == one), null & (source == here)
                like = among & (exchanged == one) & np.isfinite(score)
                p_values[rows] = _ranks(score[rows], score[like if like.sum() >= FEWEST else among], drawn[rows])
    return p_values


def _ranks(scores: Floats, null: Floats, drawn: Floats) -> Floats:
    """Return the p-value of each score [N] in a null [M]: its place from the top, drawn between its neighbours.

    So that of one more of the null is exactly uniform, however many scores are the same.
    """
    null = np.sort(null[np.isfinite(null)])
    below, upto = (np.searchsorted(null, scores, side) for side in ("left", "right"))
    p_values = (len(null) - upto + drawn * (upto - below + 1)) / (len(null) + 1)
    return np.where(np.isfinite(scores) & (len(null) >= LEAST), p_values, np.nan)


def rank_p_values(
    a: NDArray[np.float32], b: NDArray[np.float32], groups: NDArray[np.int64], *, strangers: int, seed: int
) -> Floats:
    """Return the p-value of each pair of unit vectors a, b [N, D]: its rank among the cosines with strangers.

    Strangers are partners of other groups, drawn once for all pairs; both directions are ranked together. A tie is
    half. NaN of a pair that has no stranger.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(a), min(strangers, len(a)), replace=False))
    others = torch.from_numpy(groups[drawn])
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    p_values = []
    for start in range(0, len(a), 1024):
        part = slice(start, start + 1024)
        own = (left[part] * right[part]).sum(1, keepdim=True)
        stranger = torch.from_numpy(groups[part])[:, None] != others
        above = torch.zeros(len(own), dtype=torch.float64)
        for scores in (left[part] @ right[drawn].T, right[part] @ left[drawn].T):
            above += ((scores > own) & stranger).sum(1) + ((scores == own) & stranger).sum(1) / 2
        p_values.append(torch.where(stranger.any(1), (above + 0.5) / (2 * stranger.sum(1) + 1), torch.nan))
    return torch.cat(p_values).numpy()


def near_p_values(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    groups: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    among: int = 100,
) -> Floats:
    """Return the p-value of each pair of these rows among the partners of its nearest neighbours in either modality.

    They tell a partner that only resembles the right one, too, as far as the model did not memorise it; a partner who
    might be anybody's ranks below these, and counts for more than one. NaN where all neighbours are of its own group.
    """
    own = (a[rows] * b[rows]).sum(1)
    above, compared = np.zeros(len(rows)), np.zeros(len(rows))
    for anchor, partner in ((a, b), (b, a)):
        for column in neighbours(anchor, anchor[rows], among + 1).T:  # itself among them
            stranger = groups[column] != groups[rows]
            scores = (anchor[rows] * partner[column]).sum(1)
            above += stranger * ((scores > own) + (scores == own) / 2)
            compared += stranger
    return np.where(compared > 0, (above + 0.5) / (compared + 1), np.nan)


def group_p_values(
    anchors: NDArray[np.float32], items: NDArray[np.float32], groups: NDArray[np.int64], *, strangers: int, seed: int
) -> Floats:
    """Return the p-value of each item [N, D] among strangers by its cosine with the anchors of the rest of its group.

    NaN where fewer than two others are in the group: one alone can't outvote it.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(items), min(strangers, len(items)), replace=False))
    _, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), anchors.shape[1]), np.float32)
    np.add.at(sums, which, anchors)
    mates = sums[which] - anchors
    p_values = np.full(len(items), np.nan)
    members = np.flatnonzero(counts[which] > 2)
    for rows in np.array_split(members, max(1, len(members) // 1024)):
        own = (mates[rows] * items[rows]).sum(1, keepdims=True)
        stranger = groups[rows][:, None] != groups[drawn]
        scores = mates[rows] @ items[drawn].T
        above = ((scores > own) & stranger).sum(1) + ((scores == own) & stranger).sum(1) / 2
        p_values[rows] = (above + 0.5) / (stranger.sum(1) + 1)
    return p_values


def wrong_rate(
    p_values: Floats, groups: NDArray[np.int64], *, decoys: int | None = None, resamples: int = 200, seed: int = 0
) -> Rate:
    """Return the share of uniform p-values: of those above a level, over what it leaves (Storey 2002, eq. 6).

    Low levels count right pairs that a weak model can't tell, high ones hardly any pairs at all: the level is the one
    of least mean squared error, the truth being taken for the lower quartile over levels (as Storey, Taylor and
    Siegmund 2004, section 6, take the minimum). The interval is a bootstrap over groups at this level, and over the
    decoys if the p-values are ranks among so many; where that has no width, because no p-value is as large, its end is
    the least of Wilson's upper bounds over levels.
    """
    levels = LEVELS[: max(1, int(((1 - LEVELS) * len(p_values) >= ENOUGH).sum()))]
    shares = np.array([(p_values > level).mean() for level in levels])
    rates = shares / (1 - levels)
    error = shares * (1 - shares) / len(p_values) / (1 - levels) ** 2 + (rates - np.quantile(rates, 0.25)) ** 2
    chosen = int(error.argmin())
    value, level = float(rates[chosen]), levels[chosen]
    _, which = np.unique(groups, return_inverse=True)
    size = int(which.max()) + 1
    above, counts = np.bincount(which, p_values > level, size), np.bincount(which, minlength=size)
    rng = np.random.default_rng(seed)
    shares = np.empty(resamples)
    for number in range(resamples):
        times = np.bincount(rng.integers(size, size=size), minlength=size)
        shares[number] = times @ above / (times @ counts)
    left = np.maximum(rng.binomial(decoys, 1 - level, resamples), 1) / decoys if decoys else 1 - level
    low, high = np.quantile(shares / left, (0.025, 0.975))
    if low == high:
        wilson = [wilson_interval((p_values > one).astype(np.float64), groups)[1] / (1 - one) for one in levels]
        high = min(wilson)
    return Rate(min(1.0, value), float(min(1, value, low)), float(min(1, max(value, high))))


def local_false_discovery_rate(p_values: Floats, rate: float) -> Floats:
    """Return the probability [N] that each pair is wrong: rate / f(p), at most 1 (Efron et al. 2001).

    f is the decreasing density of greatest likelihood (Grenander 1956), but at least the rate, since wrong pairs are
    uniform.
    """
    density = decreasing_density(p_values)
    return np.minimum(1, rate / np.maximum(density, rate)) if rate else np.zeros(len(p_values))


def decreasing_density(p_values: Floats) -> Floats:
    """Return Grenander's density at p_values [N] in (0, 1]: the slopes of the least concave majorant of the ECDF."""
    points, which, counts = np.unique(p_values, return_inverse=True, return_counts=True)
    widths = np.diff(points, prepend=0.0)
    masses: list[float] = []
    lengths: list[float] = []
    members: list[int] = []
    for mass, length in zip(counts / len(p_values), widths, strict=True):
        masses.append(float(mass))
        lengths.append(float(length))
        members.append(1)
        # Pool neighbours whose density rises (Ayer et al. 1955).
        while len(masses) > 1 and masses[-1] * lengths[-2] >= masses[-2] * lengths[-1]:
            masses[-2:], lengths[-2:] = [masses[-2] + masses[-1]], [lengths[-2] + lengths[-1]]
            members[-2:] = [members[-2] + members[-1]]
    slopes = np.array(masses) / np.array(lengths)
    return np.repeat(slopes, members)[which]
