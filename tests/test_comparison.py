from __future__ import annotations

import numpy as np
import pytest

from multimodal_ssl.comparison import compare, compare_with_direct
from multimodal_ssl.embed import Embedded
from multimodal_ssl.evaluation import Evaluation, evaluate
from multimodal_ssl.metrics import summarise

from .toys import refusal, units


def pairs(noise: float, *, seed: int = 0, count: int = 60, names: str = "ab", prefix: str = "") -> Evaluation:
    """Return the evaluation of a run that blurs each pair by so much; two samples share a group."""
    keys, groups = [f"{prefix}{i}" for i in range(count)], [str(i // 2) for i in range(count)]
    first = units(count)
    second = first + noise * units(count, seed=seed + 1)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return evaluate({name: Embedded(one, keys, groups) for name, one in zip(names, (first, second), strict=True)})


def test_a_run_does_not_differ_from_itself() -> None:
    for one in compare(pairs(1), pairs(1)):
        assert (one.n, one.groups) == (60, 30)
        for found in one.differences.values():
            assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_better_run_is_told_with_an_interval_and_a_p_value() -> None:
    (one, other) = compare(pairs(0.3), pairs(3))
    assert (one.query, one.gallery, other.query) == ("a", "b", "b")
    assert one.differences.keys() == {"R@1", "R@5", "R@10", "MRR", "mAP", "nDCG@10", "R-precision"}
    for name in ("R@1", "MRR", "mAP"):
        found = one.differences[name]
        assert found.this > found.other
        assert found.difference == pytest.approx(found.this - found.other)
        assert 0 < found.low < found.difference < found.high
        assert found.p_value < 0.001
    (back, _) = compare(pairs(3), pairs(0.3))
    assert back.differences["MRR"].difference == pytest.approx(-one.differences["MRR"].difference)


def test_two_runs_that_are_as_good_seldom_differ() -> None:
    compared = [compare(pairs(1, seed=2 * i), pairs(1, seed=2 * i + 1))[0] for i in range(20)]
    p_values = [one.differences["MRR"].p_value for one in compared]
    assert sum(p < 0.05 for p in p_values) <= 3


def test_runs_on_other_items_or_with_other_names_are_refused() -> None:
    message = refusal(lambda: compare(pairs(1), pairs(1, count=50)))
    assert (
        "evaluated on different items of a: 10 of 60 are this run's alone (50 of group 25, 51 of group 25)" in message
    )
    assert "0 of 50 the other's (none)" in message
    assert "give both the same" in message
    assert "different items of a" in refusal(lambda: compare(pairs(1), pairs(1, prefix="x")))
    message = refusal(lambda: compare(pairs(1), pairs(1, names="cd")))
    assert "no direction in common: this one has a-b, b-a, the other c-d, d-c" in message


AB, BC = frozenset("ab"), frozenset("bc")


def test_what_emerged_is_told_as_a_share_of_the_direct_run() -> None:
    this, direct = pairs(1.5), pairs(0.5)
    found = compare_with_direct(this, direct, trained=[], directly=[AB])
    assert [(one.query, one.gallery, one.n, one.groups) for one in found] == [("a", "b", 60, 30), ("b", "a", 60, 30)]
    for one in found:
        ours, theirs = (summarise(some.answers[one.query, one.gallery]) for some in (this, direct))
        assert (one.this, one.direct) == (ours.recall[1], theirs.recall[1])
        assert one.of_direct
        assert one.of_direct.value == pytest.approx(ours.recall[1] / theirs.recall[1])
        assert one.of_direct.chance == pytest.approx(ours.chance[1] / theirs.recall[1])
        assert 0 < one.of_direct.low < one.of_direct.value < one.of_direct.high < 1
    (itself, _) = compare_with_direct(direct, direct, trained=[], directly=[AB])
    assert itself.of_direct
    assert (itself.of_direct.value, itself.of_direct.low, itself.of_direct.high) == (1, 1, 1), "pairs are drawn as such"


def test_the_interval_of_the_share_is_that_of_groups_drawn_one_by_one() -> None:
    this, direct = pairs(1.5), pairs(1, seed=3)
    (found, _) = compare_with_direct(this, direct, trained=[], directly=[AB])
    a, b = (one.answers["a", "b"].values["R@1"].reshape(30, 2).sum(1) for one in (this, direct))
    rng = np.random.default_rng(1)
    drawn = [rng.integers(30, size=30) for _ in range(20_000)]
    low, high = np.quantile([a[rows].sum() / b[rows].sum() for rows in drawn], (0.025, 0.975))
    assert found.of_direct
    assert (found.of_direct.low, found.of_direct.high) == pytest.approx((low, high), abs=0.04)


def test_of_a_direct_run_that_finds_nothing_there_is_no_share() -> None:
    keys = [str(i) for i in range(4)]
    corners, shifted = np.eye(4, dtype=np.float32), np.eye(4, k=1, dtype=np.float32)
    shifted[3, 0] = 1
    nothing = evaluate({"a": Embedded(corners, keys, keys), "b": Embedded(shifted, keys, keys)})
    found = evaluate({"a": Embedded(corners, keys, keys), "b": Embedded(corners, keys, keys)})
    (one, _) = compare_with_direct(found, nothing, trained=[], directly=[AB])
    assert (one.this, one.direct, one.of_direct) == (1, 0, None)
    (one, _) = compare_with_direct(nothing, found, trained=[], directly=[AB])
    assert one.of_direct
    assert (one.of_direct.value, one.of_direct.low, one.of_direct.high, one.of_direct.chance) == (0, 0, 0, 0.25)


def test_only_what_emerged_and_was_trained_directly_is_compared() -> None:
    this = pairs(1)
    message = refusal(lambda: compare_with_direct(this, pairs(1), trained=[AB], directly=[AB]))
    assert message == "nothing emerged that could be compared: every pair was trained (a-b, b-a)"
    message = refusal(lambda: compare_with_direct(this, pairs(1), trained=[BC], directly=[BC]))
    assert "has trained none of the pairs that emerged (a-b, b-a): it has trained none of what it evaluates" in message
    message = refusal(lambda: compare_with_direct(this, pairs(1, names="bc"), trained=[], directly=[BC]))
    assert "(a-b, b-a): it has trained b-c, c-b; give one whose sources hold such a pair" in message
    message = refusal(lambda: compare_with_direct(this, pairs(1, count=50), trained=[], directly=[AB]))
    assert "evaluated on different items of a" in message
