from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal_ssl import InputError, Manifest, MapSource, Sample, UnreadableError
from multimodal_ssl.config import DecoyConfig
from multimodal_ssl.data import Supply
from multimodal_ssl.decoys import choose_decoys, plant
from multimodal_ssl.testing import check_pairing_source

from .toys import Lazy, Stream, manifest_of

NAMES = ("image", "sound", "text")


class Things(MapSource):
    """Sample i has the items "image i", "sound i" and, but for every fifth, "text i"; `broken` can't be read."""

    modalities = dict.fromkeys(NAMES, "word")

    def __init__(self, count: int = 1200, *, per_group: int = 4, broken: int | None = None) -> None:
        self.count, self.per_group, self.broken = count, per_group, broken

    def __len__(self) -> int:
        return self.count

    def has(self, index: int) -> tuple[str, ...]:
        return NAMES[:2] if index % 5 == 4 else NAMES

    def manifest(self) -> Manifest:
        return manifest_of(self, self.has)

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise UnreadableError(f"k{index}", "broken")
        items = {name: f"{name} {index}" for name in Things.has(self, index)}
        return Sample(f"k{index}", items, f"g{index // self.per_group}")


class Backwards(Things):
    """The same samples in another order."""

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(self.count - 1 - index)

    def has(self, index: int) -> tuple[str, ...]:
        return super().has(self.count - 1 - index)


def runs(source: MapSource, judges: int, names: tuple[str, ...] = NAMES) -> list[MapSource]:
    """Return what each judge is given."""
    found = []
    for judge in range(judges):
        config = DecoyConfig(judges=judges, judge=judge)
        (supply,) = plant([Supply(source, names)], config, seed=3)
        assert isinstance(supply.source, MapSource)
        found.append(supply.source)
    return found


def changed(source: MapSource, index: int) -> dict[str, object]:
    """Return the items that are not the sample's own."""
    return {name: item for name, item in source[index].items.items() if item != f"{name} {index}"}


@pytest.mark.parametrize("judges", [2, 3])
def test_a_decoy_has_the_same_wrong_item_for_all_judges_but_its_own(judges: int) -> None:
    given = runs(Things(), judges)
    roles = choose_decoys([Supply(Things(), NAMES)], 0, DecoyConfig(judges=judges, judge=0), seed=3)
    for index in range(1200):
        wrong = [changed(one, index) for one in given]
        own = int(roles.judge[index])
        assert wrong[own] == {}
        others = [one for judge, one in enumerate(wrong) if judge != own]
        assert all(one == others[0] for one in others)
        assert (len(others[0]) == 1) == bool(roles.decoy[index])
        if others[0]:
            ((name, item),) = others[0].items()
            partner = int(str(item).removeprefix(f"{name} "))
            assert partner // 4 != index // 4, "of another group"
            assert roles.judge[partner] == own
            assert roles.decoy[partner]


def test_decoys_are_as_many_as_asked_for_and_exchange_every_item_of_three() -> None:
    source = runs(Things(), 2)[0]
    check_pairing_source(source)
    names = [name for index in range(1200) for name in changed(source, index)]
    assert len(names) == pytest.approx(0.1 * 1200, rel=0.25)
    assert set(names) == set(NAMES)
    for name in NAMES:
        items = [source[index].items.get(name) for index in range(1200)]
        assert len(set(items) - {None}) == (960 if name == "text" else 1200), "every item is still there, once"


def test_of_two_items_the_second_is_exchanged() -> None:
    source = runs(Things(), 2, NAMES[:2])[0]
    assert {name for index in range(1200) for name in changed(source, index)} == {"sound"}


def test_who_is_a_decoy_is_a_matter_of_the_key_and_the_seed() -> None:
    config = DecoyConfig(judges=2, judge=0)
    there = choose_decoys([Supply(Things(), NAMES)], 0, config, seed=3)
    back = choose_decoys([Supply(Backwards(), NAMES)], 0, config, seed=3)
    assert there.keys == back.keys[::-1]
    np.testing.assert_array_equal(there.judge, back.judge[::-1])
    np.testing.assert_array_equal(there.decoy, back.decoy[::-1])
    other = choose_decoys([Supply(Things(), NAMES)], 0, config, seed=4)
    assert (there.decoy & other.decoy).sum() < 0.5 * there.decoy.sum()


def test_an_unreadable_sample_is_no_decoy_and_stays_unreadable() -> None:
    roles = choose_decoys([Supply(Things(), NAMES)], 0, DecoyConfig(judges=2, judge=0), seed=3)
    broken = int(np.flatnonzero(roles.decoy)[0])
    for source in runs(Things(broken=broken), 2):
        with pytest.raises(UnreadableError, match="broken"):
            source[broken]
        others = [item for index in range(1200) if index != broken for item in changed(source, index).values()]
        assert others
        assert not {f"{name} {broken}" for name in NAMES} & set(others)


def test_no_decoy_has_what_it_had_though_it_lies_elsewhere(tmp_path: Path) -> None:
    class Files(Things):
        modalities = {"image": "image", "text": "text"}

        def __init__(self) -> None:
            super().__init__(600, per_group=1)
            for row in range(600):
                (tmp_path / f"{row}").write_text(f"{row % 3}")

        def has(self, index: int) -> tuple[str, ...]:
            return ("image", "text")

        def __getitem__(self, index: int) -> Sample:
            text = tmp_path / f"{index}" if index % 2 else Lazy(index, b"%d" % (index % 3))
            return Sample(f"k{index}", {"image": index, "text": text})

    source = Files()
    decoys = choose_decoys([Supply(source, ("image", "text"))], 0, DecoyConfig(judges=2, judge=0), seed=3)
    rows = np.flatnonzero(decoys.decoy)
    assert len(rows) > 100
    assert (rows % 3 != decoys.origin[rows] % 3).all()


def test_samples_of_one_group_are_no_decoys() -> None:
    for source in runs(Things(40, per_group=40), 2):
        assert not any(changed(source, index) for index in range(40))


def test_a_source_without_random_access_is_told() -> None:
    with pytest.raises(InputError, match="Stream has no random access to exchange partners by"):
        plant([Supply(Stream(Things()), NAMES)], DecoyConfig(judges=2, judge=0), seed=0)
