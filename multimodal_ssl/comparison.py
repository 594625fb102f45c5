"""Two runs on the same queries: which of them answers better, might it be chance, and how far came what emerged?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.evaluation import Evaluation
from multimodal_ssl.metrics import Estimate
from multimodal_ssl.resampling import flip_signs, percentile_interval, resampled_means


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of this run and of the other one.

    Attributes:
        difference: of this run from the other, with its 95 % interval from `low` to `high`, over groups.
        p_value: how often a difference as large is seen if it is chance which run gave which answers.
    """

    this: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two runs differ in one direction: measure -> its difference over n queries of so many groups."""

    query: str
    gallery: str
    n: int
    groups: int
    differences: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a direction that emerged came, against a run that was trained on its pair: R@1 of n queries of both.

    Attributes:
        of_direct: R@1 of this run / R@1 of the direct one; None if that one finds nothing.
    """

    query: str
    gallery: str
    n: int
    groups: int
    this: float
    direct: float
    of_direct: Estimate | None


def compare(this: Evaluation, other: Evaluation) -> list[Comparison]:
    """Compare two runs in every direction that both have; raise InputError unless they were given the same items."""
    directions = [names for names in this.answers if names in other.answers]
    if not directions:
        raise InputError(
            f"the runs have no direction in common: this one has {_told(this.answers)}, the other "
            f"{_told(other.answers)}; compare runs whose items have the same names"
        )
    for name in dict.fromkeys(name for names in directions for name in names):
        _check_same(name, this.items[name], other.items[name])
    return [_compare(this, other, *names) for names in directions]


def compare_with_direct(
    this: Evaluation, direct: Evaluation, *, trained: Collection[frozenset[str]], directly: Collection[frozenset[str]]
) -> list[Reached]:
    """Tell how far the directions of pairs that this run has not `trained` came, where the other one did `directly`.

    Raises InputError if there is none, or unless both runs were given the same items.
    """
    emerged = [names for names in this.answers if frozenset(names) not in trained]
    if not emerged:
        raise InputError(f"nothing emerged that could be compared: every pair was trained ({_told(this.answers)})")
    both = [names for names in emerged if frozenset(names) in directly and names in direct.answers]
    if not both:
        told = _told([names for names in direct.answers if frozenset(names) in directly]) or "none of what it evaluates"
        raise InputError(
            f"the direct run has trained none of the pairs that emerged ({_told(emerged)}): it has trained {told}; "
            "give one whose sources hold such a pair"
        )
    for name in dict.fromkeys(name for names in both for name in names):
        _check_same(name, this.items[name], direct.items[name])
    return [_reached(this, direct, *names) for names in both]


def _reached(this: Evaluation, direct: Evaluation, query: str, gallery: str) -> Reached:
    ours, theirs = this.answers[query, gallery], direct.answers[query, gallery]
    a, b = ours.values["R@1"], theirs.values["R@1"]
    found, wanted = float(a.mean()), float(b.mean())
    share = None
    if wanted:
        drawn = resampled_means(np.stack([a, b], 1), ours.groups)
        drawn = drawn[drawn[:, 1] > 0]  # of nothing there is no share
        low, high = map(float, percentile_interval(drawn[:, 0] / drawn[:, 1]))
        share = Estimate(found / wanted, low, high, float(ours.chance["R@1"].mean()) / wanted)
    return Reached(query, gallery, len(a), len(np.unique(ours.groups)), found, wanted, share)


def _compare(this: Evaluation, other: Evaluation, query: str, gallery: str) -> Comparison:
    ours, theirs = this.answers[query, gallery], other.answers[query, gallery]
    measures = [name for name in ours.values if name != "rank"]
    a, b = (np.stack([one.values[name] for name in measures], 1) for one in (ours, theirs))
    low, high = percentile_interval(resampled_means(a - b, ours.groups))
    p_values = flip_signs(a - b, ours.groups)
    rows = zip(a.mean(0), b.mean(0), (a - b).mean(0), low, high, p_values, strict=True)
    return Comparison(
        query=query,
        gallery=gallery,
        n=len(ours.groups),
        groups=len(np.unique(ours.groups)),
        differences={name: Difference(*map(float, row)) for name, row in zip(measures, rows, strict=True)},
    )


def _check_same(name: str, this: Embedded, other: Embedded) -> None:
    """Raise InputError unless both runs have the same items in the same groups, in one order."""
    ours, theirs = (list(zip(one.keys, one.groups, strict=True)) for one in (this, other))
    if ours == theirs:
        return
    only = [sorted(set(one) - set(another)) for one, another in ((ours, theirs), (theirs, ours))]
    raise InputError(
        f"the runs were evaluated on different items of {name}: {len(only[0]):,} of {len(ours):,} are this run's alone "
        f"({_some(only[0])}), {len(only[1]):,} of {len(theirs):,} the other's ({_some(only[1])}); give both the same, "
        "e.g. evaluation.0.path=test.csv, which overrides the configs of both"
    )


def _some(items: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key} of group {group}" for key, group in items[:2]) or "none"


def _told(directions: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{query}-{gallery}" for query, gallery in directions)
