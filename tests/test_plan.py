from __future__ import annotations

import itertools
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from multimodal_ssl import InputError, PairingSource, Sample
from multimodal_ssl.data import Supply, Ticket
from multimodal_ssl.map_order import MapOrder
from multimodal_ssl.plan import Plan, ordered_tickets
from multimodal_ssl.stream_order import START, Cursor, stream_batches

from .toys import Numbers, Stream, fit_toys, present


def supply(source: PairingSource, share: float = 1.0) -> Supply:
    return Supply(source, tuple(source.modalities), share)


def tickets(*sources: PairingSource, batch: int = 8, seed: int = 0, start: int = 0, stop: int = 40) -> list[Ticket]:
    return list(Plan([supply(one) for one in sources], batch=batch, seed=seed).tickets(start=start, stop=stop))


def keys(ticket: Ticket) -> list[int]:
    return [int(row.key) if isinstance(row, Sample) else row for row in ticket.rows]


def random_kinds(seed: int) -> list[str]:
    """Return what each of 60 to 200 samples has of abcd: some kinds are common, most are rare."""
    rng = np.random.default_rng(seed)
    common = ["".join(name for name in "abcd" if rng.random() < 0.6) for _ in range(2)]
    rare = ["".join(kind) for size in range(5) for kind in itertools.combinations("abcd", size)]
    return [str(rng.choice(common if rng.random() < rng.random() else rare)) for _ in range(rng.integers(60, 200))]


@pytest.mark.parametrize("source", [Numbers(48), Stream(Numbers(48))])
def test_an_epoch_holds_each_sample_once_and_the_next_epoch_has_another_order(source: PairingSource) -> None:
    found = tickets(source, stop=12)
    first, second = ([key for ticket in half for key in keys(ticket)] for half in (found[:6], found[6:]))
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second


@pytest.mark.parametrize("start", [1, 7, 39])
def test_the_plan_of_a_step_does_not_depend_on_where_training_began(start: int) -> None:
    def kind(index: int) -> str:
        return "ab" if index % 5 == 0 else "abc"

    sources = [Numbers(50, "abc", kind=kind), Stream(Numbers(50, "abc", kind=kind)), Numbers(30)]
    assert tickets(*sources, start=start) == tickets(*sources)[start:]
    assert tickets(*sources, seed=1) != tickets(*sources)


def test_supplies_take_turns_by_their_shares() -> None:
    shared = Plan([supply(Numbers(20), 3.0), supply(Numbers(20), 1.0)], batch=4, seed=0)
    turns = [ticket.supply for ticket in shared.tickets(start=0, stop=40)]
    assert Counter(turns) == {0: 30, 1: 10}
    for step in range(1, 41):
        assert abs(turns[:step].count(0) - 0.75 * step) < 1, "a supply fell behind"


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_and_every_place_in_it_has_one_of_them(world: int) -> None:
    whole = Plan([supply(Numbers(50))], batch=7, seed=0)
    parts = [whole.tickets(start=0, stop=20, rank=rank, world=world) for rank in range(world)]
    for together, *each in zip(whole.tickets(start=0, stop=20), *parts, strict=True):
        found = {slot: row for part in each for slot, row in zip(part.slots, part.rows, strict=True)}
        assert [found[slot] for slot in range(7)] == list(together.rows)


@pytest.mark.parametrize("seed", range(12))
def test_every_batch_is_full_and_only_samples_that_fit_nowhere_are_left_out(seed: int) -> None:
    kinds = random_kinds(seed)
    source = Numbers(len(kinds), "abcd", kind=kinds.__getitem__)
    batch = 8
    order = MapOrder(source, "abcd", batch=batch, seed=(seed, 0))
    visited: set[int] = set()
    for n in range(60 * order.per_epoch):
        names, rows = order[n]
        assert len(set(rows)) == len(rows) == batch
        assert all(set(names) <= set(kinds[row]) for row in rows)
        visited.update(rows)
    left = [index for index, kind in enumerate(kinds) if len(kind) >= 2 and index not in visited]
    assert len(left) == order.left_out
    assert not [row for row in left for kind in order.kinds if set(kind) <= set(kinds[row])]
    assert all(sum(set(pair) <= set(kinds[row]) for row in left) < batch for pair in itertools.combinations("abcd", 2))


def test_a_rare_kind_joins_the_kind_that_keeps_most_of_its_items() -> None:
    kinds = ["ab"] * 30 + ["abc"] * 10 + ["bcd"] * 9 + ["abcd"] * 3 + ["abd"] * 2
    order = MapOrder(Numbers(54, "abcd", kind=kinds.__getitem__), "abcd", batch=8, seed=(0, 0))
    assert {"".join(kind): len(rows) for kind, rows in order.kinds.items()} == {"ab": 32, "abc": 13, "bcd": 9}
    assert order.left_out == 0


def test_rare_kinds_without_a_common_one_meet_in_their_commonest_pair() -> None:
    kinds = ["abc"] * 4 + ["abd"] * 4 + ["ad"] * 3 + ["cd"] * 2
    order = MapOrder(Numbers(13, "abcd", kind=kinds.__getitem__), "abcd", batch=8, seed=(0, 0))
    assert {"".join(kind): rows.tolist() for kind, rows in order.kinds.items()} == {"ab": list(range(8))}
    assert order.left_out == 5


@pytest.mark.parametrize(("odd", "others", "left_out"), [("ab", "abc", 1), ("abc", "ab", 0), ("a", "ab", 0)])
def test_one_odd_row_of_64_never_makes_a_batch_of_one(odd: str, others: str, left_out: int) -> None:
    source = Numbers(64, "abc", kind=lambda index: odd if index == 5 else others)
    found = tickets(source, batch=16)
    assert {(len(ticket.rows), "".join(ticket.names)) for ticket in found} == {(16, others)}
    assert Plan([supply(source)], batch=16, seed=0).left_out == left_out


def test_training_warns_of_samples_that_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit_toys(tmp_path / "some", Numbers(64, "abc", kind=lambda index: "ab" if index < 3 else "abc"))
    assert "warning: 3 samples are left out" in capsys.readouterr().err
    fit_toys(tmp_path / "none", Numbers(64, "abc", kind=lambda index: "a" if index < 3 else "abc"))
    assert "left out" not in capsys.readouterr().err


def test_a_stream_keeps_rare_kinds_until_they_fill_a_batch() -> None:
    source = Stream(Numbers(64, "abc", kind=lambda index: "ab" if index < 3 else "abc"))
    found = tickets(source, stop=200)
    assert {len(ticket.rows) for ticket in found} == {8}
    assert all(set(ticket.names) == present(source.source, key) for ticket in found for key in keys(ticket))
    visits = Counter(key for ticket in found for key in keys(ticket))
    assert visits.keys() == set(range(64))
    assert max(visits.values()) - min(visits.values()) <= 8


def test_a_stream_holds_no_samples_that_it_cannot_use() -> None:
    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    class Lone(PairingSource):
        modalities = {"a": "number", "b": "number"}

        def __iter__(self) -> Iterator[Sample]:
            for index in range(3000):
                item = Item()
                alive.add(item)
                yield Sample(str(index), {"a": item} if index % 2 else {"a": item, "b": item})

    most = 0
    for _ in Plan([supply(Lone())], batch=8, seed=0, shuffle_buffer=16).tickets(start=0, stop=180):
        most = max(most, len(alive))
    assert most < 16 + 3 * 8


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Numbers(7), "source 0 has 7 samples, 7 of them with items that the objective takes together, of a, b"),
        (
            Numbers(9, kind=lambda _: "a"),
            "source 0 has 9 samples, 0 of them with items that the objective takes together, of a, b",
        ),
        (Stream(Numbers(7)), "source 0 has 7 samples with items that the objective takes together, of a, b"),
        (
            Stream(Numbers(99, kind=lambda _: "b")),
            "source 0 has 0 samples with items that the objective takes together, of a, b",
        ),
    ],
)
def test_a_batch_larger_than_the_data_is_an_error_that_says_so(source: PairingSource, message: str) -> None:
    with pytest.raises(InputError, match=f"batch of 8 is larger than the data: {message}.*; lower train.batch"):
        tickets(source)


def test_every_sample_with_an_item_is_embedded_once() -> None:
    for source in (
        Numbers(40, kind=lambda i: "b" if i % 4 else "ab"),
        Stream(Numbers(40, kind=lambda i: ("", "a")[i % 2])),
    ):
        found = list(ordered_tickets([supply(source)], batch=7))
        kinds = {key: "".join(ticket.names) for ticket in found for key in keys(ticket)}
        of = source.source if isinstance(source, Stream) else source
        assert kinds == {index: of.kind(index) for index in range(40) if of.kind(index)}
        assert sum(len(ticket.rows) for ticket in found) == len(kinds)
        assert max(len(ticket.rows) for ticket in found) == 7


def test_a_stream_goes_on_from_any_batch_while_rare_kinds_wait_for_epochs() -> None:
    source = Stream(Numbers(23, "abc", kind=lambda index: "ac" if index % 8 == 0 else "ab"))

    def follow(cursor: Cursor, count: int) -> list[list[str]]:
        order = stream_batches(source, ["a", "b", "c"], batch=8, seed=(0, 0), buffer=16, cursor=cursor)
        return [[one.key for one in samples] for _, samples, _ in itertools.islice(order, count)]

    whole = follow(START, 40)
    assert any(set(keys) <= {"0", "8", "16"} for keys in whole)
    order = stream_batches(source, ["a", "b", "c"], batch=8, seed=(0, 0), buffer=16)
    for at, (_, _, cursor) in enumerate(itertools.islice(order, 36)):
        assert follow(cursor, 3) == whole[at + 1 : at + 4]


def test_a_sample_that_waited_for_a_batch_and_is_gone_is_told() -> None:
    waiting = START._replace(pending=((0, 7),))
    order = stream_batches(Stream(Numbers(5)), ["a", "b"], batch=2, seed=(0, 0), buffer=16, cursor=waiting)
    with pytest.raises(InputError, match=r"sample 7 of shard 0 waited for a batch .* is gone: the data has changed"):
        next(order)
