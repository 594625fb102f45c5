from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multimodal_ssl import ranking
from multimodal_ssl.metrics import answer
from multimodal_ssl.ranking import chance_of_hit, everything_tied, expected, find_ties

MEASURES = ("R@1", "R@5", "R@10", "MRR", "mAP", "nDCG@10", "R-precision")


def defined(relevant: tuple[bool, ...]) -> dict[str, float]:
    """Measure one order of items, by the textbook."""
    places = [place for place, hit in enumerate(relevant, 1) if hit]
    total = len(places)
    gain = sum(1 / math.log2(1 + place) for place in places if place <= 10)
    best = sum(1 / math.log2(1 + place) for place in range(1, min(total, 10) + 1))
    return {
        **{f"R@{k}": float(places[0] <= k) for k in (1, 5, 10)},
        "MRR": 1 / places[0],
        "mAP": sum(hits / place for hits, place in enumerate(places, 1)) / total,
        "nDCG@10": gain / best,
        "R-precision": sum(place <= total for place in places) / total,
        "rank": float(places[0]),
    }


def over_all_orders(scores: list[int], relevant: list[bool]) -> dict[str, float]:
    """Return the mean of each measure over all orders that the scores allow."""
    orders = [
        defined(tuple(relevant[item] for item in order))
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return {name: sum(one[name] for one in orders) / len(orders) for name in orders[0]}


def measured(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Measure queries with these scores [Q, M], all of one group, to which some items belong [M]."""
    queries, gallery = np.eye(len(scores), dtype=np.float32), np.ascontiguousarray(scores.T)
    group = np.zeros(len(scores), np.int64)
    return answer(queries, gallery, group, np.where(relevant, 0, 1)).values


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[int], list[bool]]:
    size = draw(st.integers(1, 6))
    relevant = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), relevant


@settings(max_examples=60, deadline=None)
@given(rankings())
def test_every_measure_is_its_mean_over_all_orders_of_ties(ranking: tuple[list[int], list[bool]]) -> None:
    scores, relevant = ranking
    found = measured(np.array([scores], np.float32), np.array(relevant))
    for name, value in over_all_orders(scores, relevant).items():
        assert found[name][0] == pytest.approx(value), name


def test_without_ties_every_measure_is_the_textbook_s() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.permuted(np.tile(np.arange(40, dtype=np.float32), (25, 1)), axis=1), rng.random(40) < 0.3
    found = measured(scores, relevant)
    for row, one in enumerate(scores):
        for name, value in defined(tuple(relevant[np.argsort(-one)].tolist())).items():
            assert found[name][row] == pytest.approx(value), name


def test_a_known_ranking_has_the_known_values() -> None:
    scores = np.array([[6, 5, 4, 3, 2, 1]], np.float32)
    found = measured(scores, np.array([True, False, True, False, False, True]))
    assert found["mAP"][0] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert found["MRR"][0] == 1
    assert found["R-precision"][0] == pytest.approx(2 / 3)
    gain, best = 1 + 1 / math.log2(4) + 1 / math.log2(7), 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@10"][0] == pytest.approx(gain / best)


@pytest.mark.parametrize(("hits", "items"), [(1, 7), (2, 7), (4, 6), (5, 5)])
def test_chance_is_the_mean_over_all_orders_of_all_items(hits: int, items: int) -> None:
    found = expected(everything_tied(np.array([hits]), items), ks=(1, 5, 10))
    for name, value in over_all_orders([0] * items, [item < hits for item in range(items)]).items():
        assert found[name][0] == pytest.approx(value), name


def test_chance_of_many_items_is_what_random_orders_give() -> None:
    rng = np.random.default_rng(1)
    relevant = np.arange(300) < 40
    found = expected(everything_tied(np.array([40]), 300), ks=(1, 5, 10))
    drawn = [defined(tuple(rng.permutation(relevant).tolist())) for _ in range(2000)]
    for name in MEASURES:
        values = np.array([one[name] for one in drawn])
        assert abs(values.mean() - found[name][0]) < 4 * values.std() / math.sqrt(len(values)), name


@pytest.mark.parametrize(("queries", "items", "dim"), [(50, 77, 64), (1, 77, 33), (3, 313, 512), (60, 5, 768)])
def test_a_collapsed_model_scores_chance_in_every_measure_and_for_every_query(
    queries: int, items: int, dim: int
) -> None:
    rng = np.random.default_rng(2)
    row = rng.normal(size=(1, dim)).astype(np.float32)
    groups = rng.integers(0, 5, items)
    found = answer(np.tile(row, (queries, 1)), np.tile(row, (items, 1)), rng.choice(groups, queries), groups)
    for name, values in found.values.items():
        np.testing.assert_allclose(values, found.chance[name], err_msg=name)


def test_chance_of_a_hit_is_hypergeometric() -> None:
    for hits, items, draws in ((1, 10, 3), (3, 10, 1), (4, 9, 5), (2, 5, 5), (2, 5, 0), (0, 5, 3), (5, 5, 1)):
        expected = 1 - math.comb(items - hits, draws) / math.comb(items, draws)
        assert chance_of_hit(*(np.array([one]) for one in (hits, items, draws)))[0] == pytest.approx(expected)


def test_ties_are_counted_apart() -> None:
    gallery = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [2, 0]], np.float32)
    (found,) = find_ties(gallery[:1], gallery, np.array([7]), np.array([7, 8, 8, 7, 8]))
    assert [counts.tolist() for counts in found] == [[0, 0], [1, 4], [0, 1], [3, 1], [1, 1]]


def whole_numbers(rng: np.random.Generator) -> list[NDArray[np.float32] | NDArray[np.int64]]:
    """Return queries and gallery with their groups, of which each score is exact and many tie."""
    vectors = [rng.integers(-2, 3, (size, 4)).astype(np.float32) for size in (50, 30)]
    return [*vectors, rng.integers(0, 9, 50), rng.integers(0, 9, 30)]


def test_queries_are_scored_in_parts_when_the_gallery_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = whole_numbers(np.random.default_rng(3))
    whole = answer(*arguments)
    monkeypatch.setattr(ranking, "CHUNK", 100)
    assert len(list(find_ties(*arguments))) == 17
    for name, values in answer(*arguments).values.items():
        np.testing.assert_array_equal(values, whole.values[name])


def test_sorting_the_row_and_counting_it_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = whole_numbers(np.random.default_rng(4))
    (counted,) = find_ties(*arguments)
    monkeypatch.setattr(ranking, "FEW", 0)
    (by_sorting,) = find_ties(*arguments)
    for one, other in zip(counted, by_sorting, strict=True):
        np.testing.assert_array_equal(one, other)


def test_values_stand_with_the_queries_they_are_of() -> None:
    gallery = np.eye(4, dtype=np.float32)
    found = answer(gallery[[2, 0, 3, 1]], gallery, np.array([2, 9, 0, 1]), np.array([0, 1, 2, 3]))
    assert found.rows.tolist() == [0, 2, 3]
    assert found.groups.tolist() == [2, 0, 1]
    assert found.values["R@1"].tolist() == [1, 0, 1]
    assert found.unanswerable == 1
