from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.metrics import answer, auroc, summarise, wilson_interval


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
    found = summarise(answer(queries, gallery, query_groups, gallery_groups))
    assert found.n == len(ranks)
    assert found.unanswerable == 90 - len(ranks)
    for k in (1, 5, 10):
        assert found.recall[k] == pytest.approx(np.mean(np.array(ranks) <= k))
    assert found.median_rank == np.median(ranks)


def test_a_collapsed_model_scores_exactly_chance() -> None:
    rng = np.random.default_rng(1)
    same = np.tile(unit(rng, 1, 8), (60, 1))
    groups = rng.integers(0, 20, 60)
    found = summarise(answer(same, same, groups, groups))
    for k in (1, 5, 10):
        assert found.recall[k] == pytest.approx(found.chance[k])
    for name, one in found.measures.items():
        assert one.value == pytest.approx(one.chance), name


def test_a_perfect_model_scores_one() -> None:
    vectors = unit(np.random.default_rng(2), 40, 16)
    found = summarise(answer(vectors, vectors, np.arange(40), np.arange(40)))
    assert found.recall[1] == 1
    assert found.interval[1][0] == pytest.approx(40 / (40 + 1.959964**2))  # Wilson's bound where all are hits
    assert found.interval[1][1] == 1
    assert found.median_rank == 1
    assert found.chance[10] == pytest.approx(10 / 40)
    for one in found.measures.values():
        assert (one.value, one.low, one.high) == pytest.approx((1, 1, 1))
    assert found.measures["MRR"].chance == pytest.approx(sum(1 / rank for rank in range(1, 41)) / 40)
    assert found.measures["R-precision"].chance == pytest.approx(1 / 40)


@pytest.mark.parametrize(("size", "groups", "rate"), [(1, 30, 0.97), (1, 300, 0.997), (4, 60, 0.5), (8, 50, 0.9)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(size: int, groups: int, rate: float) -> None:
    rng = np.random.default_rng(3)
    which, covered = np.repeat(np.arange(groups), size), 0
    for _ in range(400):
        rates = np.full(groups, rate) if size == 1 else rng.beta(6 * rate, 6 * (1 - rate), size=groups)
        low, high = wilson_interval((rng.random(groups * size) < rates[which]).astype(float), which)
        covered += low <= rate <= high
    assert 0.91 <= covered / 400 <= 0.99


def test_samples_of_one_group_do_not_count_as_independent() -> None:
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 25), 20).astype(float)
    low, high = wilson_interval(values, np.repeat(np.arange(25), 20))
    alone = wilson_interval(values[::20], np.arange(25))
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.05)


@pytest.mark.parametrize("which", ["queries", "gallery"])
def test_vectors_that_are_not_finite_are_refused_rather_than_found(which: str) -> None:
    vectors = {name: unit(np.random.default_rng(5), 10, 4) for name in ("queries", "gallery")}
    vectors[which][3, 0] = np.nan
    with pytest.raises(InputError, match=f"some vectors of the {which} are not finite"):
        summarise(answer(vectors["queries"], vectors["gallery"], np.arange(10), np.arange(10)))


def test_intervals_are_over_groups_and_hold_the_mean() -> None:
    rng = np.random.default_rng(6)
    queries, gallery = unit(rng, 40, 6), unit(rng, 30, 6)
    groups, others = np.arange(40) % 10, np.arange(30) % 10
    found = summarise(answer(queries, gallery, groups, others))
    fivefold = summarise(answer(np.tile(queries, (5, 1)), gallery, np.tile(groups, 5), others))
    for name, one in found.measures.items():
        assert one.low < one.value < one.high
        other = fivefold.measures[name]  # the same queries again are no more evidence
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_a_gallery_without_any_group_of_the_queries_is_an_error() -> None:
    vectors = unit(np.random.default_rng(4), 3, 4)
    with pytest.raises(InputError, match="nothing to measure"):
        summarise(answer(vectors, vectors, np.arange(3), np.arange(3) + 10))


def test_auroc_agrees_with_a_double_loop() -> None:
    rng = np.random.default_rng(8)
    scores, positive = rng.integers(0, 12, 60).astype(float), rng.random(60) < 0.3
    wins = [float(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(wins))
    with pytest.raises(InputError, match="needs positives and negatives"):
        auroc(scores, np.ones(60, bool))
