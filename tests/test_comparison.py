from __future__ import annotations

import numpy as np
import pytest

from multimodal_ssl.comparison import compare
from multimodal_ssl.embed import Embedded
from multimodal_ssl.evaluation import Evaluation, evaluate

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
