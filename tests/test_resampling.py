from __future__ import annotations

import itertools

import numpy as np
import pytest

from multimodal_ssl.resampling import flip_signs, group_sums, percentile_interval, resampled_means, times_drawn


def test_each_resample_draws_as_many_groups_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_ssl.resampling.BLOCK", 100)
    parts = list(times_drawn(30, resamples=50, seed=1))
    assert [len(part) for part in parts] == [3] * 16 + [2]
    times = np.concatenate(parts)
    assert (times.sum(1) == 30).all()
    assert times.mean(0) == pytest.approx(1, abs=0.6)
    assert times.var() == pytest.approx(1, abs=0.15)


def test_the_mean_of_a_resample_is_that_of_the_items_of_the_drawn_groups() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random((20, 2)), rng.integers(5, 12, 20)
    names = np.unique(groups)
    (times,) = times_drawn(len(names), resamples=9, seed=4)
    for means, drawn in zip(resampled_means(values, groups, resamples=9, seed=4), times, strict=True):
        rows = np.concatenate([np.repeat(np.flatnonzero(groups == names[i]), often) for i, often in enumerate(drawn)])
        np.testing.assert_allclose(means, values[rows].mean(0))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(1), 0
    which = np.repeat(np.arange(50), 4)
    for seed in range(300):
        values = np.repeat(rng.beta(2, 3, 50), 4) + rng.normal(0, 0.1, 200)
        low, high = percentile_interval(resampled_means(values[:, None], which, resamples=300, seed=seed))
        covered += int(low[0] <= 0.4 <= high[0])
    assert 0.91 <= covered / 300 <= 0.98


def test_the_p_value_is_uniform_where_it_is_chance_who_is_better() -> None:
    rng, which = np.random.default_rng(2), np.repeat(np.arange(20), 3)
    p_values = []
    for seed in range(400):
        differences = rng.standard_t(3, 20)[which] + rng.normal(size=60)
        p_values.append(flip_signs(differences[:, None], which, flips=199, seed=seed)[0])
    shares = [np.mean(np.array(p_values) <= level) for level in (0.05, 0.25, 0.5, 0.75)]
    assert shares == pytest.approx([0.05, 0.25, 0.5, 0.75], abs=0.06)


def test_the_p_value_is_the_share_of_all_flips_that_reach_as_far() -> None:
    rng = np.random.default_rng(3)
    differences, groups = rng.normal(0.4, 1, (16, 2)), np.repeat(np.arange(8), 2)
    sums = group_sums(differences, groups)
    flipped = np.array([np.array(signs) @ sums for signs in itertools.product((-1, 1), repeat=8)])
    exact = (np.abs(flipped) >= np.abs(sums.sum(0)) - 1e-12).mean(0)
    np.testing.assert_allclose(flip_signs(differences, groups, flips=20_000), exact, atol=0.01)


def test_no_difference_at_all_is_no_evidence_and_a_steady_one_much() -> None:
    groups = np.arange(40)
    assert flip_signs(np.zeros((40, 1)), groups)[0] == 1
    assert flip_signs(np.ones((40, 1)), groups, flips=999)[0] == pytest.approx(1 / 1000)
