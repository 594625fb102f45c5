from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_ssl import Encoder, InputError, MapSource, Modality, PairingSource, Preview, Sample, UnreadableError
from multimodal_ssl.data import Batch, Feed, Supply, batches, group_ids
from multimodal_ssl.plan import Plan, ordered_tickets

NUMBER = Modality("number", float, float, lambda item: Preview(text=str(item)))


class Numbers(MapSource):
    """Sample i holds the number i as a and, unless i is in `lacking`, as b; `broken` ones can't be read."""

    modalities = {"a": "number", "b": "number"}

    def __init__(self, count: int, lacking: Collection[int] = (), broken: Collection[int] = ()) -> None:
        self.count, self.lacking, self.broken = count, frozenset(lacking), frozenset(broken)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise UnreadableError(str(index), "broken")
        return Sample(str(index), dict.fromkeys(self.present(index), index), group=str(index // 2))

    def present(self, index: int) -> Collection[str]:
        return ("a",) if index in self.lacking else ("a", "b")


class Stream(PairingSource):
    modalities = Numbers.modalities

    def __init__(self, count: int) -> None:
        self.source = Numbers(count)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.source)


class Jitter(Encoder):
    """Adds noise to a number if it is given an rng."""

    modality, width = "number", 1

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        return torch.tensor([item + (0 if rng is None else rng.normal())], dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.float()


def read(
    sources: list[PairingSource],
    *,
    batch: int = 8,
    start: int = 0,
    stop: int = 20,
    workers: int = 0,
    seed: int = 1,
    rank: int = 0,
    world: int = 1,
) -> list[Batch]:
    supplies = [Supply(one, ("a", "b")) for one in sources]
    encoders = {"a": Jitter(), "b": Jitter()}
    feed = Feed(supplies, encoders, {"a": NUMBER, "b": NUMBER}, seed=seed)
    tickets = Plan(supplies, batch=batch, seed=seed).tickets(start=start, stop=stop, rank=rank, world=world)
    return list(batches(feed, tickets, workers=workers))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.keys == b.keys and a.groups == b.groups and all(torch.equal(a.inputs[n], b.inputs[n]) for n in a.inputs)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("source", [Numbers(50), Stream(50)])
def test_the_order_and_the_augmentation_are_the_same_for_any_number_of_workers(source: PairingSource) -> None:
    expected = read([source])
    assert same(expected, read([source], workers=1))
    assert same(expected, read([source], workers=3))
    assert not same(expected, read([source], seed=2))


@pytest.mark.parametrize("source", [Numbers(50), Stream(50)])
@pytest.mark.parametrize("start", [1, 7, 19])
def test_resuming_at_a_step_gives_the_batches_that_would_have_come(source: PairingSource, start: int) -> None:
    assert same(read([source, Numbers(30)])[start:], read([source, Numbers(30)], start=start))


@pytest.mark.parametrize("source", [Numbers(48), Stream(48)])
def test_an_epoch_holds_each_sample_once_and_the_next_epoch_has_another_order(source: PairingSource) -> None:
    found = read([source], stop=12)
    first, second = ([key for batch in half for key in batch.keys] for half in (found[:6], found[6:]))
    assert sorted(first, key=int) == sorted(second, key=int) == [str(i) for i in range(48)]
    assert first != second


def test_augmentation_differs_between_visits_and_between_samples() -> None:
    found = read([Numbers(8)], stop=2)
    noise = [batch.inputs["a"].squeeze(1) - torch.tensor([float(key) for key in batch.keys]) for batch in found]
    assert len(torch.unique(torch.cat(noise))) == 16


def test_supplies_take_turns_by_their_shares() -> None:
    plan = Plan([Supply(Numbers(20), ("a", "b"), 3.0), Supply(Numbers(20), ("a", "b"), 1.0)], batch=4, seed=0)
    counts = Counter(ticket.supply for ticket in plan.tickets(start=0, stop=40))
    assert counts == {0: 30, 1: 10}


def test_two_processes_together_read_what_one_reads() -> None:
    alone, first, second = (read([Numbers(50)], rank=rank, world=world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    for whole, a, b in zip(alone, first, second, strict=True):
        assert whole.keys[0::2] == a.keys
        assert whole.keys[1::2] == b.keys
        assert torch.equal(whole.inputs["a"][0::2], a.inputs["a"])
        assert torch.equal(whole.inputs["b"][1::2], b.inputs["b"])


def test_samples_that_lack_an_item_are_not_in_a_batch_of_pairs_but_all_are_embedded() -> None:
    source = Numbers(40, lacking=range(0, 40, 4))
    trained = {int(key) for batch in read([source], stop=40) for key in batch.keys}
    assert trained == {i for i in range(40) if i % 4}
    tickets = list(ordered_tickets([Supply(source, ("a", "b"))], batch=7))
    assert Counter(name for ticket in tickets for _ in ticket.rows for name in ticket.names) == {"a": 40, "b": 30}
    rows = sorted(row for ticket in tickets for row in ticket.rows if isinstance(row, int))
    assert rows == list(range(40))


def test_an_unreadable_sample_is_recorded_and_nothing_takes_its_place() -> None:
    found = read([Numbers(24, broken={3, 5})], stop=3)
    assert sorted(entry for batch in found for entry in batch.unreadable) == [("3", "broken"), ("5", "broken")]
    assert sorted(int(key) for batch in found for key in batch.keys) == [i for i in range(24) if i not in (3, 5)]
    for batch in found:
        assert len(batch.inputs["a"]) == len(batch.keys) == len(batch.groups) == len(batch.weight)


def test_a_batch_larger_than_the_data_is_an_error_that_says_so() -> None:
    with pytest.raises(InputError, match="batch of 8 is larger than the data"):
        read([Numbers(7)])
    with pytest.raises(InputError, match="0 of them with two or more"):
        read([Numbers(9, lacking=range(9))])
    with pytest.raises(InputError, match="batch of 8 is larger than the data"):
        read([Stream(7)])


def test_group_ids_are_equal_where_groups_are() -> None:
    ids = group_ids(["x", "y", "x", "ü"])
    assert ids[0] == ids[2]
    assert len(set(ids.tolist())) == 3
    assert ids.dtype == np.int64
