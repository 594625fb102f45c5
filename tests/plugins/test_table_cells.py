"""Cells of the pairing source ``table``: text, paths, lists of numbers, nothing."""

from __future__ import annotations

import csv
import io
import json
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

from ..toys import present
from .tables import FORMATS, SERIES, open_table, quick, reason, refusal, write


@quick
@given(rows=st.lists(st.tuples(st.text(max_size=6), st.text('a,;"\n\r\t \\', max_size=6)), min_size=1, max_size=8))
@pytest.mark.parametrize("dialect", ["excel", "excel-tab"])
def test_cells_of_csv_are_what_the_csv_module_wrote(tmp_path: Path, dialect: str, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, dialect=dialect).writerows([("key", "one", "two"), *((i, *row) for i, row in enumerate(rows))])
    path = tmp_path / ("t.csv" if dialect == "excel" else "t.tsv")
    path.write_bytes(text.getvalue().encode())
    columns = {name: {"column": name, "modality": "text"} for name in ("one", "two")}
    source = open_table(path, columns, key="key")
    assert not source.skipped
    assert len(source) == len(rows)
    for index, row in enumerate(rows):
        expected = {name: cell for name, cell in zip(columns, row, strict=True) if cell.strip()}
        assert present(source, index) == set(expected)
        if expected:
            assert source[index].items == expected


cells = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="["), max_size=5),
    st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(-9, 9)), max_size=3),
)


@quick
@given(rows=st.lists(cells, min_size=1, max_size=12), block=st.integers(1, 60))
def test_a_column_of_jsonl_may_mix_paths_lists_and_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], block: int
) -> None:
    monkeypatch.setattr(formats, "_BLOCK", block)
    path = write(tmp_path / "t.jsonl", [{"x": cell, "caption": "c"} for cell in rows])
    if all(cell is None for cell in rows):
        assert "no row has anything in column 'x'" in refusal(path, {"series": "x", "text": "caption"})
        return
    source = open_table(path, {"series": {"column": "x"}, "text": "caption"})
    for index, cell in enumerate(rows):
        there = bool(cell.strip() if isinstance(cell, str) else cell)
        assert present(source, index) == ({"series", "text"} if there else {"text"})
        if there and isinstance(cell, str):
            assert source[index].items["series"] == tmp_path / cell
        elif there:
            np.testing.assert_array_equal(source[index].items["series"], np.array(cell, np.float64))


def test_all_cells_of_csv_are_strings_to_the_last_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"id": "007", "file": "1e3", "caption": "0.50", "g": "01"}])
    assert open_table(path, key="id", group="g")[0] == Sample(
        "007", {"image": tmp_path / "1e3", "text": "0.50"}, group="01"
    )


def test_numbers_are_text_for_the_modality_text_and_numbers_for_others(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"a": 7, "b": 2.5, "c": True}])
    source = open_table(path, {"text": "a", "series": "b", "flag": "c"})
    assert source[0].items == {"text": "7", "series": 2.5, "flag": True}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_cells_without_anything_are_absent(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"text": " \t\u00a0\u3000\n", "path": "", "list": [], "number": float("nan")},
        {"text": "", "path": "  ", "list": None, "number": None},
        {"text": "null", "path": "NaN", "list": [None], "number": 0.0},
    ]
    columns = {"text": "text", "image": "path", "series": "list", "n": "number"}
    source = open_table(write(tmp_path / f"t.{suffix}", rows), columns)
    assert [present(source, index) for index in range(3)] == [set(), set(), set(columns)]
    assert "no text and no image" in reason(source, 0)


def test_no_bytes_are_no_item(tmp_path: Path) -> None:
    rows = [{"file": cell, "caption": "c"} for cell in (b"", None, b"\x89PNG")]
    source = open_table(write(tmp_path / "t.parquet", rows))
    assert [len(present(source, index)) for index in range(3)] == [1, 1, 2]
    assert source[2].items["image"] == b"\x89PNG"


def test_paths_start_from_the_folder_of_the_table_or_from_root(tmp_path: Path) -> None:
    rows = [{"file": file, "caption": "c"} for file in ("a/b.png", "../b.png", "/data/b.png", "C://b.png")]
    path = write(tmp_path / "t.csv", rows)
    for root in (tmp_path, Path("elsewhere")):
        source = open_table(path, root=None if root == tmp_path else root)
        assert [sample.items["image"] for sample in source] == [root / row["file"] for row in rows]


def test_the_option_path_says_what_a_string_is(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"file": "[1] a.txt", "caption": "b"}])
    columns = {
        "text": {"column": "file", "path": True},
        "image": {"column": "file", "path": True},
        "molecule": {"column": "caption", "path": False},
    }
    items = open_table(path, columns)[0].items
    assert items == {"text": tmp_path / "[1] a.txt", "image": tmp_path / "[1] a.txt", "molecule": "b"}


@pytest.mark.parametrize("url", ["https://x.org/a.png", "S3://bucket/a.png", "hf://a"])
def test_urls_are_not_fetched_but_said(tmp_path: Path, url: str) -> None:
    source = open_table(write(tmp_path / "t.csv", [{"file": url, "caption": url}]))
    assert present(source, 0) == {"image", "text"}
    assert "URLs are not fetched" in reason(source, 0)
    assert open_table(tmp_path / "t.csv", {"text": "caption"})[0].items["text"] == url


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[1, null, 3]", [1, np.nan, 3]),
        (" [[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("[[1], null]", [[1], [np.nan]]),
    ],
)
def test_a_string_that_begins_with_a_bracket_is_a_list(tmp_path: Path, cell: str, expected: list[Any]) -> None:
    source = open_table(
        write(tmp_path / "t.csv", [{"file": cell, "caption": cell}]), {"series": "file", "text": "caption"}
    )
    np.testing.assert_array_equal(source[0].items["series"], np.array(expected))
    assert source[0].items["text"] == cell


@pytest.mark.parametrize(
    "cell", ["[1, 2", "[1] 2", '["a"]', '[1, "2"]', "[{}]", "[[1], [2, 3]]", "[" * 99_999, "[" + "1 " * 99]
)
def test_a_string_that_is_no_list_of_numbers_is_unreadable(tmp_path: Path, cell: str) -> None:
    source = open_table(write(tmp_path / "t.tsv", [{"file": cell, "caption": "c"}]))
    assert reason(source, 0).startswith("image: ")
    assert len(reason(source, 0)) < 200


@pytest.mark.parametrize("suffix", FORMATS)
def test_several_columns_are_channels(tmp_path: Path, suffix: str) -> None:
    lists: list[tuple[Any, ...]] = [([1, 2.5], [3, None]), ([1.5], None), (None, None)]
    if suffix in ("csv", "tsv"):
        lists = [tuple(None if one is None else json.dumps(one) for one in row) for row in lists]
    rows = [{"x": x, "y": y, "caption": "c"} for x, y in lists]
    source = open_table(write(tmp_path / f"t.{suffix}", rows), SERIES)
    assert source.modalities == {"a": "series", "text": "text"}
    assert source[0].items["a"].dtype == np.float32
    np.testing.assert_array_equal(source[0].items["a"], [[1, 2.5], [3, np.nan]])
    np.testing.assert_array_equal(source[1].items["a"], [[1.5], [np.nan]])
    assert present(source, 2) == {"text"}


def test_columns_of_numbers_are_channels_of_length_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"x": 1, "y": float("nan"), "caption": "c"}])
    np.testing.assert_array_equal(open_table(path, SERIES)[0].items["a"], np.array([[1], [np.nan]], np.float32))
    path = write(tmp_path / "t.csv", [{"x": "1.5", "y": "", "caption": "c"}])
    np.testing.assert_array_equal(open_table(path, SERIES)[0].items["a"], np.array([[1.5], [np.nan]], np.float32))


def test_channels_of_different_lengths_are_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"x": [1, 2, 3], "y": [1, 2], "caption": "c"}])
    assert reason(open_table(path, SERIES), 0) == "a: the lengths of the channels differ: 3, 2"


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.list_(pa.float32())), pa.list_(pa.list_(pa.int16(), 2)), pa.large_list(pa.list_(pa.float16()))]
)
def test_nested_lists_are_arrays(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([[[1, 2], [3, None], [4, 5]], None, [[6, 7]]], kind)
    parquet.write_table(pa.table({"x": column, "caption": ["c"] * 3}), tmp_path / "t.parquet")
    source = open_table(tmp_path / "t.parquet", {"series": "x", "text": "caption"})
    np.testing.assert_array_equal(source[0].items["series"], [[1, 2], [3, np.nan], [4, 5]])
    np.testing.assert_array_equal(source[2].items["series"], [[6, 7]])
    assert present(source, 1) == {"text"}


def test_missing_values_of_any_list_are_nan(tmp_path: Path) -> None:
    for values in ([1, None], [0.5, None], [True, None], [None, None]):
        source = open_table(write(tmp_path / "t.parquet", [{"series": values}]), {"series": "series"})
        np.testing.assert_array_equal(source[0].items["series"], np.array(values, np.float64))


def test_ragged_nested_lists_are_unreadable(tmp_path: Path) -> None:
    source = open_table(write(tmp_path / "t.parquet", [{"series": [[1, 2], [3]]}]), {"series": "series"})
    assert reason(source, 0) == "series: the lengths of the channels differ: 2, 1"


def test_arrays_can_be_written_to(tmp_path: Path) -> None:
    source = open_table(write(tmp_path / "t.parquet", [{"series": [1.0, 2.0]}]), {"series": "series"})
    source[0].items["series"][:] = 0
    np.testing.assert_array_equal(source[0].items["series"], [1, 2])


@pytest.mark.parametrize("cell", [["a", "b"], {"b": 1}, [{"b": 1}]])
def test_a_column_that_can_be_no_item_is_refused(tmp_path: Path, cell: Any) -> None:
    path = write(tmp_path / "t.jsonl", [{"tags": cell}])
    assert "column 'tags' can't be 'image'" in refusal(path, {"image": "tags"})
    assert "column 'tags' can't be 'text'" in refusal(path, {"text": "tags"})


def test_fields_of_structs_and_categories_are_columns(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([{"bytes": b"1", "path": "a"}, None, {"bytes": b"3", "path": None}]),
        "label": pa.array(["cat", None, "dog"]).dictionary_encode(),
        "PM2.5": pa.array([1.0, 2.0, None]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    names = {"image": "image.bytes", "text": "label", "series": "PM2.5"}
    source = open_table(tmp_path / "t.parquet", names, group="label", where={"label": ["cat", "dog"]})
    assert [sample.items for sample in source] == [
        {"image": b"1", "text": "cat", "series": 1.0},
        {"image": b"3", "text": "dog"},
    ]
    assert [sample.group for sample in source] == ["cat", "dog"]
    assert "no column 'image': it is made of the columns image.bytes, image.path" in refusal(
        tmp_path / "t.parquet", {"image": "image"}
    )
