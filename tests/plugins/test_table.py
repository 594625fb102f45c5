"""The pairing source ``table``: each rule of cells, rows and files, against csv, json and Arrow themselves."""

from __future__ import annotations

import csv
import datetime
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import mmssl_sources
from mmssl_sources import formats
from mmssl_sources.table import Table
from multimodal_ssl import Catalog, InputError, Sample, UnreadableError
from multimodal_ssl.testing import check_pairing_source

CATALOG = Catalog.of(sources=mmssl_sources)
PAIR = {"image": "file", "text": "caption"}
SERIES = {"a": {"columns": ["x", "y"], "modality": "series"}, "text": "caption"}
FORMATS = ["csv", "tsv", "jsonl", "parquet"]
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def open_table(path: Path, columns: dict[str, Any] = PAIR, **options: Any) -> Table:
    return CATALOG.create("pairing_sources", "table", options={"path": path, "columns": columns, **options})


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case suffix:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), dialect="excel" if suffix == ".csv" else "excel-tab")
                writer.writeheader()
                writer.writerows(rows)
    return path


def refusal(path: Path, columns: dict[str, Any] = PAIR, **options: Any) -> str:
    """Return the InputError that opening raises, which must be one line."""
    with pytest.raises(InputError) as caught:
        open_table(path, columns, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reason(source: Table, index: int) -> str:
    """Return why a sample is unreadable."""
    with pytest.raises(UnreadableError) as caught:
        source[index]
    return caught.value.reason


def pairs(count: int = 4) -> list[dict[str, Any]]:
    return [{"id": f"00{i}", "file": f"{i}.png", "caption": f'a, "b"\tc\n{i}', "w": (i + 1) / 4} for i in range(count)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_samples(tmp_path: Path, suffix: str) -> None:
    source = open_table(write(tmp_path / f"t.{suffix}", pairs()), key="id", group="caption", weight="w")
    check_pairing_source(source)
    assert source.modalities == {"image": "image", "text": "text"}
    assert list(source) == [
        Sample(row["id"], {"image": tmp_path / row["file"], "text": row["caption"]}, row["caption"], row["w"])
        for row in pairs()
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_pickled_table_gives_the_same_samples(tmp_path: Path, suffix: str) -> None:
    source = open_table(write(tmp_path / f"t.{suffix}", pairs()), weight="w")
    assert list(pickle.loads(pickle.dumps(source))) == list(source)


def test_an_index_beyond_the_end_raises_index_error(tmp_path: Path) -> None:
    source = open_table(write(tmp_path / "t.csv", pairs()))
    with pytest.raises(IndexError):
        source[4]


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
        assert set(source.present(index)) == set(expected)
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
        assert set(source.present(index)) == ({"series", "text"} if there else {"text"})
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
    assert [set(source.present(index)) for index in range(3)] == [set(), set(), set(columns)]
    assert "no text and no image" in reason(source, 0)


def test_no_bytes_are_no_item(tmp_path: Path) -> None:
    rows = [{"file": cell, "caption": "c"} for cell in (b"", None, b"\x89PNG")]
    source = open_table(write(tmp_path / "t.parquet", rows))
    assert [len(source.present(index)) for index in range(3)] == [1, 1, 2]
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
    assert set(source.present(0)) == {"image", "text"}
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
    assert set(source.present(2)) == {"text"}


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
    assert set(source.present(1)) == {"text"}


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


def test_rows_of_csv_with_too_many_or_too_few_cells_are_skipped_and_recorded(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('file,caption\na,1\nb,2,3\nc\n"d\nd",4\n')
    source = open_table(tmp_path / "t.csv")
    assert [sample.items["text"] for sample in source] == ["1", "4"]
    assert source.skipped == [
        ("row 1 (from 0)", "3 cells, not 2: 'b,2,3'"),
        ("row 2 (from 0)", "1 cells, not 2: 'c'"),
    ]


def test_bad_rows_of_csv_are_recorded_to_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK", 50)
    (tmp_path / "t.csv").write_text("file,caption\n" + "a,1\n" * 30 + "b\n" * 300)
    source = open_table(tmp_path / "t.csv")
    assert len(source) == 30
    assert [place for place, _ in source.skipped] == [f"row {number} (from 0)" for number in range(30, 330)]


def test_a_quote_that_is_not_closed_is_suspected(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('file,caption\na,1\n"b,2\nc,3\n')
    ((place, why),) = open_table(tmp_path / "t.csv").skipped
    assert place == "row 1 (from 0)"
    assert "is a quote not closed?" in why


def test_a_quote_that_swallows_the_file_is_suspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK", 100)
    (tmp_path / "t.csv").write_text('file,caption\n"b,2\n' + "c,3\n" * 100)
    assert "is a quote not closed?" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_bad_lines_of_jsonl_are_skipped_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(formats, "_BLOCK", block)
    good = json.dumps({"file": "a", "caption": "\U0001f600"}).encode()
    bad = {
        b'{"file": "a"': "not JSON",
        b"[1]": "not an object",
        b"7": "not an object",
        b'{"caption": "\xff"}': "not UTF-8",
        b'{"caption": "\\ud83d"}': "surrogate",
        b"[" * 200_000: "nested",
        good + b"," + good: "not JSON",
    }
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b"", *bad, good]))
    source = open_table(tmp_path / "t.jsonl")
    assert [sample.items["text"] for sample in source] == ["\U0001f600"] * 2
    assert [place for place, _ in source.skipped] == [f"row {number} (from 0)" for number in range(1, 8)]
    for word, (_, why) in zip(bad.values(), source.skipped, strict=True):
        assert word in why
    for line in bad:  # alone among good ones
        (tmp_path / "t.jsonl").write_bytes(b"\n".join([good, line, good]))
        source = open_table(tmp_path / "t.jsonl")
        assert (len(source), [place for place, _ in source.skipped]) == (2, ["row 1 (from 0)"])


def test_a_row_of_jsonl_may_leave_out_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK", 40)
    path = write(tmp_path / "t.jsonl", [*({"caption": "c"} for _ in range(9)), {"file": "a", "caption": "d"}])
    assert [len(open_table(path).present(index)) for index in (0, 9)] == [1, 2]
    assert "did you mean 'file'?" in refusal(path, {"image": "fil", "text": "caption"})
    assert "no row has anything in column 'fil'" in refusal(path, {"image": "fil", "text": "caption"}, limit=3)


def test_jsonl_may_hold_numbers_beyond_64_bits(tmp_path: Path) -> None:
    rows = [{"id": 1 << 70, "caption": "c"}, {"id": 1, "caption": "c"}]
    source = open_table(write(tmp_path / "t.jsonl", rows), {"text": "caption"}, key="id")
    assert [sample.key for sample in source] == [str(1 << 70), "1"]


def test_a_block_of_jsonl_without_a_value_passes_where_only_if_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_BLOCK", 1)
    path = write(tmp_path / "t.jsonl", [{"text": "a"}, {"text": "b", "split": "x"}, {"text": "c", "split": "y"}])
    for values, expected in (("x", "b"), (["y", None], "ac")):
        source = open_table(path, {"text": "text"}, where={"split": values})
        assert "".join(sample.items["text"] for sample in source) == expected


def test_files_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").touch()
    assert "must end in .csv, .tsv, .jsonl, .parquet" in refusal(tmp_path / "t.xlsx")
    for name, content in {
        "empty.csv": b"",
        "text.parquet": b"file,caption\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert f"can't read {tmp_path / name}: " in refusal(tmp_path / name)
    for name, content in {"head.csv": b"file,caption\n", "empty.jsonl": b"", "bad.jsonl": b"{\n"}.items():
        (tmp_path / name).write_bytes(content)
        assert "no row is left of 0" in refusal(tmp_path / name)
    assert "row 0 (from 0): not JSON" in refusal(tmp_path / "bad.jsonl")
    (tmp_path / "bad.csv").write_bytes(b"file,caption\na\n")
    assert "no row is left of 0; 1 can't be parsed, e.g. row 0 (from 0): 1 cells, not 2" in refusal(
        tmp_path / "bad.csv"
    )


def test_a_missing_file_is_told_with_the_folder_that_its_path_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("data/t.csv")).startswith("there is no file data/t.csv: ")
    assert refusal(Path("data/t.csv")).endswith(str(tmp_path))
    assert refusal(tmp_path / "t.csv") == f"there is no file {tmp_path / 't.csv'}"


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("latin.csv", "file,caption\na,b\nbad\na,é\n".encode("latin-1"), ", see row 2 (from 0)"),
        ("head.csv", "file,caption,höhe\na,b,1\n".encode("latin-1"), ""),
        ("bad.csv", "file,caption\na,b\né\n".encode("latin-1"), ", see row 1 (from 0)"),
        ("excel.tsv", "file\tcaption\na\tb\n".encode("utf-16"), ""),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Arrow, about the bad row
def test_a_csv_that_is_not_utf_8_is_refused(tmp_path: Path, name: str, content: bytes, where: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"can't read {tmp_path / name}: it is not UTF-8{where}: save it as UTF-8" in refusal(tmp_path / name)


@pytest.mark.parametrize("columns", [PAIR, {"text": "caption"}])
@pytest.mark.parametrize(
    ("name", "delimiter", "remedy"),
    [
        ("t.csv", ";", "save it with commas"),
        ("t.tsv", ";", "save it with commas"),
        ("t.csv", "\t", "rename it to end in .tsv"),
        ("t.tsv", ",", "rename it to end in .csv"),
    ],
)
def test_another_delimiter_is_suspected(
    tmp_path: Path, columns: dict[str, Any], name: str, delimiter: str, remedy: str
) -> None:
    (tmp_path / name).write_text(f"file{delimiter}caption\n1.png{delimiter}one, two\n")
    message = refusal(tmp_path / name, columns)
    assert message.startswith(f"{tmp_path / name} seems to be separated by {delimiter!r}, ")
    assert message.endswith(remedy)


def test_the_name_of_an_only_column_may_hold_other_delimiters(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\nc\n")
    assert open_table(tmp_path / "t.csv", {"text": "a;b"})[0].items == {"text": "c"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_column_is_refused_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", pairs())
    assert "no column 'captoin': did you mean 'caption'?" in refusal(path, {"text": "captoin"})
    assert "no column 'captoin': did you mean 'caption'?" in refusal(path, group="captoin")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,caption,caption\na,b,c\n")
    assert "2 columns named 'caption'" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "columns is empty"),
        ({"image": {"colum": "file"}}, "did you mean 'column'?"),
        ({"image": {}}, "must name a column"),
        ({"image": {"column": ["file"]}}, "must name a column"),
        ({"image": {"columns": []}}, "must name a column"),
        ({"image": {"columns": ["file"], "column": "file"}}, "neither column nor path"),
        ({"image": {"columns": ["file"], "path": True}}, "neither column nor path"),
        ({"image": {"column": "file", "modality": 3}}, "must be the name of a modality"),
        ({"image": {"column": "file", "path": "yes"}}, "must be true or false"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(write(tmp_path / "t.csv", pairs()), columns)
