"""The order of sources with random access: groups apart, like lengths together, visits as often as asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multimodal_ssl.data import Supply
from multimodal_ssl.map_order import MapOrder, deal, kinds_of
from multimodal_ssl.plan import Plan, count_visits
from multimodal_ssl.turns import Turns
from multimodal_ssl.types import Manifest

from .toys import Numbers

many = settings(max_examples=200, deadline=None, derandomize=True)


class Known(Numbers):
    """Numbers of which a manifest knows more."""

    def __init__(self, count: int, names: str = "ab", *, kind: Any = None, **known: Any) -> None:
        super().__init__(count, names, kind=kind)
        self.known = known

    def manifest(self) -> Manifest:
        return replace(super().manifest(), **self.known)


def epoch(order: MapOrder, number: int = 0) -> NDArray[np.int64]:
    """Return the rows of all batches of an epoch, [batches, B]."""
    return np.array([order[number * order.per_epoch + n][1] for n in range(order.per_epoch)])


@many
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    count=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_group_is_in_as_many_batches_as_can_be(sizes: list[int], count: int, seed: int) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(group))[: len(group) // count * count]
    dealt = deal(rows, group, count, rng)
    assert sorted(dealt.ravel().tolist()) == sorted(rows.tolist()), "each row is dealt once"
    dealt_sizes = Counter(group[rows].tolist())
    for batch in dealt:
        for one, times in Counter(group[batch].tolist()).items():
            assert times <= -(-dealt_sizes[one] // count) + (dealt_sizes[one] > count), "as evenly as can be"
            assert times == 1 or dealt_sizes[one] > count, "a group that fits is apart"


def test_rows_are_dealt_at_random() -> None:
    group = np.concatenate([np.arange(6), [6, 6, 7, 7, 8, 8]])
    together: Counter[tuple[int, int]] = Counter()
    rng, trials = np.random.default_rng(0), 20_000
    for _ in range(trials):
        for batch in deal(rng.permutation(12), group, 3, rng):
            together.update((a, b) for a in batch.tolist() for b in batch.tolist() if a < b)
    for pair in ((6, 7), (8, 9), (10, 11)):
        assert together[pair] == 0
    alone = [together[a, b] / trials for a in range(6) for b in range(a + 1, 6)]
    np.testing.assert_allclose(alone, np.mean(alone), rtol=0.05)
    assert np.mean(alone) == pytest.approx(3 / 11, rel=0.1), "of 11 others 3 are in a batch of 4"


def test_batches_keep_groups_apart_unless_the_objective_wants_them() -> None:
    source = Numbers(400, group=lambda row: f"g{row % 80}")
    apart, together = (MapOrder(source, "ab", batch=16, seed=(0, 0), apart=apart) for apart in (True, False))
    for number in range(3):
        assert all(len(set(batch % 80)) == 16 for batch in epoch(apart, number))
        assert sorted(epoch(apart, number).ravel()) == list(range(400))
    assert any(len(set(batch % 80)) < 16 for batch in epoch(together))


def test_samples_without_a_group_are_each_of_their_own() -> None:
    source = Numbers(64, group=lambda row: "g" if row < 4 else "")
    batches = epoch(MapOrder(source, "ab", batch=16, seed=(0, 0)))
    assert all((batch < 4).sum() == 1 for batch in batches)


def test_groups_larger_than_the_number_of_batches_are_spread_evenly() -> None:
    source = Numbers(640, group=lambda row: f"g{row % 10}")
    for batch in epoch(MapOrder(source, "ab", batch=64, seed=(0, 0))):
        assert all(5 <= count <= 8 for count in Counter((batch % 10).tolist()).values())


def test_batches_of_like_lengths_hold_every_sample_once_and_differ_between_epochs() -> None:
    rng = np.random.default_rng(0)
    length = np.stack([rng.integers(1, 500, 4096), np.zeros(4096)], 1).astype(np.float32)
    group = rng.integers(0, 2000, 4096)
    source = Known(4096, length=length, group=group)
    plain, like = (MapOrder(source, "ab", batch=16, seed=(0, 0), by_length=name) for name in (None, "a"))
    spread = [np.mean([np.ptp(length[batch, 0]) for batch in epoch(order)]) for order in (plain, like)]
    assert spread[1] < 0.1 * spread[0]
    first, second = epoch(like, 0), epoch(like, 1)
    assert sorted(first.ravel()) == sorted(second.ravel()) == list(range(4096))
    assert not {frozenset(batch.tolist()) for batch in first} & {frozenset(batch.tolist()) for batch in second}
    means = [length[batch, 0].mean() for batch in first]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3, "short and long batches come in no order"
    assert np.mean([len(set(group[batch])) == 16 for batch in first]) > 0.99


@pytest.mark.parametrize("count", [6, 8, 16, 24])
def test_groups_and_visits_of_one_sample_stay_apart_though_lengths_are_to_be_alike(count: int) -> None:
    length = np.random.default_rng(0).integers(3, 60, (count * 16, 2)).astype(np.float32)
    source = Known(count * 16, length=length, group=np.arange(count * 16) // 5)
    batches = epoch(MapOrder(source, "ab", batch=16, seed=(0, 0), by_length="a"))
    assert sorted(batches.ravel()) == list(range(count * 16))
    assert np.mean([len(set(batch // 5)) for batch in batches]) > 0.98 * 16
    often = Known(count * 4, length=length[: count * 4], frequency=np.full(count * 4, 4, np.float32))
    batches = epoch(MapOrder(often, "ab", batch=16, seed=(0, 0), by_length="a"))
    assert np.mean([len(set(batch)) for batch in batches]) > 0.98 * 16


@many
@given(kinds=st.lists(st.sets(st.sampled_from("abc")), max_size=20), names=st.permutations("abc"))
def test_rows_are_told_apart_by_the_items_that_they_have(kinds: list[set[str]], names: list[str]) -> None:
    expected: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, kind in enumerate(kinds):
        if has := tuple(name for name in names if name in kind):
            expected[has].append(row)
    present = np.array([[name in kind for name in "abc"] for kind in kinds], bool).reshape(-1, 3)
    found = kinds_of(Numbers(len(kinds), "abc"), Manifest(present), names)
    assert {kind: rows.tolist() for kind, rows in found.items()} == expected
    assert list(found) == sorted(found)


def test_a_length_that_nobody_knows_changes_nothing() -> None:
    known = Known(64, length=np.ones((64, 2), np.float32))
    for source, name in ((Numbers(64), "a"), (known, "c"), (known, None)):
        order = MapOrder(source, "ab", batch=16, seed=(0, 0), by_length=name)
        assert epoch(order).tolist() == epoch(MapOrder(source, "ab", batch=16, seed=(0, 0))).tolist()


@many
@given(
    often=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.7]), min_size=60, max_size=90),
    seed=st.integers(0, 100),
)
def test_a_sample_is_visited_as_often_as_its_source_says(often: list[float], seed: int) -> None:
    frequency = np.array(often, np.float32)
    if frequency.sum() < 12:
        return
    order = MapOrder(Known(len(often), frequency=frequency), "ab", batch=4, seed=(seed, 0))
    assert order.per_epoch == int(frequency.sum() + 1e-4) // 4
    for batch in epoch(order):
        assert len(batch) == 4
        assert len(set(batch.tolist())) == 4 or frequency.max() > order.per_epoch, "a sample meets itself in no batch"
    visits = Counter(epoch(order).ravel().tolist())
    for row, expected in enumerate(often):
        assert np.floor(expected) - 3 <= visits[row] <= np.ceil(expected)


def test_frequencies_hold_on_average() -> None:
    frequency = np.tile(np.array([0.25, 1.0, 1.75, 3.0], np.float32), 50)
    order = MapOrder(Known(200, frequency=frequency), "ab", batch=10, seed=(0, 0))
    visits = Counter(row for number in range(200) for row in epoch(order, number).ravel().tolist())
    by_kind: dict[float, list[int]] = defaultdict(list)
    for row in range(200):
        by_kind[float(frequency[row])].append(visits[row])
    for expected, counts in by_kind.items():
        assert np.mean(counts) / 200 == pytest.approx(expected, rel=0.03)


def test_each_pair_of_items_counts_alike_whatever_its_sample_has_beside() -> None:
    source = Numbers(300, "abc", kind=lambda row: "ab" if row % 3 else "abc")
    order = MapOrder(source, "abc", batch=8, seed=(0, 0))
    visits = Counter(np.concatenate([epoch(order, number).ravel() for number in range(200)]).tolist())
    assert set(visits) == set(range(300))
    assert sum(visits.values()) == pytest.approx(200 * 300, rel=0.05), "as many visits as samples"
    rich, poor = (np.mean([visits[row] for row in range(300) if (row % 3 == 0) == has_three]) for has_three in (1, 0))
    assert rich == pytest.approx(3 * poor, rel=0.1), "of its loss each pair is a third"


def test_terms_of_the_objective_are_what_counts() -> None:
    source = Numbers(320, "abc", kind=lambda row: "ab" if row % 2 else "abc")
    for terms, share in ((lambda names: len(names) - 1, 2 / 3), (lambda _: 1, 1 / 2)):
        order = MapOrder(source, "abc", batch=8, seed=(0, 0), terms=terms)
        kinds = Counter(order[n][0] for n in range(60))
        assert kinds["a", "b", "c"] == 60 * share


def test_where_the_source_says_how_often_samples_are_visited_nothing_else_counts() -> None:
    frequency = np.array([0.5, 1.5], np.float32).repeat(160)
    source = Known(320, names="abc", kind=lambda row: "abc" if row < 160 else "ab", frequency=frequency)
    order = MapOrder(source, "abc", batch=8, seed=(0, 0))
    assert Counter(order[n][0] for n in range(60)) == {("a", "b", "c"): 15, ("a", "b"): 45}


@pytest.mark.parametrize("poor", [8, 9, 15, 16, 23, 100])
@pytest.mark.parametrize("by_length", [None, "a"])
def test_a_kind_goes_through_its_samples_again_and_again_however_few_they_are(poor: int, by_length: str | None) -> None:
    count = poor + 9 + 200
    lengths = np.arange(count, dtype=np.float32).repeat(3).reshape(count, 3)
    group = np.arange(count)
    source = Known(count, names="abc", kind=lambda row: "ab" if row < poor else "abc", length=lengths, group=group)
    order = MapOrder(source, "abc", batch=8, seed=(0, 0), by_length=by_length)
    visits: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for n in range(10 * order.per_epoch):
        kind, rows = order[n]
        assert len(set(rows)) == 8, "a sample is in a batch once"
        visits[kind] += rows
    for kind, rows in visits.items():
        turn = order.batches[kind] * 8
        assert all(len({*rows[start : start + turn]}) == turn for start in range(0, len(rows) - turn + 1, turn))


def test_turns_are_those_of_the_step_however_one_came_to_it() -> None:
    turns = Turns(np.array([0.5, 0.3, 0.2]))
    found = [turns[step] for step in range(50)]
    assert Counter(turn for turn, _ in found) == {0: 25, 1: 15, 2: 10}
    assert [had for turn, had in found if turn == 1] == list(range(15))
    assert [turns[step] for step in (49, 3, 4, 4, 20)] == [found[step] for step in (49, 3, 4, 4, 20)]


def test_samples_that_all_have_the_same_items_are_visited_once() -> None:
    order = MapOrder(Numbers(64, "abc"), "abc", batch=8, seed=(0, 0))
    assert sorted(epoch(order).ravel()) == list(range(64))


def test_a_pass_is_as_long_as_the_visits_that_its_source_asks_for() -> None:
    def visits(*sources: Known) -> int:
        return count_visits(Plan([Supply(one, tuple(one.modalities)) for one in sources], batch=8, seed=0))

    some = Known(100, "abc", kind=lambda row: ["a", "ab", "abc", "", "bc"][row % 5])
    assert visits(some) == 60, "of samples that have no pair there are no visits"
    often = Known(40, frequency=np.array([0.5, 2.0], np.float32).repeat(20))
    assert visits(often) == 50
    assert visits(some, often, Known(30)) == 140


def test_samples_none_of_whose_items_the_objective_takes_together_are_told() -> None:
    source = Numbers(40, "abc", kind=lambda row: ["abc", "bc", "a", ""][row % 4])
    order = MapOrder(source, "abc", batch=8, seed=(0, 0), terms=lambda kind: len(kind) - 1 if "a" in kind else 0)
    assert order.left_out == 10
    assert list(order.kinds) == [("a", "b", "c")]


def test_copies_of_a_few_samples_make_no_batch() -> None:
    often = np.array([1] * 100 + [20] * 5, np.float32)
    source = Known(105, "abc", kind=lambda row: "ab" if row < 100 else "ac", frequency=often)
    order = MapOrder(source, "abc", batch=8, seed=(0, 0))
    assert list(order.kinds) == [("a", "b")]
    assert order.left_out == 5
