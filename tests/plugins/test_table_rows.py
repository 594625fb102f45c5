"""Rows of the pairing source ``table``: keys, groups, metadata, weights, and which of them are taken."""

from __future__ import annotations

import datetime
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mmssl_sources import formats
from multimodal_ssl import Sample
from multimodal_ssl.testing import check_pairing_source

from .tables import FORMATS, open_table, pairs, quick, refusal, write


def test_an_index_beyond_the_end_raises_index_error(tmp_path: Path) -> None:
    source = open_table(write(tmp_path / "t.csv", pairs()))
    with pytest.raises(IndexError):
        source[4]


def test_random_access_across_row_groups_finds_the_right_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [{"id": i, "file": rng.bytes(5), "caption": f"c{i}", "keep": bool(i % 3)} for i in range(997)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=50)
    source = open_table(tmp_path / "t.parquet", key="id", where={"keep": True})
    kept = [row for row in rows if row["keep"]]
    for index in rng.permutation(len(kept)):
        row = kept[index]
        assert source[index] == Sample(str(row["id"]), {"image": row["file"], "text": row["caption"]})


def test_without_a_key_a_row_is_known_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", pairs())
    assert [sample.key for sample in open_table(path, where={"id": ["001", "003"]})] == ["1", "3"]


@pytest.mark.parametrize("suffix", FORMATS)
@quick
@given(
    kinds=st.lists(st.sampled_from(["good", "good", "long", "bad", "blank"]), max_size=40), block=st.integers(40, 90)
)
def test_keys_and_skipped_count_the_same_rows_bad_ones_too_but_no_blank_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kinds: list[str], block: int
) -> None:
    monkeypatch.setattr(formats, "_BLOCK", block)
    monkeypatch.setattr(formats, "_ROWS", 3)
    kinds = [*(kind for kind in kinds if suffix != "parquet" or kind in ("good", "long")), "good"]
    rows = [{"kind": kind, "caption": str(i)} for i, kind in enumerate(kind for kind in kinds if kind != "blank")]
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        write(path, rows)
    else:
        numbered, tab = iter(rows), "\t" if suffix == "tsv" else ","
        lines = [] if suffix == "jsonl" else [f"kind{tab}caption"]
        for kind in kinds:
            if kind == "blank":
                lines.append("")
            elif suffix == "jsonl":
                lines.append(json.dumps(next(numbered)) if kind != "bad" else next(numbered)["kind"])
            else:
                cell = next(numbered)["caption"]
                lines.append({"bad": "bad", "long": f'"lo\nng"{tab}{cell}'}.get(kind, f"good{tab}{cell}"))
        path.write_text("\n".join(lines) + "\n")
    source = open_table(path, {"text": "caption"})
    assert [sample.key for sample in source] == [row["caption"] for row in rows if row["kind"] != "bad"]
    assert [sample.key for sample in source] == [sample.items["text"] for sample in source]
    bad = [f"row {row['caption']} (from 0)" for row in rows if row["kind"] == "bad"]
    assert [place for place, _ in source.skipped] == bad


def test_the_row_that_a_refusal_names_is_counted_as_keys_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,caption,w\n0,c,1\nbad\n\n,c,2\n")
    assert "e.g. row 2 (from 0)" in refusal(tmp_path / "t.csv", {"text": "caption"}, key="id")
    assert "of row '2' is '2', not in (0, 1]" in refusal(tmp_path / "t.csv", {"text": "caption"}, weight="w")


def test_repeated_and_empty_keys_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "k": k} for row, k in zip(pairs(7), ["a", "b", "a", "c", "b", "", "d"], strict=True)]
    path = write(tmp_path / "t.csv", rows)
    assert "rows without a key in 'k': 1, e.g. row 5" in refusal(path, key="k")
    assert refusal(path, key="k", limit=5).endswith("keys that 'k' gives to more than one row: 2, e.g. 'a', 'b'")
    assert len(open_table(path, key="k", limit=2)) == 2


def test_groups_are_strings_and_none_is_no_group(tmp_path: Path) -> None:
    rows = [{"caption": "c", "g": g} for g in (7, None, 7)]
    source = open_table(write(tmp_path / "t.parquet", rows), {"text": "caption"}, group="g")
    assert [sample.group for sample in source] == ["7", "", "7"]
    rows = [{"caption": "c", "g": g} for g in (7.5, math.nan, None, 7.5, math.nan)]
    source = open_table(write(tmp_path / "u.parquet", rows), {"text": "caption"}, group="g")
    assert [sample.group for sample in source] == ["7.5", "", "", "7.5", ""]
    numbers = source.manifest().group
    assert numbers is not None
    assert len(set(numbers.tolist())) == 4


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_metadata_are_plain_values_beside_the_items(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"caption": "c", "licence": "CC0", "year": 1999, "score": 0.25, "sold": True, "id": "007"},
        {"caption": "d", "licence": None, "year": None, "score": None, "sold": None, "id": "008"},
        {"caption": "e", "licence": "", "year": 0, "score": -0.0, "sold": False, "id": "009"},
    ]
    names = ["licence", "year", "score", "sold", "caption", "id"]
    path = write(tmp_path / f"t.{suffix}", rows)
    source = open_table(path, {"text": "caption"}, key="id", metadata=names)
    check_pairing_source(source)
    for row, sample in zip(rows, source, strict=True):
        assert sample.metadata == {name: row[name] for name in names}
        assert [type(value) for value in sample.metadata.values()] == [type(row[name]) for name in names]
        assert sample.items == {"text": row["caption"]}
    assert list(pickle.loads(pickle.dumps(source))) == list(source)
    assert open_table(path, {"text": "caption"})[0].metadata == {}


def test_metadata_of_csv_are_strings_to_the_last_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"caption": "c", "year": "01999", "score": "1.50"}])
    assert open_table(path, {"text": "caption"}, metadata=["score", "year"])[0].metadata == {
        "score": "1.50",
        "year": "01999",
    }


def test_metadata_that_are_neither_numbers_nor_text_become_text_if_they_can(tmp_path: Path) -> None:
    rows = [{"caption": "c", "day": datetime.date(2020, 1, 2), "tags": ["a"], "none": None}]
    path = write(tmp_path / "t.parquet", rows)
    assert open_table(path, {"text": "caption"}, metadata=["day"])[0].metadata == {"day": "2020-01-02"}
    assert "'tags' holds list" in refusal(path, {"text": "caption"}, metadata=["tags"])
    assert "no row has anything in column 'none'" in refusal(path, {"text": "caption"}, metadata=["none"])


def test_metadata_are_those_of_the_rows_that_are_left(tmp_path: Path) -> None:
    rows = [{"caption": str(i), "n": i, "odd": i % 2} for i in range(8)]
    path = write(tmp_path / "t.parquet", rows)
    source = open_table(path, {"text": "caption"}, metadata=["n"], where={"odd": 1}, limit=3)
    assert [(sample.items["text"], sample.metadata["n"]) for sample in source] == [("1", 1), ("3", 3), ("5", 5)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_unknown_column_of_metadata_is_refused_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", pairs())
    assert "no column 'captoin': did you mean 'caption'?" in refusal(path, metadata=["w", "captoin"])
    assert "option metadata: " in refusal(path, metadata="caption")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("weight", [0.0, 1.5, -1.0, float("nan"), None])
def test_weights_outside_their_range_are_refused(tmp_path: Path, suffix: str, weight: float | None) -> None:
    rows = pairs()
    rows[2]["w"] = weight
    assert "of row '002' is" in refusal(write(tmp_path / f"t.{suffix}", rows), key="id", weight="w")


def test_weights_of_csv_are_read_as_numbers_or_refused(tmp_path: Path) -> None:
    rows = [{"caption": "c", "w": w} for w in (" 1", ".5", "5e-1", "1.")]
    path = write(tmp_path / "t.csv", rows)
    assert [sample.weight for sample in open_table(path, {"text": "caption"}, weight="w")] == [1, 0.5, 0.5, 1]
    path = write(tmp_path / "t.csv", [*rows, {"caption": "c", "w": "high"}])
    assert "of row '4' is 'high', not in (0, 1]" in refusal(path, {"text": "caption"}, weight="w")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("where", "expected"),
    [({"n": 1}, "1"), ({"n": "1"}, "1"), ({"n": ["2", 0]}, "02"), ({"s": ["x"], "n": [0, 1]}, "0"), ({}, "0123")],
)
def test_where_keeps_the_rows_with_these_values(
    tmp_path: Path, suffix: str, where: dict[str, Any], expected: str
) -> None:
    rows = [{"caption": "c", "n": i, "s": "xyxy"[i]} for i in range(4)]
    source = open_table(write(tmp_path / f"t.{suffix}", rows), {"text": "caption"}, where=where)
    assert "".join(sample.key for sample in source) == expected


def test_where_and_limit_that_leave_nothing_are_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"caption": "c", "n": 1, "split": "train"}])
    columns = {"text": "caption"}
    assert "did you mean 'split'?" in refusal(path, columns, where={"spilt": "train"})
    assert "no row is left of 1" in (message := refusal(path, columns, where={"split": "Train"}))
    assert "the first row has {'split': 'train'}" in message
    assert "where.n is 'one', but the column" in refusal(path, columns, where={"n": "one"})
    for limit in (0, -1):
        assert "option limit: Input should be greater than or equal to 1" in refusal(path, columns, limit=limit)


@pytest.mark.parametrize("suffix", FORMATS)
def test_limit_counts_the_rows_that_pass_where(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_ROWS", 4)
    monkeypatch.setattr(formats, "_BLOCK", 100)
    rows = [{"caption": "c", "odd": i % 2} for i in range(40)]
    path = write(tmp_path / f"t.{suffix}", rows)
    for limit in (1, 7, 19, 20, 21):
        source = open_table(path, {"text": "caption"}, where={"odd": 1}, limit=limit)
        assert [sample.key for sample in source] == [str(i) for i in range(1, 40, 2)][:limit]


def test_rows_that_are_left_out_are_not_kept_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"file": bytes(1000), "caption": str(i)} for i in range(500)])
    for options in ({"limit": 2}, {"where": {"caption": ["3", "4"]}}):
        assert len(pickle.dumps(open_table(path, **options))) < 6000
