from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl import InputError
from multimodal_ssl.significance import decreasing_density, local_false_discovery_rate, rank_p_values, wrong_rate


def pairs(count: int, rate: float, *, blur: float = 0.8, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
    """Return unit vectors a, b of noisy pairs, the share `rate` of which is shuffled, and which those are."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, 16))
    views = [latent + blur * rng.normal(size=latent.shape) for _ in range(2)]
    a, b = ((view / np.linalg.norm(view, axis=1, keepdims=True)).astype(np.float32) for view in views)
    wrong = rng.permutation(count)[: round(rate * count)]
    b[wrong] = b[np.roll(wrong, 1)]
    return a, b, np.isin(np.arange(count), wrong)


def test_p_values_are_ranks_among_strangers_of_both_directions() -> None:
    a, b, _ = pairs(80, 0.3)
    groups = np.arange(80) // 2
    p_values = rank_p_values(a, b, groups, strangers=80, seed=0)
    for i in range(80):
        strangers = [j for j in range(80) if groups[j] != groups[i]]
        above = sum(int(a[i] @ b[j] > a[i] @ b[i]) + int(b[i] @ a[j] > a[i] @ b[i]) for j in strangers)
        assert p_values[i] == pytest.approx((above + 0.5) / (2 * len(strangers) + 1))


def test_p_values_of_wrong_pairs_are_uniform_and_those_of_right_ones_small() -> None:
    a, b, wrong = pairs(6000, 0.5)
    p_values = rank_p_values(a, b, np.arange(6000), strangers=1000, seed=1)
    np.testing.assert_allclose(
        np.quantile(p_values[wrong], [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.03
    )
    assert np.median(p_values[~wrong]) < 0.01


def test_a_tie_is_half() -> None:
    same = np.ones((10, 4), np.float32) / 2
    np.testing.assert_allclose(rank_p_values(same, same, np.arange(10), strangers=10, seed=0), 0.5)


@pytest.mark.parametrize("rate", [0, 0.1, 0.4, 0.8])
def test_the_rate_is_estimated_and_its_interval_holds_it(rate: float) -> None:
    a, b, _ = pairs(6000, rate)
    p_values = rank_p_values(a, b, np.arange(6000), strangers=1000, seed=1)
    found = wrong_rate(p_values, np.arange(6000))
    assert found.value == pytest.approx(rate, abs=0.03)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.06


def test_the_interval_is_wider_where_groups_are_wrong_as_wholes() -> None:
    p_values = np.repeat(np.random.default_rng(0).random(100), 50)
    alone, together = (wrong_rate(p_values, groups) for groups in (np.arange(5000), np.repeat(np.arange(100), 50)))
    assert together.high - together.low > 3 * (alone.high - alone.low)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_local_false_discovery_rate_is_the_share_of_wrong_pairs_at_its_value(rate: float) -> None:
    a, b, wrong = pairs(12_000, rate, blur=1.0)
    p_values = rank_p_values(a, b, np.arange(12_000), strangers=1000, seed=1)
    probability = local_false_discovery_rate(p_values, wrong_rate(p_values, np.arange(12_000)).value)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert probability.mean() == pytest.approx(rate, abs=0.03)
    edges = np.quantile(probability, np.linspace(0, 1, 9))
    bins = np.digitize(probability, np.unique(edges)[1:-1])
    error = sum(
        abs(probability[bins == k].mean() - wrong[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)
    )
    assert error < 0.03


def test_the_density_is_the_slope_of_the_least_concave_majorant() -> None:
    p_values = np.array([0.1, 0.1, 0.2, 0.5, 0.55, 0.6, 0.9, 1.0])
    points, counts = np.unique(p_values, return_counts=True)
    xs, ys = np.r_[0, points], np.r_[0, np.cumsum(counts) / 8]
    for p, density in zip(p_values, decreasing_density(p_values), strict=True):
        # The left derivative of the majorant at p: the smallest over starts of the largest slope to an end.
        slopes = [
            max((ys[k] - ys[j]) / (xs[k] - xs[j]) for k in range(len(xs)) if xs[k] >= p)
            for j in range(len(xs))
            if xs[j] < p
        ]
        assert density == pytest.approx(min(slopes))


def test_no_wrong_pair_at_all_is_no_division_by_zero() -> None:
    assert (local_false_discovery_rate(np.array([0.001, 0.2]), 0.0) == 0).all()


def test_pairs_of_one_group_can_not_be_compared() -> None:
    a, b, _ = pairs(10, 0)
    with pytest.raises(InputError, match="all pairs are of one group"):
        rank_p_values(a, b, np.zeros(10, np.int64), strangers=10, seed=0)
