"""What ``join`` finds, against double loops: by text, time and place."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from mmssl_wrappers import matches
from mmssl_wrappers.matches import Block, choose, equal_texts, like_texts, near_numbers, near_places
from mmssl_wrappers.moments import parse_duration, parse_time

from .wrapping import refusal

MANY = ("all", "best", "first")
Score = Callable[[Any, Any], float | None]


def brute(left: Sequence[Any], right: Sequence[Any], score: Score, many: str) -> list[tuple[int, int, float]]:
    """Compare all with all in a double loop; no score is no match."""
    pairs = []
    for i, one in enumerate(left):
        found = [(j, value) for j, other in enumerate(right) if (value := score(one, other)) is not None]
        if many == "best":
            found = sorted(found, key=lambda pair: (-pair[1], pair[0]))
        pairs += [(i, j, value) for j, value in (found if many == "all" else found[:1])]
    return pairs


def agree(blocks: Callable[[str], Iterator[Block]], left: Sequence[Any], right: Sequence[Any], score: Score) -> int:
    """Check what is found against the double loop, and return the number of all pairs."""
    for many in MANY:
        i, j, found = choose(blocks(many), many)
        expected = brute(left, right, score, many)
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == [pair[:2] for pair in expected], many
        assert found.tolist() == pytest.approx([pair[2] for pair in expected], rel=1e-6, abs=1e-6)
    return len(brute(left, right, score, "all"))


def test_equal_texts_are_all_found() -> None:
    rng = random.Random(0)
    left, right = ([rng.choice("abcdefgh") for _ in range(size)] for size in (60, 40))
    blocks = lambda many: equal_texts(left, right[:30], once=many != "all")  # noqa: E731 - said once, used once
    assert agree(blocks, left, right[:30], lambda a, b: 1.0 if a == b else None) > 100


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.text("ab c", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=12),
    st.lists(st.text("ab c", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=12),
    st.sampled_from([1.0, 50.0, 200 / 3, 80.0, 90.0, 100.0]),
)
def test_like_texts_are_all_found(left: list[str], right: list[str], cutoff: float) -> None:
    def score(one: str, other: str) -> float | None:
        ratio = fuzz.token_sort_ratio(one, other)
        return ratio if ratio >= cutoff else None

    agree(lambda _: like_texts(left, right, cutoff), left, right, score)


def test_like_texts_of_many_lengths_are_all_found_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "QUERIES", 7)
    monkeypatch.setattr(matches, "BLOCK", 70)
    rng = random.Random(1)
    words = ["red", "green", "blue", "cup", "Tässe", "of tea", "x", "猫"]
    left = [" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(90)]
    right = [one[: rng.randint(max(1, len(one) - 3), len(one))] for one in rng.choices(left, k=70)]
    right = [one if one.strip() else "x" for one in right]

    def score(one: str, other: str) -> float | None:
        ratio = fuzz.token_sort_ratio(one, other)
        return ratio if ratio >= 85 else None

    assert agree(lambda _: like_texts(left, right, 85), left, right, score) > 100


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=20),
    st.lists(st.integers(-40, 40), min_size=1, max_size=20),
    st.integers(0, 30),
    st.booleans(),
)
def test_near_numbers_are_all_found(left: list[int], right: list[int], tolerance: int, whole: bool) -> None:
    # Quarters of a number, or microseconds of our time: differences are exact in both.
    scale, offset, kind = (1, 1_790_000_000_000_000, np.int64) if whole else (0.25, 0, np.float64)
    a, b = (np.array([one * scale + offset for one in side], kind) for side in (left, right))
    reach = tolerance * scale

    def score(one: Any, other: Any) -> float | None:
        return -abs(float(one - other)) if abs(one - other) <= reach else None

    agree(lambda many: near_numbers(a, b, reach, nearest=many == "best"), a, b, score)


def great_circle(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the metres between two places by the angle of their vectors, which is exact near and far."""
    x, y = ([math.cos(p) * math.cos(q), math.cos(p) * math.sin(q), math.sin(p)]
            for p, q in (map(math.radians, one) for one in (a, b)))  # fmt: skip
    cross = [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]]
    dot = sum(p * q for p, q in zip(x, y, strict=True))
    return matches.RADIUS * math.atan2(math.hypot(*cross), dot)


@pytest.mark.parametrize("metres", [0.0, 3.0, 150.0, 20_000.0, 3_000_000.0, 19_000_000.0, 30_000_000.0])
def test_near_places_are_all_found(metres: float) -> None:
    rng = random.Random(metres)
    centres = [(52.5, 13.4), (-17.0, 179.9999), (-17.0, -179.9999), (89.9999, 20.0), (-90.0, 0.0), (0.0, 0.0)]
    spread = min(metres / 111_000, 20)  # degrees

    def places(size: int) -> list[tuple[float, float]]:
        found = []
        while len(found) < size:
            north, east = rng.choice(centres)
            north, east = north + rng.gauss(0, spread), east + rng.gauss(0, spread)
            if (
                -90 <= north <= 90
            ):  # not cut off: at a pole all longitudes are one place, and rounding finds the nearest
                found.append((north, (east + 180) % 360 - 180))
        return found

    left, right = places(120), places(100)
    a, b = np.array(left), np.array(right)

    def score(one: Any, other: Any) -> float | None:
        away = great_circle(one, other)
        return -away if away <= metres else None

    if metres:
        i, j, away = choose(near_places(a, b, metres), "all")
        expected = brute(left, right, score, "all")
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == [pair[:2] for pair in expected]
        assert len(expected) > 100
        assert away.tolist() == pytest.approx([pair[2] for pair in expected], rel=1e-6, abs=1)
        first = choose(near_places(a, b, metres), "first")
        assert first[1].tolist() == [pair[1] for pair in brute(left, right, score, "first")]
        best = choose(near_places(a, b, metres), "best")
        assert best[1].tolist() == [pair[1] for pair in brute(left, right, score, "best")]
    else:
        i, j, _ = choose(near_places(a, b, 0.0), "all")
        assert set(zip(i.tolist(), j.tolist(), strict=True)) == {
            (p, q) for p, one in enumerate(left) for q, other in enumerate(right) if one == other
        }


def test_near_places_are_found_in_all_neighbours() -> None:
    rng = np.random.default_rng(5)
    sides = [np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 250))), rng.uniform(-180, 180, 250)], 1) for _ in "ab"]

    def score(one: Any, other: Any) -> float | None:
        away = great_circle(one, other)
        return -away if away <= 2e6 else None

    i, j, _ = choose(near_places(sides[0], sides[1], 2e6), "all")
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [pair[:2] for pair in brute(*sides, score, "all")]


def test_no_more_is_held_than_is_needed() -> None:
    def size(blocks: Iterator[Block]) -> int:
        return sum(len(block[0]) for block in blocks)

    assert size(equal_texts(["a"] * 5, ["a"] * 5, once=True)) == 5
    assert size(near_numbers(np.arange(9.0), np.arange(9.0) + 0.25, 5.0, nearest=True)) == 9


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "MOST", 20)
    assert "more than 20 pairs match" in refusal(lambda: choose(equal_texts(["a"] * 5, ["a"] * 5, once=False), "all"))
    assert len(choose(equal_texts(["a"] * 5, ["a"] * 5, once=True), "first")[0]) == 5


def test_durations_and_times_are_read_exactly() -> None:
    assert [parse_duration(one, "x") for one in ("5min", "1.5 h", "250ms", "2", ".5d", 7)] == [
        300, 5400, 0.25, 2, 43200, 7,
    ]  # fmt: skip
    for wrong in ("5 m", "-5min", "", "5 minutes", "min", "1e3s", "nan"):
        assert "5min" in refusal(lambda wrong=wrong: parse_duration(wrong, "x"))
    assert parse_time("1970-01-01T00:00:01.000001+00:00").at == 1_000_001
    assert parse_time("9999-12-31 23:59:59.999999").at == 253402300799999999
    assert parse_time(" 12.5 ") == parse_time(12.5)
    assert parse_time(float("nan")) is parse_time("  ") is None
