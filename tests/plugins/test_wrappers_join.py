"""The source ``join``: samples of two sources side by side, by text, time or place."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz import fuzz

from multimodal_ssl import MapSource, Sample, UnreadableError
from multimodal_ssl.testing import check_resume

from ..toys import Lazy
from .wrapping import Decoded, Listed, Sharded, check, keys, refusal, wrap


def photos(size: int = 12, group: str = "") -> list[Sample | None]:
    return [
        Sample(f"p+{i}", {"image": f"{i}"}, group, 0.5, {"item": f"n{i % 5}", "at": i * 60.0, "name": f"Red  cup {i}"})
        for i in range(size)
    ]


def sounds(size: int = 8) -> list[Sample | None]:
    return [
        Sample(
            f"s{i}", {"sound": f"{i}"}, f"g{i}", 0.5,
            {"thing": f"n{i % 4}", "at": i * 60.0 + 20, "name": f"cup {i} Red"},
        )
        for i in range(size)
    ]  # fmt: skip


def test_a_left_sample_has_as_many_partners_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    left, right = Listed(photos()), Listed([*sounds(), None, Sample("x", {"sound": "x"}, metadata={"thing": " "})])
    options = {"left": left, "right": right, "by": {"left": "item", "right": "thing"}}
    source = wrap("join", **options)
    check(source)
    check_resume(source)
    expected = [
        (one.key.replace("+", "%2B") + "+" + other.key, one.items["image"], other.items["sound"])
        for one in left.samples
        for other in right.samples
        if one and other and one.metadata["item"] == other.metadata["thing"]
    ]
    assert [(one.key, one.items["image"], one.items["sound"]) for one in source] == expected
    assert len(expected) == 20
    assert all(one.weight == 0.25 and one.metadata["thing"] == one.metadata["item"] for one in source)
    assert capsys.readouterr().err.splitlines() == [
        "join: 2 samples of left and 1 sample of right (1 of them with nothing to join by) left out, without a partner"
    ]
    assert list(source.skipped) == [("right/broken 8", "broken")]
    first = wrap("join", **options, many="first")
    assert keys(first) == keys(wrap("join", **options, many="best"))
    assert [one.items["sound"] for one in first] == [one.items["image"] if int(one.items["image"]) < 4 else
                                                     str(int(one.items["image"]) % 5) for one in first]  # fmt: skip
    assert len(first) == 10
    again = pickle.loads(pickle.dumps(source))
    assert list(again) == list(source)


def test_samples_that_share_a_row_are_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    bare = [replace(one, group="") if one else None for one in sounds()]
    options = {"by": {"left": "item", "right": "thing"}}
    for right in (bare, sounds()):
        source = wrap("join", left=Listed(photos()), right=Listed(right), **options)
        found = list(source)
        assert {one.group for one in found} == (
            {f"g{i}" for i in range(4)} if right is not bare else {f"like p%2B{i}+s{i}" for i in range(4)}
        )
        for one in found:
            assert {other.group == one.group for other in found if other.metadata["item"] == one.metadata["item"]} == {
                True
            }
    alone = wrap("join", left=Listed(photos(4)), right=Listed(bare[:4]), **options)
    assert [one.group for one in alone] == [""] * 4
    capsys.readouterr()
    grouped = wrap("join", left=Listed(photos(group="mine")), right=Listed(sounds()), **options)
    assert {one.group for one in grouped} == {"mine"}
    assert "one group" not in capsys.readouterr().err  # they were one before
    linked = wrap("join", left=Listed(photos()), right=Listed(bare), by="at", how="time", tolerance=90, many="all")
    assert len({one.group for one in linked}) == 1
    assert "join: 23 of 23 samples are one group, since they share" in capsys.readouterr().err


def test_groups_that_a_shared_row_links_become_one() -> None:
    left = [Sample(f"{i}", {"a": f"{i}"}, f"g{i}", metadata={"k": i // 2}) for i in range(4)]
    right = [Sample(f"{i}", {"b": f"{i}"}, metadata={"k": f"{i}"}) for i in range(2)]
    assert [one.group for one in wrap("join", left=Listed(left), right=Listed(right), by="k")] == [
        "g0",
        "g0",
        "g2",
        "g2",
    ]


def test_names_that_are_alike_weigh_by_how_alike_they_are() -> None:
    left, right = photos(), sounds()
    source = wrap("join", left=Listed(left), right=Listed(right), by="name", how="fuzzy", many="all", tolerance=85)
    check(source)
    check_resume(source)
    for one in source:
        ratio = fuzz.token_sort_ratio(str(one.metadata["name"]), str(one.metadata["name 2"]))
        assert ratio >= 85
        assert one.weight == pytest.approx(0.25 * ratio / 100)
    assert len(source) > 12
    best = wrap("join", left=Listed(left), right=Listed(right), by="name", how="fuzzy", tolerance=100)
    assert [(one.items["image"], one.items["sound"], one.weight) for one in best] == [
        (f"{i}", f"{i}", 0.25) for i in range(8)
    ]


def test_times_are_joined_to_the_nearest(tmp_path: Path) -> None:
    left, right = Listed(photos()), Listed(sounds())
    by_number = wrap("join", left=left, right=right, by="at", how="time", tolerance="0.5min")
    check(by_number)
    check_resume(by_number)
    assert [(one.items["image"], one.items["sound"]) for one in by_number] == [(f"{i}", f"{i}") for i in range(8)]
    start = datetime(2026, 3, 29)

    def dated(samples: list[Sample | None], form: Callable[[datetime], str]) -> Listed:
        return Listed([
            replace(one, metadata={"at": form(start + timedelta(seconds=float(one.metadata["at"] or 0)))})
            for one in samples if one
        ])  # fmt: skip

    # The same instants, written in two zones.
    dates = wrap(
        "join",
        left=dated(photos(), lambda one: one.isoformat() + "Z"),
        right=dated(sounds(), lambda one: (one + timedelta(hours=2)).isoformat(" ") + "+02:00"),
        by="at", how="time", tolerance="20s",
    )  # fmt: skip
    assert keys(dates) == keys(by_number)
    plain, zoned = dated(photos(), datetime.isoformat), dated(sounds(), lambda one: one.isoformat() + "Z")
    said = refusal(lambda: wrap("join", left=plain, right=zoned, by="at", how="time", tolerance=20))
    assert "a time without a zone in left, a time with a zone in right" in said
    said = refusal(lambda: wrap("join", left=plain, right=right, by="at", how="time", tolerance=20))
    assert "a number in right" in said
    said = refusal(lambda: wrap("join", left=left, right=right, by="at", how="time", tolerance=19.9))
    assert said == (
        "join: nothing matches (left has at such as 0.0, 60.0, 120.0; right has at such as 20.0, 80.0, 140.0); "
        "raise tolerance"
    )


def places(source: list[Sample | None], shift: float = 0.0) -> list[Sample | None]:
    return [
        replace(one, metadata={"lat": 50 + i / 100, "lon": f"{8 + shift}"}) if one else None
        for i, one in enumerate(source)
    ]


def test_places_are_joined_within_metres() -> None:
    left = Listed(places(photos()))
    right = Listed(places(sounds(), 0.001))  # 71 m to the east; the next is 1.1 km to the north
    source = wrap("join", left=left, right=right, by=["lat", "lon"], how="place", tolerance=100)
    check(source)
    check_resume(source)
    assert [(one.items["image"], one.items["sound"]) for one in source] == [(f"{i}", f"{i}") for i in range(8)]
    wide = wrap("join", left=left, right=right, by=["lat", "lon"], how="place", tolerance=1200, many="all")
    assert len(wide) == 8 * 3 - 1  # nothing is south of the first
    assert "raise tolerance" in refusal(
        lambda: wrap("join", left=left, right=right, by=["lat", "lon"], how="place", tolerance=70)
    )


def test_what_is_no_time_or_place_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    messy = ["0", "yesterday", "", None, float("nan"), "1e999", "60", "2026-13-01"]
    left = [Sample(f"{i}", {"a": "x"}, metadata={"at": one}) for i, one in enumerate(messy)]
    source = wrap("join", left=Listed(left), right=Listed(sounds()), by="at", how="time", tolerance=30)
    assert keys(source) == ["0+s0", "6+s1"]
    assert [key for key, _ in source.skipped] == ["left/1", "left/5", "left/7"]
    assert all("at: " in reason for _, reason in source.skipped)
    assert "3 samples of left (3 of them with nothing to join by) and 6 samples" in capsys.readouterr().err
    messy_places = [("50", "8.001"), ("91", "0"), ("50", ""), ("fifty", "8"), ("50", "361"), (None, None)]
    left = [Sample(f"{i}", {"a": "x"}, metadata={"lat": a, "lon": b}) for i, (a, b) in enumerate(messy_places)]
    source = wrap(
        "join", left=Listed(left), right=Listed(places(sounds())), by=["lat", "lon"], how="place", tolerance=99
    )
    assert keys(source) == ["0+s0"]
    assert [key for key, _ in source.skipped] == ["left/1", "left/3", "left/4"]
    only = Listed([Sample("1", {"a": "x"}, metadata={"at": "noon"})])
    said = refusal(lambda: wrap("join", left=only, right=Listed(sounds()), by="at", how="time", tolerance=30))
    assert "no sample of left has at that can be read, e.g. left/1: at: 'noon' is neither" in said
    said = refusal(lambda: wrap("join", left=Listed([None], {"a": "text"}), right=Listed(sounds()), by="at"))
    assert "no sample of left has at that can be read, e.g. left/broken 0: broken" in said


def test_keys_and_texts_of_files_can_be_joined_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeff s3\n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    notes = {name: tmp_path / f"{name}.txt" for name in "abc"} | {"d": Lazy(0, b"s4 "), "e": Lazy(1, None)}
    left = Listed([Sample(name, {"note": note}) for name, note in notes.items()])
    source = wrap("join", left=left, right=Listed(sounds()), by={"left": "note", "right": "key"})
    assert keys(source) == ["a+s3", "d+s4"]
    assert [key for key, _ in source.skipped] == ["left/b", "left/c", "left/e"]


def test_to_join_by_metadata_decodes_nothing_and_what_is_damaged_is_told_by_the_key_of_the_pair() -> None:
    films = [Sample(f"f{i}", Decoded(clip=i or None), metadata={"item": f"n{i}"}) for i in range(4)]
    right = Listed([Sample(f"s{i}", {"sound": f"{i}"}, metadata={"item": f"n{i}"}) for i in range(4)])
    before = Decoded.looks
    left = Listed(films, {"clip": "video"})
    joined = wrap("join", left=left, right=right, by="item", rename={"sound": "voice"})
    paired = wrap("co-label", sources={"films": left, "sounds": right}, label="item")
    samples = [pickle.loads(pickle.dumps(one)) for one in (joined[1], paired[1], joined[0])]
    assert Decoded.looks == before
    assert samples[0].items == {"clip": 1, "voice": "1"}
    assert samples[1].items == {"clip": 1, "sound": "1"}
    with pytest.raises(UnreadableError, match=r"^f0\+s0: damaged$"):
        samples[2].items["clip"]
    with pytest.raises(UnreadableError, match=r"^0/f0: damaged$"):
        wrap("mix", sources=[left, left])[0].items["clip"]
    left.samples = [None, *films[1:]]  # gone since
    with pytest.raises(UnreadableError, match=r"^broken 0\+s0: broken$"):
        joined[0]


def test_items_of_one_name_need_another() -> None:
    left, right = Listed(photos()), Listed([replace(one, items={"image": "y"}) for one in sounds() if one])
    options = {"left": left, "right": right, "by": {"left": "item", "right": "thing"}}
    assert "items of two sources are called 'image'; give those of right" in refusal(lambda: wrap("join", **options))
    source = wrap("join", **options, rename={"image": "other"})
    check(source)
    assert source.modalities == {"image": "text", "other": "text"}
    said = refusal(lambda: wrap("join", **options, rename={"imag": "other"}))
    assert "join.rename: the source has no items 'imag': did you mean 'image'?" in said


def test_a_join_that_can_t_be_is_refused() -> None:
    def said(**options: Any) -> str:
        left: MapSource = Listed(photos())
        return refusal(lambda: wrap("join", **{"left": left, "right": Listed(sounds()), **options}))

    assert "join: right is Sharded, which has no random access" in said(
        right=Sharded([one for one in sounds() if one]), by="key"
    )
    assert "join.by, left: no sample has 'itm': did you mean 'item'?" in said(by={"left": "itm", "right": "thing"})
    assert "spell them alike, or use how: fuzzy" in said(by="key")
    assert "lower tolerance" in said(by="key", how="fuzzy", tolerance=99)
    assert "give one name for how: key" in said(by=["at", "name"])
    assert "give one name" in said(by={"left": "at"})
    assert "the names of latitude and longitude" in said(by="at", how="place", tolerance=3)
    assert "takes equal texts; leave it out" in said(by="at", tolerance=3)
    assert "join.tolerance is missing: how: time needs seconds" in said(by="at", how="time")
    assert "join.tolerance is missing: how: place needs metres" in said(by=["a", "b"], how="place")
    assert "join.tolerance is '5km': give metres" in said(by=["a", "b"], how="place", tolerance="5km")
    assert "a similarity above 0 and up to 100" in said(by="name", how="fuzzy", tolerance=0)
    for wrong in (-1, math.inf, math.nan):
        assert "0 or more" in said(by="at", how="time", tolerance=wrong)
    assert "option how" in said(by="at", how="near")
