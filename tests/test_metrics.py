from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.metrics import bootstrap_interval, chance_of_hit, first_hits, retrieval


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_recall_and_median_rank_agree_with_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng, 90, 8), unit(rng, 70, 8)
    query_groups, gallery_groups = rng.integers(0, 30, 90), rng.integers(0, 30, 70)
    ranks = []
    for query, group in zip(queries, query_groups, strict=True):
        order = np.argsort(-(gallery @ query))
        places = [place for place, item in enumerate(order, 1) if gallery_groups[item] == group]
        if places:
            ranks.append(places[0])
    found = retrieval(queries, gallery, query_groups, gallery_groups, resamples=10)
    assert found.n == len(ranks)
    assert found.unanswerable == 90 - len(ranks)
    for k in (1, 5, 10):
        assert found.recall[k] == pytest.approx(np.mean(np.array(ranks) <= k))
    assert found.median_rank == np.median(ranks)


def test_a_collapsed_model_scores_exactly_chance() -> None:
    rng = np.random.default_rng(1)
    same = np.tile(unit(rng, 1, 8), (60, 1))
    groups = rng.integers(0, 20, 60)
    found = retrieval(same, same, groups, groups, resamples=10)
    for k in (1, 5, 10):
        assert found.recall[k] == pytest.approx(found.chance[k])


def test_a_perfect_model_scores_one() -> None:
    vectors = unit(np.random.default_rng(2), 40, 16)
    found = retrieval(vectors, vectors, np.arange(40), np.arange(40), resamples=10)
    assert found.recall[1] == 1
    assert found.interval[1] == (1, 1)
    assert found.median_rank == 1
    assert found.chance[10] == pytest.approx(10 / 40)


def test_chance_is_hypergeometric() -> None:
    for hits, items, draws in ((1, 10, 3), (3, 10, 1), (4, 9, 5), (2, 5, 5), (2, 5, 0), (0, 5, 3), (5, 5, 1)):
        expected = 1 - math.comb(items - hits, draws) / math.comb(items, draws)
        assert chance_of_hit(*(np.array([one]) for one in (hits, items, draws)))[0] == pytest.approx(expected)


def test_ties_are_counted_apart() -> None:
    gallery = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    found = first_hits(gallery[:1], gallery, np.array([7]), np.array([7, 8, 8, 7]))
    assert [counts.tolist() for counts in found] == [[0], [1], [2], [2]]


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        group_rates = rng.beta(3, 3, size=60)
        groups = np.repeat(np.arange(60), 4)
        values = (rng.random(240) < group_rates[groups]).astype(float)
        low, high = bootstrap_interval(values, groups, resamples=300, seed=trial)
        covered += low <= 0.5 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_gallery_without_any_group_of_the_queries_is_an_error() -> None:
    vectors = unit(np.random.default_rng(4), 3, 4)
    with pytest.raises(InputError, match="nothing to measure"):
        retrieval(vectors, vectors, np.arange(3), np.arange(3) + 10)
