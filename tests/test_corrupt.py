from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from multimodal_ssl import (
    Catalog,
    InputError,
    Manifest,
    MapSource,
    Modality,
    PairingSource,
    Sample,
    UnreadableError,
    hookimpl,
)
from multimodal_ssl.config import CorruptConfig, SourceConfig
from multimodal_ssl.corrupt import BLOCK, Corrupted, corrupted, exchange
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.testing import check_pairing_source

from .toys import Lazy, Stream, manifest_of, present


class Words(MapSource):
    """Sample i is picture i with the word of its group; every tenth lacks the word, `broken` can't be read."""

    modalities = {"image": "image", "text": "text"}

    def __init__(self, count: int = 200, groups: int = 50, broken: int | None = None) -> None:
        self.count, self.groups, self.broken = count, groups, broken

    def __len__(self) -> int:
        return self.count

    def has(self, index: int) -> tuple[str, ...]:
        return ("image",) if index % 10 == 9 else NAMES

    def manifest(self) -> Manifest:
        return manifest_of(self, self.has)

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise UnreadableError(str(index), "broken")
        items = {"image": index, "text": f"word {index % self.groups:03}"}
        return Sample(f"k{index}", {name: items[name] for name in self.has(index)}, f"g{index % self.groups}", 0.5)


NAMES = ("image", "text")
Kind = Literal["uniform", "near"]


class Plugin:
    @hookimpl
    def register_pairing_sources(self, register: Register) -> None:
        register("words", Words)

    @hookimpl
    def register_modalities(self, register: Register) -> None:
        for name in NAMES:
            register(name, functools.partial(Modality, name, object, lambda value: value, str))


@pytest.mark.parametrize("kind", ["uniform", "near"])
def test_the_share_that_was_asked_for_holds_an_item_of_another_group(kind: Kind) -> None:
    clean, source = Words(), Corrupted(Words(), CorruptConfig(mismatch=0.4, kind=kind), NAMES)
    check_pairing_source(source)
    assert source.mismatched.sum() == round(0.4 * 180)
    texts: Counter[str] = Counter()
    for row in range(200):
        sample, original = source[row], clean[row]
        assert (sample.key, sample.group, sample.weight) == (original.key, original.group, original.weight)
        assert sample.items["image"] == row
        assert (sample.items.get("text") != original.items.get("text")) == source.mismatched[row]
        texts[sample.items.get("text", "")] += 1
    assert texts == Counter(clean[row].items.get("text", "") for row in range(200))  # exchanged, none made up


def test_near_takes_what_is_next_in_the_order_of_the_texts() -> None:
    def distance(kind: Kind) -> float:
        source = Corrupted(Words(), CorruptConfig(mismatch=0.5, kind=kind), NAMES)
        rows = np.flatnonzero(source.mismatched)
        numbers = [(int(source[row].items["text"][-3:]), row % 50) for row in rows.tolist()]
        return float(np.median([abs(one - other) for one, other in numbers]))

    assert distance("near") <= 4
    assert distance("uniform") > 8


class Brands(Words):
    """Sample i has a group of its own; most have one of a few words."""

    def __getitem__(self, index: int) -> Sample:
        word = f"word {index:03}" if index % 3 else f"brand {index // 3 % 3}"
        return Sample(f"k{index}", {"image": index, "text": word}, weight=0.5)


@pytest.mark.parametrize("kind", ["uniform", "near"])
def test_who_gets_the_same_text_from_another_group_would_not_be_mismatched(kind: Kind) -> None:
    source = Corrupted(Brands(), CorruptConfig(mismatch=1.0, kind=kind), NAMES)
    for row in range(200):
        assert (source[row].items.get("text") != Brands()[row].items["text"]) == (row % 10 != 9)


@pytest.mark.parametrize("per_label", [1, 2, 40, 1000])
@pytest.mark.parametrize("kinds", [1, 2])
def test_nobody_gets_the_place_of_its_like_and_few_others_move(per_label: int, kinds: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(2000) // per_label, rng.integers(100, size=2000)])[:kinds]
    for start in (np.roll(np.arange(2000), -1), rng.permutation(2000)):
        origin = exchange(labels, start)
        assert origin is not None
        np.testing.assert_array_equal(np.sort(origin), np.arange(2000))
        assert not (labels[:, origin] == labels).any()
        stuck = (labels[:, start] == labels).any(0).sum()
        assert (origin != start).sum() <= 2 * stuck
    assert exchange(np.array([[7] * 11 + list(range(100, 110))]), np.arange(21)) is None
    assert exchange(np.array([[7] * 10 + list(range(100, 110))]), np.arange(20)) is not None


def test_near_is_near_though_one_group_is_large() -> None:
    class Crowd(Words):
        def __getitem__(self, index: int) -> Sample:
            group = "crowd" if index % 10 == 0 else f"g{index}"
            return Sample(f"k{index}", {"image": index, "text": f"word {index:04}"}, group)

    source = Corrupted(Crowd(1000), CorruptConfig(mismatch=1.0, kind="near"), NAMES)
    rows = np.flatnonzero(source.mismatched).tolist()
    distances = [abs(int(source[row].items["text"][-4:]) - row) for row in rows]
    assert np.quantile(distances, 0.99) <= 3


def test_the_choice_is_a_function_of_the_seed() -> None:
    first, again, other = (Corrupted(Words(), CorruptConfig(mismatch=0.3, seed=s), NAMES) for s in (1, 1, 2))
    assert [first[i].items for i in range(200)] == [again[i].items for i in range(200)]
    assert (first.mismatched != other.mismatched).any()


def test_another_item_can_be_exchanged_and_nothing_need_be() -> None:
    source = Corrupted(Words(), CorruptConfig(mismatch=0.5, item="image"), NAMES)
    assert all((source[i].items["image"] != i) == source.mismatched[i] for i in range(200))
    assert not Corrupted(Words(), CorruptConfig(mismatch=0), NAMES).mismatched.any()


def test_an_oracle_trains_on_all_but_the_mismatched() -> None:
    config = CorruptConfig(mismatch=0.4)
    whole = Corrupted(Words(), config, NAMES)
    catalog = Catalog.of(words=Plugin())
    source = SourceConfig(name="words", corrupt=config.model_copy(update={"drop": True}))
    rest = open_supplies([source], catalog)[0].source
    assert isinstance(rest, MapSource)
    assert [rest[i].key for i in range(len(rest))] == [f"k{i}" for i in np.flatnonzero(~whole.mismatched)]
    check_pairing_source(rest)


def test_an_unreadable_sample_stays_one() -> None:
    source = Corrupted(Words(broken=3), CorruptConfig(mismatch=1.0), NAMES)
    with pytest.raises(UnreadableError, match="broken"):
        source[3]


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (
            Words(groups=1),
            CorruptConfig(mismatch=0.5),
            "of 1 groups with 1 values of 'text' can't all exchange it",
        ),
        (Words(), CorruptConfig(mismatch=0.5, item="txt"), "no 'txt': did you mean 'text'"),
        (Words(), CorruptConfig(mismatch=0.5, kind="near", item="image"), "near needs texts"),
        (
            Stream(Words(groups=1)),
            CorruptConfig(mismatch=0.5),
            "of 1 groups with 1 values of 'text' can't all exchange it",
        ),
    ],
)
def test_what_can_not_be_corrupted_is_told(source: PairingSource, config: CorruptConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(corrupted(source, config, NAMES))


@pytest.mark.parametrize("count", [200, BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_the_samples_of_a_stream_exchange_items_too(count: int) -> None:
    """In blocks, and the last one is not left alone."""
    source = corrupted(Stream(Words(count, broken=3)), CorruptConfig(mismatch=0.4, dropout=0.1), NAMES)
    clean, noisy = list(Stream(Words(count, broken=3))), list(source)
    assert [one.key for one in noisy] == [one.key for one in clean]
    assert [one.key for one in source] == [one.key for one in clean]  # a second time
    pairs = [(one, other) for one, other in zip(clean, noisy, strict=True) if "text" in one.items]
    kept = [(one.items["text"], other.items["text"]) for one, other in pairs if "text" in other.items]
    assert len(kept) == pytest.approx(0.9 * len(pairs), abs=2)
    assert sum(one != other for one, other in kept) == pytest.approx(0.36 * len(pairs), rel=0.15)
    assert Counter(one for one, _ in kept).keys() >= Counter(other for _, other in kept).keys()


def test_each_block_of_a_stream_has_a_choice_of_its_own() -> None:
    clean = Words(2 * BLOCK)
    noisy = list(corrupted(Stream(clean), CorruptConfig(mismatch=0.4), NAMES))
    changed = [one.items != clean[i].items for i, one in enumerate(noisy)]
    halves = changed[:BLOCK], changed[BLOCK:]
    assert [sum(half) for half in halves] == pytest.approx([0.36 * BLOCK] * 2, abs=1)
    assert halves[0] != halves[1]


def test_an_oracle_trains_on_a_stream_without_the_mismatched() -> None:
    config = CorruptConfig(mismatch=0.4)
    clean, whole = Words(), list(corrupted(Stream(Words()), config, NAMES))
    rest = list(corrupted(Stream(Words()), config.model_copy(update={"drop": True}), NAMES))
    assert [one.key for one in rest] == [one.key for i, one in enumerate(whole) if one.items == clean[i].items]
    assert len(rest) == 200 - round(0.4 * 180)


def test_the_share_that_was_asked_for_loses_the_item() -> None:
    source = Corrupted(Words(), CorruptConfig(dropout=0.25), NAMES)
    check_pairing_source(source)
    assert source.dropped.sum() == round(0.25 * 180)
    for row in range(200):
        has_text = row % 10 != 9 and not source.dropped[row]
        assert ("text" in source[row].items) == ("text" in present(source, row)) == has_text


def test_so_many_words_of_a_text_become_words_of_other_texts() -> None:
    class Long(Words):
        def __getitem__(self, index: int) -> Sample:
            text = " ".join(f"w{index}_{place}" for place in range(40))
            return Sample(f"k{index}", {"image": index, "text": text})

        def has(self, index: int) -> tuple[str, ...]:
            return NAMES

    source = Corrupted(Long(), CorruptConfig(words=0.3, seed=4), NAMES)
    check_pairing_source(source)
    foreign = 0
    for row in range(200):
        words = source[row].items["text"].split()
        assert len(words) == 40
        strangers = [(place, word) for place, word in enumerate(words) if word != f"w{row}_{place}"]
        assert len({word.partition("_")[0] for _, word in strangers}) <= 1, "of one other text"
        foreign += len(strangers)
    assert foreign / 8000 == pytest.approx(0.3, abs=0.02)
    assert not source.mismatched.any()


def test_a_text_that_can_not_be_read_stays_as_it_is_and_costs_no_other() -> None:
    class Gone(Words):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, items={**sample.items, "text": Lazy("x", None)}) if index == 4 else sample

    for source in (Gone(), Stream(Gone())):
        noisy = corrupted(source, CorruptConfig(mismatch=0.3, words=0.5, seed=1), NAMES)
        texts = [sample.items.get("text") for sample in noisy]
        assert len(texts) == 200
        assert sum(isinstance(text, Lazy) for text in texts) == 1


def test_an_item_is_not_read_for_another_to_be_changed() -> None:
    class Asked(dict[str, object]):
        def __getitem__(self, name: str) -> object:
            assert name == "text"
            return super().__getitem__(name)

    class Films(Words):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, items=Asked(sample.items))

    for source in (Films(), Stream(Films())):
        noisy = corrupted(source, CorruptConfig(mismatch=0.3, words=0.5, dropout=0.2, seed=1), NAMES)
        samples = list(noisy)
        assert len(samples) == 200
        assert sum("text" in one.items for one in samples) == 144
        assert all("image" in one.items for one in samples)


@pytest.mark.parametrize("kind", ["uniform", "near"])
def test_texts_that_are_read_later_are_changed_as_others_are(kind: Kind, tmp_path: Path) -> None:
    class Later(Words):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            if "text" not in sample.items:
                return sample
            path = tmp_path / f"{index}.txt"
            path.write_text(sample.items["text"])
            later = path if index % 2 else Lazy(index, path.read_bytes())
            return replace(sample, items={**sample.items, "text": later})

    config = CorruptConfig(mismatch=0.3, words=0.5, kind=kind, seed=2)
    plain, later = Corrupted(Words(), config, NAMES), Corrupted(Later(), config, NAMES)
    assert (plain.mismatched == later.mismatched).all()
    for row in range(200):
        assert later[row].items == plain[row].items


def test_words_of_what_is_no_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"corrupt\.words needs a text, and 'image' is 'image'"):
        Corrupted(Words(), CorruptConfig(words=0.1, item="image"), NAMES)
