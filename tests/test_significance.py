from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl.significance import (
    FEWEST,
    LEAST,
    LEVELS,
    decoy_p_values,
    decreasing_density,
    group_p_values,
    local_false_discovery_rate,
    near_p_values,
    rank_p_values,
    wrong_rate,
)


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


def judged(
    count: int, rate: float, judges: int, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return scores [J, N] of samples of which some are wrong, the judge of each, who is a decoy, and who is wrong."""
    rng = np.random.default_rng(seed)
    judge, decoy, wrong = rng.integers(judges, size=count), rng.random(count) < 0.2, rng.random(count) < rate
    seen_wrong = wrong | (decoy & (judge != np.arange(judges)[:, None]))  # [J, N]
    scores = rng.normal(size=(judges, count)) + rng.normal(size=count) + 4 * ~seen_wrong
    return scores, judge, decoy, wrong


def by_one_kind(scores: NDArray[np.float64], judge: NDArray[np.int64], decoy: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the p-values where all samples are alike."""
    one, drawn = np.zeros(len(judge), np.int64), np.random.default_rng(2).random(len(judge))
    return decoy_p_values(scores, judge, decoy, source=one, suspect=one, exchanged=one, drawn=drawn)


@pytest.mark.parametrize("judges", [2, 3, 5])
def test_p_values_among_decoys_are_places_in_the_null_of_as_many_judges(judges: int) -> None:
    scores, judge, decoy, _ = judged(600, 0.3, judges)
    drawn = np.random.default_rng(2).random(600)
    scores[:, 7] = scores[0, 9] = np.nan
    suspect, exchanged = np.random.default_rng(3).integers(2, size=(2, 600))
    suspect[:12] = 2  # so few that they are ranked among all of their source
    source = np.random.default_rng(4).integers(2, size=600)
    scores[:, source == 1] -= 3
    kinds = {"source": source, "suspect": suspect, "exchanged": exchanged}
    p_values = decoy_p_values(scores, judge, decoy, **kinds, drawn=drawn)
    for i in range(600):
        by = [judge[i]] if decoy[i] else [k for k in range(judges) if k != judge[i]]
        among = [j for j in np.flatnonzero(source == source[i]) if decoy[j] and (judge[j] != judge[i]) == decoy[i]]
        like = [j for j in among if exchanged[j] == suspect[i]]
        own = scores[by, i].mean()
        null = [scores[by, j].mean() for j in (like if len(like) >= FEWEST else among)]
        null = [one for one in null if np.isfinite(one)]
        if not np.isfinite(own) or len(null) < LEAST:
            assert np.isnan(p_values[i])
            continue
        above = sum(one > own for one in null)
        assert p_values[i] == pytest.approx((above + drawn[i]) / (len(null) + 1))
    assert np.isnan(p_values[7])


@pytest.mark.parametrize("judges", [2, 3])
def test_p_values_among_decoys_are_uniform_where_samples_are_wrong_and_small_where_right(judges: int) -> None:
    scores, judge, decoy, wrong = judged(20_000, 0.3, judges, seed=1)
    p_values = by_one_kind(scores, judge, decoy)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    for some in (wrong & decoy, wrong & ~decoy):
        np.testing.assert_allclose(np.quantile(p_values[some], quantiles), quantiles, atol=0.04)
    assert np.median(p_values[~wrong]) < 0.01
    rate = wrong_rate(p_values, np.arange(20_000), decoys=int(decoy.sum()))
    assert rate.low <= 0.3 <= rate.high


def test_scores_that_are_all_equal_have_uniform_p_values() -> None:
    _, judge, decoy, _ = judged(5000, 0, 2)
    p_values = by_one_kind(np.zeros((2, 5000)), judge, decoy)
    np.testing.assert_allclose(np.quantile(p_values, [0.05, 0.5, 0.95]), [0.05, 0.5, 0.95], atol=0.03)


def test_few_decoys_widen_the_interval_of_the_rate() -> None:
    p_values = np.random.default_rng(0).random(4000)
    p_values[:2800] **= 8
    many, few = (wrong_rate(p_values, np.arange(4000), decoys=decoys) for decoys in (100_000, 50))
    exact = wrong_rate(p_values, np.arange(4000))
    assert many.value == few.value == exact.value
    assert few.high - few.low > 2 * (many.high - many.low)
    assert many.high - many.low == pytest.approx(exact.high - exact.low, rel=0.3)


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
    assert np.isnan(rank_p_values(a, b, np.zeros(10, np.int64), strangers=10, seed=0)).all()


def test_fewer_than_ten_decoys_judge_nobody() -> None:
    scores, judge, _, _ = judged(400, 0.3, 2)
    decoy = np.zeros(400, bool)
    decoy[np.flatnonzero(judge == 0)[:9]] = decoy[np.flatnonzero(judge == 1)[:10]] = True
    p_values = by_one_kind(scores, judge, decoy)
    assert np.isnan(p_values[(judge == 0) & ~decoy]).all()
    assert np.isfinite(p_values[(judge == 1) & ~decoy]).all()


def test_among_neighbours_of_the_own_group_alone_there_is_no_p_value() -> None:
    a, b, _ = pairs(60, 0.3)
    assert np.isnan(near_p_values(a, b, np.repeat([0, 1], [59, 1]), np.arange(59), among=1)).mean() > 0.9
    assert np.isnan(near_p_values(a, b, np.zeros(60), np.arange(60))).all()


def test_p_values_among_neighbours_are_ranks_by_a_double_loop() -> None:
    a, b, _ = pairs(60, 0.3)
    groups, rows = np.arange(60) // 2, np.array([3, 17, 40])
    p_values = near_p_values(a, b, groups, rows, among=12)
    for i, found in zip(rows, p_values, strict=True):
        above = compared = 0
        for anchor, partner in ((a, b), (b, a)):
            near = np.argsort(-(anchor @ anchor[i]), kind="stable")[:13]
            strangers = [j for j in near if groups[j] != groups[i]]
            above += sum(int(anchor[i] @ partner[j] > a[i] @ b[i]) for j in strangers)
            compared += len(strangers)
        assert found == pytest.approx((above + 0.5) / (compared + 1))


def test_p_values_in_a_group_are_ranks_by_the_cosine_with_the_anchors_of_the_others() -> None:
    anchors, items, _ = pairs(90, 0.3)
    groups = np.random.default_rng(3).integers(0, 40, size=90)  # of one to six
    p_values = group_p_values(anchors, items, groups, strangers=90, seed=0)
    for i in range(90):
        mates = [j for j in range(90) if groups[j] == groups[i] and j != i]
        strangers = [j for j in range(90) if groups[j] != groups[i]]
        if len(mates) < 2:
            assert np.isnan(p_values[i]), "one alone can't outvote it"
            continue
        centre = anchors[mates].astype(np.float64).sum(0)
        above = sum(int(centre @ items[j] > centre @ items[i]) for j in strangers)
        assert p_values[i] == pytest.approx((above + 0.5) / (len(strangers) + 1))


def test_p_values_in_groups_are_the_same_in_parts_as_at_once() -> None:
    anchors, items, _ = pairs(3000, 0.3)
    groups = np.random.default_rng(4).permutation(np.arange(3000) // 3)
    p_values = group_p_values(anchors, items, groups, strangers=3000, seed=0)
    same = groups[:, None] == groups
    scores = (same @ anchors.astype(np.float64) - anchors) @ items.T
    above = ((scores > np.diag(scores)[:, None]) & ~same).sum(1)
    np.testing.assert_allclose(p_values, (above + 0.5) / 2998, atol=3 / 2998)  # the sums are in another precision


def test_a_wrong_item_among_alike_ones_is_a_stranger_to_its_group_and_they_are_not() -> None:
    rng = np.random.default_rng(5)
    latent = np.repeat(rng.normal(size=(1000, 16)), 4, 0)
    views = [latent + 0.8 * rng.normal(size=latent.shape) for _ in range(2)]
    anchors, items = ((one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in views)
    wrong = np.arange(4000) % 4 == 0
    items[wrong] = np.roll(items[wrong], 1, 0)
    groups = np.arange(4000) // 4
    p_values = group_p_values(anchors, items, groups, strangers=1000, seed=0)
    np.testing.assert_allclose(np.quantile(p_values[wrong], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.06)
    assert np.median(p_values[~wrong]) < 0.01


def test_a_tie_in_a_group_is_half_and_groups_of_two_are_not_judged() -> None:
    same = np.full((9, 4), 0.5, np.float32)
    np.testing.assert_allclose(group_p_values(same, same, np.arange(9) // 3, strangers=9, seed=0), 0.5)
    assert np.isnan(group_p_values(same, same, np.arange(9) // 2, strangers=9, seed=0)).all()


@pytest.mark.parametrize("count", [50, 200, 1000])
def test_where_no_p_value_is_large_there_may_be_as_many_wrong_pairs_as_chance_could_hide(count: int) -> None:
    found = wrong_rate(np.full(count, 0.001), np.arange(count))
    assert found.value == 0
    assert found.low == pytest.approx(0, abs=1e-9)
    exact = 1 - 0.025 ** (1 / count)  # Clopper and Pearson 1934
    assert found.high == pytest.approx(exact / (1 - LEVELS[0]), rel=0.1), "so many of the wrong ones are above"
    # Were so many wrong, their uniform p-values would hardly ever all be small; were half as many, they would at times.
    draws = np.random.default_rng(count).random((4000, count, 2)).astype(np.float32)
    hidden, often = (
        ((draws[..., 0] >= one) | (draws[..., 1] <= LEVELS[0])).all(1).mean() for one in (found.high, found.high / 2)
    )
    assert 0.01 < hidden < 0.035
    assert often > 0.1


def test_the_interval_is_wider_for_fewer_pairs_of_which_none_is_wrong() -> None:
    widths = []
    for count in (100, 400, 1600):
        a, b, _ = pairs(count, 0, blur=0.3)
        found = wrong_rate(rank_p_values(a, b, np.arange(count), strangers=1000, seed=1), np.arange(count))
        assert found.low == pytest.approx(0, abs=1e-9)
        assert found.value == 0
        widths.append(found.high)
    assert 0.1 > widths[0] > 3.5 * widths[1] > 3.5**2 * widths[2] > 0


def test_what_is_hidden_is_counted_in_groups() -> None:
    together = wrong_rate(np.full(500, 0.001), np.repeat(np.arange(10), 50))
    alone = wrong_rate(np.full(10, 0.001), np.arange(10))
    assert together == pytest.approx(alone)


def test_an_interval_where_all_p_values_are_large_ends_at_one() -> None:
    value, low, high = wrong_rate(np.full(40, 0.95), np.arange(40))
    assert (value, high) == (1, 1)
    assert 0.5 < low <= 1


def test_the_interval_holds_a_small_rate_nearly_always() -> None:
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p_values = np.where(rng.random(400) < 0.02, rng.random(400), rng.beta(0.2, 60, 400))
        found = wrong_rate(p_values, np.arange(400), seed=seed)
        held += found.low <= 0.02 <= found.high
    assert held >= 88


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_holds_the_value_that_it_is_of(seed: int) -> None:
    a, b, _ = pairs(150, 0, seed=seed)
    found = wrong_rate(rank_p_values(a, b, np.arange(150), strangers=1000, seed=1), np.arange(150))
    assert found.low <= found.value + 1e-9 <= found.high


def test_right_pairs_that_a_weak_model_can_not_tell_are_not_all_taken_for_wrong() -> None:
    """Their p-values are not small, but fewer and fewer are large; those of wrong ones are as many everywhere."""
    rng = np.random.default_rng(3)
    p_values = np.concatenate([rng.random(2000), rng.beta(0.5, 3, 18_000)])
    found = wrong_rate(p_values, np.arange(20_000))
    assert found.value == pytest.approx(0.1, abs=0.03)
    assert (p_values > 0.5).mean() / 0.5 > 0.18, "what the lowest level says"
