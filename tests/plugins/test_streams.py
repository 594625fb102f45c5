"""The pairing source ``streams``, against loops over readings."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Catalog, InputError, MapSource
from multimodal_ssl.testing import check_pairing_source

from .tables import write

Rows = list[dict[str, Any]]


def open_streams(**options: Any) -> MapSource:
    source = Catalog.discover().create("pairing_sources", "streams", options=options)
    assert isinstance(source, MapSource)
    return source


def refusal(**options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_streams(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def slow_value(readings: list[tuple[int, float]], point: int, method: str, tolerance: int) -> float:
    """Return the value at a grid point, reading by reading; readings are (ms, value), none missing, in order."""
    if method == "mean":
        some = [value for time, value in readings if -tolerance <= time - point < tolerance]
        return sum(some) / len(some) if some else math.nan
    before = [one for one in readings if one[0] <= point][-1:]
    after = [one for one in readings if one[0] >= point][:1]
    before = [one for one in before if point - one[0] <= tolerance]
    after = [one for one in after if one[0] - point <= tolerance]
    if method == "nearest":
        return min(before + after, key=lambda one: abs(one[0] - point), default=(0, math.nan))[1]
    if not before or not after:
        return math.nan
    (start, low), (end, high) = before[0], after[0]
    return low if start == end else low + (high - low) * (point - start) / (end - start)


def messy(rng: np.random.Generator, count: int, places: str = "pq") -> Rows:
    """Return readings at odd times with gaps and missing cells, in no order; no time is there twice in a place."""
    rows: Rows = []
    for place in places:
        times = rng.choice(20_000, count, replace=False) + 40_000 * (rng.random(count) < 0.3)
        rows += [
            {"t": int(time), "place": place, "x": round(float(x), 3), "y": None if rng.random() < 0.3 else float(time)}
            for time, x in zip(times, rng.normal(size=count), strict=True)
        ]
    return [rows[one] for one in rng.permutation(len(rows))]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("method", ["nearest", "linear", "mean"])
@pytest.mark.parametrize(("stride", "tolerance", "offset"), [(2000, 130, 0), (500, 400, -370), (333, 90, 1234)])
def test_windows_are_those_of_loops_over_readings(
    tmp_path: Path, suffix: str, method: str, stride: int, tolerance: int, offset: int
) -> None:
    rng = np.random.default_rng(stride)
    tables = {name: messy(rng, 150) for name in "ab"}
    paths = {name: write(tmp_path / f"{name}.{suffix}", rows) for name, rows in tables.items()}
    source = open_streams(
        streams={
            "a": {"path": paths["a"], "columns": ["x", "y"], "step": "250ms"},
            "b": {"path": paths["b"], "columns": ["y"], "rate": 2, "offset": f"{offset}ms", "tolerance": "333ms"},
        },
        time="t", unit="ms", by="place", window=2, stride=f"{stride}ms", resample=method, tolerance=f"{tolerance}ms",
        max_missing=0.9, start=1,
    )  # fmt: skip
    check_pairing_source(source, limit=20)
    expected: dict[str, dict[str, np.ndarray]] = {}
    plan = [("a", "x", 250, tolerance, 0), ("a", "y", 250, tolerance, 0), ("b", "y", 500, 333, offset)]
    for place in "pq":
        for start in range(1000, 70_000, stride):
            items: dict[str, list[list[float]]] = {}
            for name, column, step, near, shift in plan:
                readings = sorted(
                    (row["t"] + shift, row[column])
                    for row in tables[name]
                    if row["place"] == place and row[column] is not None and row["t"] + shift >= 1000
                )
                grid = range(start, start + 2000, step)
                items.setdefault(name, []).append([slow_value(readings, point, method, near) for point in grid])
            arrays = {name: np.array(item) for name, item in items.items()}
            kept = {name: item for name, item in arrays.items() if np.isnan(item).mean() <= 0.9}
            if kept:
                expected[f"{place}/{start / 1000:g}"] = kept
    found = {sample.key: sample.items for sample in source}
    assert list(found) == list(expected)
    manifest = source.manifest()
    assert manifest.length is not None
    for row, (key, items_of) in enumerate(expected.items()):
        assert found[key].keys() == items_of.keys()
        for at, name in enumerate("ab"):
            assert manifest.present[row, at] == (name in items_of)
            if name in items_of:
                assert found[key][name].dtype == np.float32
                np.testing.assert_allclose(found[key][name], items_of[name], rtol=1e-5, atol=1e-5)
                share = 1 - np.isnan(items_of[name]).mean()
                assert manifest.length[row, at] == pytest.approx(2 * share, abs=1e-5)
    assert len(expected) > 10
    again = pickle.loads(pickle.dumps(source))
    assert all(np.array_equal(again[3].items[name], source[3].items[name], equal_nan=True) for name in source[3].items)


HOURS = [f"2024-10-26T{hour:02}:00" for hour in range(24)]


def hourly(times: list[Any], **more: Any) -> Rows:
    return [{"t": time, "x": float(at), **more} for at, time in enumerate(times)]


def pair(tmp_path: Path, rows: Rows, others: Rows, suffix: str = "csv", **options: Any) -> dict[str, Any]:
    streams = {
        name: {"path": write(tmp_path / f"{name}.{suffix}", some), "columns": ["x"], **options.pop(name, {})}
        for name, some in (("a", rows), ("b", others))
    }
    return {"streams": streams, "time": "t", "window": "4h", **options}


def test_all_ways_to_write_a_time_give_the_same_windows(tmp_path: Path) -> None:
    plain = hourly(HOURS)
    split = [{"date": t[:10], "clock": t[11:], "x": x} for t, x in ((row["t"], row["x"]) for row in plain)]
    parts = [{"y": 2024, "m": 10, "d": 26, "h": hour, "x": float(hour)} for hour in range(24)]
    local = [{"t": row["t"].replace("-", "/").replace("T", " "), "x": row["x"]} for row in plain]
    stamps = [{"t": 1729900800 + 3600 * hour, "x": float(hour)} for hour in range(24)]
    zoned = [{"t": f"2024-10-26 {hour:02}:00:00+02:00", "x": float(hour)} for hour in range(24)]
    naive, utc = "2024-10-26T00:00:00", "2024-10-25T22:00:00Z"
    for rows, options, first in (
        (plain, {}, naive), (split, {"time": ["date", "clock"]}, naive), (parts, {"time": ["y", "m", "d", "h"]}, naive),
        (local, {"format": "%Y/%m/%d %H:%M"}, naive), (zoned, {}, utc), (plain, {"zone": "Europe/Berlin"}, utc),
        (stamps, {}, "1729900800"), ([{**row, "t": row["t"] * 1000} for row in stamps], {"unit": "ms"}, "1729900800"),
    ):  # fmt: skip
        for suffix in ("csv", "parquet"):
            source = open_streams(**pair(tmp_path, rows, rows, suffix, **options))
            assert len(source) == 6
            assert source[1].items["a"].tolist() == [[4, 5, 6, 7]]
            assert source[0].key == first


def test_hours_that_clocks_have_twice_or_never_are_left_out_and_told(tmp_path: Path) -> None:
    times = [f"2024-10-27T{hour:02}:30" for hour in range(8)]
    source = open_streams(
        **pair(tmp_path, hourly(times), hourly(times), zone="Europe/Berlin", window="3h", start=times[0])
    )
    assert "1 times that exist twice or never in Europe/Berlin" in str(source.skipped)
    # 00:30 and 01:30 are of summer, an hour that exists twice is unknown, and so is the one that nobody wrote.
    series = np.concatenate([sample.items["a"][0] for sample in source])
    np.testing.assert_array_equal(series[:6], [0, 1, math.nan, math.nan, 3, 4])


def test_what_can_t_be_read_is_told_and_a_time_that_is_there_twice_counts_as_one(tmp_path: Path) -> None:
    rows = [
        *hourly(HOURS[:8]), {"t": "2024-02-30", "x": 1}, {"t": "", "x": 1}, {"t": HOURS[8], "x": "broken"},
        {"t": HOURS[9], "x": "N/A"}, {"t": HOURS[2], "x": 4}, {"t": HOURS[10], "x": -999}, {"t": HOURS[11], "x": "inf"},
    ]  # fmt: skip
    for which, value in ((None, 3.0), ("first", 2.0), ("last", 4.0)):
        more = {"repeated": which} if which else {}
        source = open_streams(**pair(tmp_path, rows, hourly(HOURS), missing=[-999], max_missing=1, **more))
        assert source[0].items["a"].tolist() == [[0, 1, value, 3]]
        assert set(source[2].items) == {"b"}
        told = str(source.skipped)
        assert "2 times that can't be read, e.g. row 8 (from 0): ['2024-02-30']" in told
        assert "2 cells of 'x' that are no numbers" in told
        assert "1 readings have the time of another one, e.g. 2024-10-26T02:00:00" in told


def test_groups_places_limits_and_streams_that_belong_to_all_places(tmp_path: Path) -> None:
    rows = hourly(HOURS, place="p") + hourly(HOURS[:8], place="q")
    options = pair(tmp_path, rows, hourly(HOURS), b={"by": []}, by="place", start="2024-10-26T04:00", end=HOURS[20])
    by_time, by_place, alone = (open_streams(**options, group=group) for group in ("time", "place", None))
    keys = [sample.key for sample in alone]
    assert keys == [f"p/2024-10-26T{hour:02}:00:00" for hour in (4, 8, 12, 16)] + [
        f"q/2024-10-26T{hour:02}:00:00" for hour in (4, 8, 12, 16)
    ]
    assert [set(sample.items) for sample in alone][4:] == [{"a", "b"}, {"b"}, {"b"}, {"b"}]
    assert alone.manifest().group is None
    for source in (by_time, by_place):
        groups, numbers = [sample.group for sample in source], source.manifest().group
        assert numbers is not None
        assert [[a == b for b in groups] for a in groups] == (numbers[:, None] == numbers).tolist()
    assert by_place[5].group == "q"
    assert by_time[0].group == by_time[4].group == "2024-10-26T04:00:00"
    assert alone[0].metadata == {"place": "p"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"a": {"colums": ["x"]}}, "streams.a has no option 'colums': did you mean 'columns'?"),
        ({"a": {"columns": ["z"]}}, "has no column 'z'"),
        ({"a": {"columns": []}}, "streams.a.columns"),
        ({"a": {"step": "1 fortnight"}}, "streams.a.step is '1 fortnight': there is no unit 'fortnight'"),
        ({"a": {"step": 3600, "rate": 1}}, "give step or rate, not both"),
        ({"a": {"resample": "cubic"}}, "streams.a.resample"),
        ({"a": {"offset": "10w"}}, "a is from 2025-01-04T00:00:00 to 2025-01-04T23:00:00, b is from 2024-10-26T00:00"),
        ({"a": {"zone": "UTC"}}, "the times of stream 'b' name no zone, those of 'a' are of one"),
        ({"zone": "Mars/Base"}, "zone is 'Mars/Base', which is no time zone"),
        ({"window": "5h", "step": "2h"}, "the window of 5h is no multiple of the step of 'a', 2h"),
        ({"window": 0}, "window and stride must be more than 0"),
        ({"window": "soon"}, "window is 'soon': expected seconds"),
        ({"start": "2025-01-01"}, "they are from 2024-10-26T00:00:00 to 2024-10-26T23:00:00"),
        ({"start": "later"}, "start is 'later': expected seconds, or a time in ISO 8601"),
        ({"start": "2024-10-26", "end": "2024-10-26"}, "the end must be later"),
        ({"time": ["t"] * 7}, "not 7"),
        ({"a": {"by": "x"}, "by": ["x", "t"]}, "give as many columns"),
        ({"where": {"x": -1}}, "no reading is left of 0 rows"),
        ({"stride": "1ns"}, "give a longer stride"),
    ],
)
def test_what_can_t_be_is_told(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    options = pair(tmp_path, hourly(HOURS), hourly(HOURS), "parquet", **change)
    assert expected in refusal(**options)


def test_places_that_nobody_told_apart_are_asked_for(tmp_path: Path) -> None:
    rows = [row for place in "pqr" for row in hourly(HOURS, place=place)]
    options = pair(tmp_path, rows, rows)
    assert "48 of 72 readings have the time of another one" in refusal(**options)
    assert len(open_streams(**options, by="place")) == 18
    assert len(open_streams(**options, repeated="first")) == 6


def test_a_clock_that_was_reset_makes_no_windows_between(tmp_path: Path) -> None:
    rows = [{"t": 0, "x": 1.0}, *({"t": 1729900800 + at, "x": 1.0} for at in range(10))]
    source = open_streams(**{**pair(tmp_path, rows, rows, "parquet"), "window": 2, "step": 1})
    assert [sample.key for sample in source] == ["0"] + [str(1729900800 + at) for at in range(0, 10, 2)]
