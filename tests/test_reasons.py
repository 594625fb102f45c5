from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multimodal_ssl import reasons
from multimodal_ssl.data import Traits

from .toys import units

quick = settings(max_examples=60, deadline=None, derandomize=True)


def items(digests: Sequence[int], tally: Mapping[str, int] | None = None) -> list[Traits]:
    return [Traits(one, tally or {}) for one in digests]


def keys(count: int) -> list[str]:
    return [f"k{i}" for i in range(count)]


def turned(rows: NDArray[np.float32], cosine: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Return unit vectors that have this cosine with those given; one for all, or [N, 1]."""
    aside = units(len(rows), rows.shape[1], seed=77)
    aside -= (aside * rows).sum(1, keepdims=True) * rows
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return (cosine * rows + np.sqrt(1 - cosine**2) * aside).astype(np.float32)


@quick
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_a_duplicate_names_the_first_pair_whose_items_are_both_the_same(pairs: list[tuple[int, int]]) -> None:
    found = reasons.repeated(keys(len(pairs)), [items([pair[side] for pair in pairs]) for side in (0, 1)])
    for i, pair in enumerate(pairs):
        first = next(j for j in range(len(pairs)) if pairs[j] == pair)
        assert found[i] == ([] if first == i else [f"duplicate of k{first}"])


def test_items_that_change_places_are_no_duplicate() -> None:
    assert reasons.repeated(keys(2), [items([1, 2]), items([2, 1])]) == [[], []]


@pytest.mark.parametrize(("cosines", "is_near"), [((0.995, 0.995), True), ((0.995, 0.98), False), ((0.98, 1.0), False)])
def test_pairs_are_near_duplicates_if_both_their_items_are_alike(cosines: tuple[float, float], is_near: bool) -> None:
    a, b = units(40, seed=1), units(40, seed=2)
    a, b = (np.concatenate([one, turned(one[:5], cosine)]) for one, cosine in zip((a, b), cosines, strict=True))
    found = reasons.nearly_repeated(keys(45), [a, b], np.arange(45))
    for i in range(5):
        assert found[i] == ([f"near duplicate of k{40 + i}"] if is_near else [])
        assert found[40 + i] == ([f"near duplicate of k{i}"] if is_near else [])
    assert not any(found[5:40])


def test_near_duplicates_are_all_that_a_double_loop_finds_and_the_nearest_is_named() -> None:
    rng = np.random.default_rng(3)
    which = rng.integers(0, 30, size=90)  # about three of each
    cosines = rng.uniform(0.985, 1, size=(90, 1))
    a, b = (turned(units(30, seed=seed)[which], cosines) for seed in (1, 2))
    groups = rng.integers(0, 60, size=90)
    found = reasons.nearly_repeated(keys(90), [a, b], groups)
    named = 0
    for i in range(90):
        others = [j for j in range(90) if groups[j] != groups[i] and min(a[i] @ a[j], b[i] @ b[j]) >= reasons.NEAR]
        if not others:
            assert found[i] == []
            continue
        nearest = max(others, key=lambda j: float(a[i] @ a[j] + b[i] @ b[j]))
        assert found[i] == [f"near duplicate of k{nearest}"]
        named += 1
    assert 10 < named < 90


def test_the_same_pair_in_one_group_is_no_near_duplicate() -> None:
    a, b = (np.repeat(units(5, seed=seed), 2, 0) for seed in (1, 2))
    assert not any(reasons.nearly_repeated(keys(10), [a, b], np.arange(10) // 2))
    assert all(reasons.nearly_repeated(keys(10), [a, b], np.arange(10)))


def test_few_pairs_have_fewer_neighbours_and_one_has_none() -> None:
    a, b = units(3, seed=1), units(3, seed=2)
    assert reasons.nearly_repeated(keys(3), [a, b], np.arange(3)) == [[], [], []]
    assert reasons.nearly_repeated(keys(1), [a[:1], b[:1]], np.arange(1)) == [[]]


@quick
@given(holders=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 14)), min_size=8, max_size=40))
def test_a_shared_item_is_told_with_the_number_of_other_groups_if_they_are_many(holders: list[tuple[int, int]]) -> None:
    groups = np.array([group for _, group in holders], np.int64)
    found = reasons.shared("image", items([item for item, _ in holders]), groups)
    for row, (item, group) in zip(found, holders, strict=True):
        others = {other for same, other in holders if same == item} - {group}
        assert row == ([f"image of {len(others)} other groups"] if len(others) >= reasons.MANY else [])


def test_an_item_that_one_group_has_many_times_is_not_shared() -> None:
    assert not any(reasons.shared("image", items([7] * 50), np.zeros(50, np.int64)))
    assert all(reasons.shared("image", items([7] * 50), np.arange(50)))


def test_what_the_encoder_counts_is_told_where_it_is_not_zero() -> None:
    traits = [Traits(0, {"truncated": 0, "unknown": 2}), Traits(1, {}), Traits(2, {"truncated": 1, "unknown": 1})]
    assert reasons.counted("text", traits) == [["text unknown"], [], ["text truncated", "text unknown"]]


def test_who_can_not_be_compared_with_a_group_does_not_quarrel_with_it() -> None:
    found = reasons.quarrelling("image", np.array([np.nan, 0.2, 0.5, 1.0]), 0.5)
    assert found == [[], [], ["image does not fit its group"], ["image does not fit its group"]]


def test_all_reasons_of_a_pair_stand_together_in_their_order() -> None:
    parts = [[["mismatch"], [], []], [["text truncated"], [], ["a", "b"]], [["c"], [], []]]
    assert reasons.merge(parts) == [["mismatch", "text truncated", "c"], [], ["a", "b"]]


def test_kinds_are_counted_once_a_pair_without_the_numbers_and_keys_in_them() -> None:
    rows = [
        ["mismatch", "duplicate of cat 7.png", "near duplicate of cat 7.png", "image of 12 other groups"],
        ["mismatch", "duplicate of duplicate of x", "image of 13 other groups", "text of 12 other groups"],
        ["mismatch", "text truncated", "left does not fit its group"],
        [],
    ]
    found = reasons.count(rows)
    assert found == {
        "mismatch": 3,
        "duplicate": 2,
        "image of many other groups": 2,
        "near duplicate": 1,
        "text of many other groups": 1,
        "text truncated": 1,
        "left does not fit its group": 1,
    }
    assert list(found.values()) == sorted(found.values(), reverse=True), "the commonest first"
    assert reasons.count([["image of 12 other groups", "image of 13 other groups"]]) == {
        "image of many other groups": 1
    }
    assert reasons.count([[], []]) == {}
