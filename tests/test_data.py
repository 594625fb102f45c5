from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_ssl import Encoder, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import Batch, Feed, Supply, Ticket, Traits, batches, raw_items
from multimodal_ssl.digests import digest
from multimodal_ssl.plan import Plan

from .toys import NUMBER, Numbers, Stream, Waves


class Jitter(Encoder):
    """Adds noise to a number if it is given an rng."""

    modality, width = "number", 1

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        return torch.tensor([item + (0 if rng is None else rng.normal())], dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.float()


def read(
    *sources: PairingSource,
    batch: int = 8,
    start: int = 0,
    stop: int = 20,
    workers: int = 0,
    seed: int = 1,
    rank: int = 0,
    world: int = 1,
) -> list[Batch]:
    supplies = [Supply(one, ("a", "b")) for one in sources]
    feed = Feed(supplies, {"a": Jitter(), "b": Jitter()}, {"a": NUMBER, "b": NUMBER}, seed=seed)
    tickets = Plan(supplies, batch=batch, seed=seed).tickets(start=start, stop=stop, rank=rank, world=world)
    return list(batches(feed, tickets, workers=workers))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.keys == b.keys and a.groups == b.groups and all(torch.equal(a.inputs[n], b.inputs[n]) for n in a.inputs)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("source", [Numbers(50), Stream(Numbers(50))])
def test_the_order_and_the_augmentation_are_the_same_for_any_number_of_workers(source: PairingSource) -> None:
    expected = read(source)
    assert same(expected, read(source, workers=1))
    assert same(expected, read(source, workers=2))
    assert not same(expected, read(source, seed=2))


@pytest.mark.parametrize("source", [Numbers(50), Stream(Numbers(50))])
@pytest.mark.parametrize("start", [1, 7, 19])
def test_resuming_at_a_step_gives_the_batches_that_would_have_come(source: PairingSource, start: int) -> None:
    assert same(read(source, Numbers(30))[start:], read(source, Numbers(30), start=start))


def test_augmentation_differs_between_visits_and_between_samples() -> None:
    found = read(Numbers(8), stop=2)
    noise = [batch.inputs["a"].squeeze(1) - torch.tensor([float(key) for key in batch.keys]) for batch in found]
    assert len(torch.unique(torch.cat(noise))) == 16


def test_two_processes_together_read_what_one_reads() -> None:
    alone, first, second = (
        read(Numbers(50), batch=7, rank=rank, world=world) for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    for whole, a, b in zip(alone, first, second, strict=True):
        assert whole.keys[0::2] == a.keys
        assert whole.keys[1::2] == b.keys
        assert torch.equal(whole.inputs["a"][0::2], a.inputs["a"])
        assert torch.equal(whole.inputs["b"][1::2], b.inputs["b"])


def test_an_unreadable_sample_is_recorded_and_nothing_takes_its_place() -> None:
    found = read(Numbers(24, broken={3, 5}), stop=3)
    assert sorted(entry for batch in found for entry in batch.unreadable) == [("3", "broken"), ("5", "broken")]
    assert sorted(int(key) for batch in found for key in batch.keys) == [i for i in range(24) if i not in (3, 5)]
    for batch in found:
        assert len(batch.inputs["a"]) == len(batch.keys) == len(batch.groups) == len(batch.weight)


def test_a_batch_that_cannot_be_read_at_all_is_empty_and_says_why() -> None:
    (batch,) = read(Numbers(8, broken=range(8)), stop=1)
    assert batch.keys == batch.groups == []
    assert batch.inputs == {}
    assert batch.group.shape == batch.weight.shape == (0,)
    assert len(batch.unreadable) == 8


def test_whatever_is_wrong_with_one_sample_is_told_and_costs_only_that_sample() -> None:
    class Wrong(Numbers):
        def __getitem__(self, index: int) -> Sample:
            items = ({"a": "ten", "b": 1}, {"a": 1}, {"a": 1, "b": None}, {"a": 1, "b": 1})[index % 4]
            if index == 7:
                raise RuntimeError("a plugin's mistake")
            return Sample(str(index), items)

    (batch,) = read(Wrong(8), stop=1)
    assert batch.keys == ["3"]
    told = dict(batch.unreadable)
    assert told.keys() == {"0", "1", "2", "4", "5", "6", "row 7"}
    assert told["0"].startswith("ValueError: could not convert string to float")
    assert told["1"] == "KeyError: 'b'"
    assert told["2"].startswith("TypeError: ")
    assert told["row 7"] == "RuntimeError: a plugin's mistake"


def test_an_item_that_can_not_be_read_is_told_under_the_key_of_its_sample() -> None:
    class Items(dict[str, int]):
        def __getitem__(self, name: str) -> int:
            raise UnreadableError("the key of a part", "torn")

    class Parts(Numbers):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, items=Items(sample.items)) if index == 2 else sample

    (batch,) = read(Parts(8), stop=1)
    assert batch.unreadable == [("2", "torn")]


def test_a_weight_that_is_not_above_0_and_at_most_1_makes_a_sample_unreadable() -> None:
    (batch,) = read(Numbers(6, weights={0: math.nan, 1: -1.0, 2: 0.0, 3: 2.0, 4: 0.5}), batch=6, stop=1)
    assert dict(batch.unreadable) == {
        str(index): f"its weight is {weight}, not in (0, 1]"
        for index, weight in enumerate(("nan", "-1.0", "0.0", "2.0"))
    }
    assert dict(zip(batch.keys, batch.weight.tolist(), strict=True)) == {"4": 0.5, "5": 1.0}


def test_a_sample_without_a_group_has_one_of_its_own_whichever_source_it_comes_from() -> None:
    first, second = read(Numbers(8), Numbers(8), stop=2)
    assert {first.supply, second.supply} == {0, 1}
    assert len({*first.groups, *second.groups}) == 16
    assert len({*first.group.tolist(), *second.group.tolist()}) == 16


def test_samples_of_one_group_are_so_across_sources() -> None:
    first, second = read(Numbers(8, group=lambda i: f"g{i % 2}"), Numbers(8, group=lambda i: f"g{i % 2}"), stop=2)
    assert set(first.groups) == set(second.groups) == {"g0", "g1"}
    numbers = {
        *zip(first.groups, first.group.tolist(), strict=True),
        *zip(second.groups, second.group.tolist(), strict=True),
    }
    assert len(numbers) == len({number for _, number in numbers}) == 2


def test_equal_keys_of_two_sources_are_told_apart() -> None:
    found = read(Numbers(8, broken={2}), Numbers(8, broken={2}), stop=2)
    assert sorted(key for batch in found for key, _ in batch.unreadable) == ["0/2", "1/2"]
    assert sorted(key for batch in found for key in batch.keys) == [
        f"{s}/{i}" for s in (0, 1) for i in range(8) if i != 2
    ]


def test_raw_items_come_from_all_sources_alike_and_an_error_costs_one_sample() -> None:
    class Wrong(Numbers):
        def __getitem__(self, index: int) -> Sample:
            if index == 3:
                raise RuntimeError("a plugin's mistake")
            return super().__getitem__(index)

    sources = [Numbers(10, broken={0}), Wrong(10), Stream(Numbers(10)), Numbers(10, "bc")]
    supplies = [Supply(source, tuple(source.modalities)) for source in sources]
    assert list(raw_items(supplies, ["a"], NUMBER, 12)) == [3, 6, 9, 0, 6, 9, 0, 1, 2, 3]
    assert len(list(raw_items(supplies, ["a"], NUMBER, 1000))) == 9 + 9 + 10


def test_iterating_a_source_with_random_access_goes_on_after_a_sample_that_cannot_be_read() -> None:
    assert [int(sample.key) for sample in Numbers(6, broken={0, 3, 5})] == [1, 2, 4]


SIX = torch.arange(6.0)
DIFFERENT = [
    SIX,
    SIX.double(),
    SIX.long(),
    SIX.int(),
    SIX.reshape(2, 3),
    SIX.reshape(3, 2),
    SIX.reshape(3, 2).T,
    SIX.reshape(1, 6),
    SIX[:5],
    SIX.flip(0),
    torch.nextafter(SIX, SIX + 1),
    torch.tensor([0, 1, 2, 3, 4, math.nan]),
    torch.zeros(6),
    torch.zeros(6, dtype=torch.int32),
    torch.zeros(6, dtype=torch.bool),
    torch.empty(0),
    torch.empty(0, 6),
    {"tokens": SIX, "mask": SIX > 2},
    {"tokens": SIX, "mask": SIX > 3},
    {"tokens": SIX > 2, "mask": SIX},
    {"tokens": SIX},
    {"words": SIX},
    {"tokens": {"tokens": SIX}},
    {"tokens": SIX, "truncated": True},
    {"tokens": SIX, "truncated": False},
    [SIX, -SIX],
    [-SIX, SIX],
    [SIX, -SIX, SIX],
    [SIX, {"tokens": -SIX}],
    "cat",
    "cats",
    ["c", "at"],
]


def test_a_digest_differs_wherever_an_encoder_could_tell_two_items_apart() -> None:
    for one, other in itertools.combinations(DIFFERENT, 2):
        assert digest(one) != digest(other), (one, other)


@pytest.mark.parametrize("inputs", DIFFERENT)
def test_a_digest_is_the_same_for_equal_inputs(inputs: Any) -> None:
    assert digest(inputs) == digest(copy.deepcopy(inputs))
    assert -(2**63) <= digest(inputs) < 2**63, "it can be kept as int64"


def test_a_digest_depends_neither_on_the_layout_in_memory_nor_on_the_order_in_which_a_dict_was_made() -> None:
    square = torch.arange(16.0).reshape(4, 4)
    assert digest(square.T) == digest(square.T.contiguous())
    assert digest(square[::2, 1]) == digest(square[::2, 1].clone())
    assert digest(np.asfortranarray(square.numpy())) == digest(square.numpy())
    assert digest({"b": [square], "a": SIX}) == digest({"a": SIX, "b": [square]})


def test_traits_tell_equal_items_from_others_and_what_the_encoder_counts_of_each() -> None:
    class Counting(Waves):
        def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
            return torch.tensor([int(item) // 2, 7])

        def tally(self, inputs: Tensor) -> dict[str, int]:
            return {"large": int((inputs[:, 0] > 2).sum())}

    supplies = [Supply(Numbers(8, broken={4}), ("a", "b"))]
    feed = Feed(supplies, {"a": Counting(), "b": Jitter()}, {"a": NUMBER, "b": NUMBER}, traits=True)
    batch = feed[Ticket(0, 0, ("a", "b"), range(8), range(8))]
    assert batch.keys == ["0", "1", "2", "3", "5", "6", "7"]
    assert batch.traits["a"] == [
        Traits(digest(torch.tensor([i // 2, 7])), {"large": int(i > 5)}) for i in (*range(4), 5, 6, 7)
    ]
    assert len({one.digest for one in batch.traits["a"]}) == 4
    assert len({one.digest for one in batch.traits["b"]}) == 7
    assert all(one.tally == {} for one in batch.traits["b"])
    assert len(batch.metadata) == 7


def test_traits_are_told_only_if_asked_for() -> None:
    (batch,) = read(Numbers(8), stop=1)
    assert batch.traits == {}
    assert len(batch.metadata) == 8


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(1.0), torch.tensor([1.0])),
        ([[1.0], [2.0, 3.0]], [[1.0, 2.0], [3.0]]),
        ([], {}),
    ],
)
def test_a_digest_tells_structures_apart(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


def test_a_digest_takes_any_type_of_tensor() -> None:
    assert digest(torch.ones(3).bfloat16()) != digest(torch.zeros(3).bfloat16())
