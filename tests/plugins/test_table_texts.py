"""Fields of JSON and several texts a row in the pairing source ``table``."""

from __future__ import annotations

import json
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
from mmssl_sources.table import Table
from multimodal_ssl import UnreadableError
from multimodal_ssl.testing import check_pairing_source, check_resume

from .tables import FORMATS, open_table, quick, reason, refusal, write

EACH = {"image": "file", "text": {"column": "texts", "modality": "text", "several": "each"}}
FIRST = {"image": "file", "text": {"column": "texts", "modality": "text", "several": "first"}}
META = [
    {"caption": "a, b", "tags": ["x", "y"], "id": 3, "g": "one", "licence": "CC0"},
    {"caption": "c", "tags": [], "id": 4, "g": "one", "licence": None},
    {"tags": ["z"], "id": 5},
]


def dump(value: Any, suffix: str) -> Any:
    """Return a value as a file of that kind holds it: as JSON text where it knows no lists."""
    return json.dumps(value) if suffix in ("csv", "tsv") else value


def told(source: Table) -> list[tuple[str, Any, str]]:
    return [(sample.key, sample.items.get("text"), sample.group) for sample in source]


def plain(rows: list[list[str] | None]) -> list[tuple[str, Any, str]]:
    """Return keys, texts and groups of a sample for each text, the plain way."""
    found: list[tuple[str, Any, str]] = []
    for number, texts in enumerate(rows):
        full = [text for text in texts or () if text is not None and text.strip()] or [None]
        found += [(f"{number}#{place}", text, str(number)) for place, text in enumerate(full)]
    return found


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("suffix", FORMATS)
def test_fields_of_json_are_columns_wherever_a_column_is_named(tmp_path: Path, suffix: str, text: bool) -> None:
    rows = [{"file": f"{i}.png", "meta": json.dumps(one) if text else dump(one, suffix)} for i, one in enumerate(META)]
    columns = {"image": "file", "text": "meta.caption", "tag": {"column": "meta.tags.0", "modality": "text"}}
    options: dict[str, Any] = {"key": "meta.id", "group": "meta.g", "metadata": ["meta.licence"]}
    source = open_table(write(tmp_path / f"t.{suffix}", rows), columns, **options)
    check_pairing_source(source)
    for index, row in enumerate(META):
        sample = source[index]
        tags: Any = row["tags"]
        expected = {"text": row.get("caption"), "tag": tags[0] if tags else None}
        assert {name: item for name, item in sample.items.items() if name != "image"} == {
            name: item for name, item in expected.items() if item is not None
        }
        assert (sample.key, sample.group) == (str(row["id"]), row.get("g", ""))
        assert sample.metadata == {"meta.licence": row.get("licence")}
    assert [sample.key for sample in open_table(tmp_path / f"t.{suffix}", columns, where={"meta.id": [4, 5]})] == [
        "1",
        "2",
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_of_that_very_name_comes_first(tmp_path: Path, suffix: str) -> None:
    rows = [{"meta": dump({"caption": "field"}, suffix), "meta.caption": "column"}]
    source = open_table(write(tmp_path / f"t.{suffix}", rows), {"text": "meta.caption"})
    assert source[0].items == {"text": "column"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_json_may_hold_json_and_the_longest_column_counts(tmp_path: Path, suffix: str) -> None:
    rows = [{"a": '{"b": {"c": "no"}}', "a.b": json.dumps({"c": json.dumps([{"d": "yes"}])})}]
    source = open_table(write(tmp_path / f"t.{suffix}", rows), {"text": "a.b.c.0.d"})
    assert source[0].items == {"text": "yes"}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ('{"caption": ', "not JSON"),
        ("{'caption': 'c'}", "not JSON"),
        ("None", "not JSON"),
        ('"c"', "has a str where meta.caption asks for 'caption'"),
        ("5", "has a int where meta.caption asks for 'caption'"),
        ('["c"]', "has a list where meta.caption asks for 'caption'"),
        ('{"caption": "\\ud800"}', "half a surrogate pair"),
        ("[" * 99_999, "nested too deep"),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_row_of_broken_json_is_skipped_with_the_reason_and_no_other_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, cell: str, said: str
) -> None:
    monkeypatch.setattr(formats, "_ROWS", 2)
    cells = ['{"caption": "c"}', cell, "", "null", '{"caption": "d"}']
    path = write(tmp_path / f"t.{suffix}", [{"meta": one, "file": f"{i}.png"} for i, one in enumerate(cells)])
    source = open_table(path, {"image": "file", "text": "meta.caption"})
    assert [sample.key for sample in source] == ["0", "2", "3", "4"]
    assert [sample.items.get("text") for sample in source] == ["c", None, None, "d"]
    ((place, why),) = source.skipped
    assert place == "row 1 (from 0)"
    assert why.startswith("meta")
    assert said in why
    assert len(why) < 200


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_field_that_no_row_has_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", [{"meta": json.dumps({"caption": "c"})}] * 3)
    assert "no row has anything in column 'meta.captoin'" in refusal(path, {"text": "meta.captoin"})
    assert "no column 'mata.caption'" in refusal(path, {"text": "mata.caption"})


def test_deep_fields_of_structs_keep_bytes(tmp_path: Path) -> None:
    rows = [{"x": {"images": [{"bytes": b"1"}, {"bytes": b"2"}], "y": {"t": "c"}}}, {"x": None}]
    columns = {"image": "x.images.1.bytes", "text": "x.y.t"}
    source = open_table(write(tmp_path / "t.parquet", rows), columns)
    assert source[0].items == {"image": b"2", "text": "c"}
    assert "no image and no text" in reason(source, 1)


texts = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=4)), max_size=4))


@quick
@given(rows=st.lists(texts, min_size=1, max_size=9), block=st.integers(1, 90))
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_each_text_of_a_list_is_a_sample_or_the_first_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, rows: list[Any], block: int
) -> None:
    monkeypatch.setattr(formats, "_BLOCK", max(block, 90) if suffix == "csv" else block)
    monkeypatch.setattr(formats, "_ROWS", 1 + block % 4)
    rows = [*rows, ["last"]]
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.table({"file": ["f"] * len(rows), "texts": pa.array(rows, pa.list_(pa.string()))}), path)
    else:
        write(path, [{"file": "f", "texts": dump(one, suffix)} for one in rows])
    if suffix == "csv":  # JSON of nothing is no list of texts
        rows = [["null"] if one is None else one for one in rows]
    expected = plain(rows)
    source = open_table(path, EACH)
    assert told(source) == expected
    manifest = source.manifest()
    assert manifest.present[:, 1].tolist() == [text is not None for _, text, _ in expected]
    assert manifest.length is not None
    assert manifest.length[:, 1].tolist() == [len(text or "") for _, text, _ in expected]
    assert manifest.group is not None
    groups = [group for *_, group in expected]
    same = np.array([[one == other for other in groups] for one in groups])
    assert (same == (manifest.group[:, None] == manifest.group)).all()
    firsts = [(key.removesuffix("#0"), text, "") for key, text, _ in expected if key.endswith("#0")]
    assert told(open_table(path, FIRST)) == firsts


def test_several_columns_are_texts_of_one_image(tmp_path: Path) -> None:
    rows = [("a", "b"), ("", "[c]"), (None, " "), ("d", None)]
    path = write(tmp_path / "t.csv", [{"file": f"{i}", "alt": a, "caption": b} for i, (a, b) in enumerate(rows)])
    columns = {"image": "file", "text": {"columns": ["alt", "caption"], "modality": "text", "several": "each"}}
    source = open_table(path, columns)
    assert told(source) == plain([[str(one or "") for one in row] for row in rows])
    assert [sample.items["image"].name for sample in source] == ["0", "0", "1", "2", "3"]
    columns = {"image": "file", "text": {**EACH["text"], "several": "first", "columns": ["caption", "alt"]}}
    del columns["text"]["column"]
    assert [text for _, text, _ in told(open_table(path, columns))] == ["b", "[c]", None, "d"]


def test_texts_share_the_rest_of_their_row(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "file": "f", "g": "G", "w": 0.5, "licence": "CC0", "texts": ["s", "t"]},
        {"id": "a#0", "file": "f", "g": None, "w": 1.0, "licence": "BY", "texts": ["u"]},
        {"id": "b", "file": None, "g": "G", "w": 0.25, "licence": "SA", "texts": ["v", "w"]},
    ]
    source = open_table(
        write(tmp_path / "t.parquet", rows), EACH, key="id", group="g", weight="w", metadata=["licence"]
    )
    check_pairing_source(source)
    assert [sample.key for sample in source] == ["a#0", "a#1", "a#0#0", "b#0", "b#1"]
    assert [sample.group for sample in source] == ["G", "G", "a#0", "G", "G"]
    assert [sample.weight for sample in source] == [0.5, 0.5, 1.0, 0.25, 0.25]
    assert [sample.metadata["licence"] for sample in source] == ["CC0", "CC0", "BY", "SA", "SA"]
    assert ["image" in sample.items for sample in source] == [True, True, True, False, False]
    assert list(pickle.loads(pickle.dumps(source))) == list(source)
    with pytest.raises(IndexError):
        source[5]
    rows[1]["g"] = None
    rows[0]["g"] = "a#0"
    assert "row 'a#0' has no group" in refusal(write(tmp_path / "t.parquet", rows), EACH, key="id", group="g")


@pytest.mark.parametrize("cell", ['["a", ', "['a', 'b']", '["a", 3]', '[["a"]]', "[laughs]", '["\\ud800"]', "[" * 9999])
def test_a_broken_list_of_texts_is_unreadable_and_no_other_row(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "t.csv", [{"file": "f", "texts": one} for one in ('["a", "b"]', cell, "c")])
    for columns, keys in ((EACH, ["0#0", "0#1", "1#0", "2#0"]), (FIRST, ["0", "1", "2"])):
        source = open_table(path, columns)
        assert len(source) == len(keys)
        bad = len(keys) - 2
        assert source.manifest().present.all()
        for index, key in enumerate(keys):
            if index != bad:
                assert source[index].key == key
        with pytest.raises(UnreadableError) as caught:
            source[bad]
        assert caught.value.key == keys[bad]
        assert caught.value.reason.startswith("text: ")
        assert len(caught.value.reason) < 200


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_list_of_texts_is_refused_without_the_option(tmp_path: Path, suffix: str) -> None:
    rows = [{"file": "f", "texts": dump(["a", "b"], suffix)}, {"file": "f", "texts": dump(["c"], suffix)}]
    path = write(tmp_path / f"t.{suffix}", rows)
    said = refusal(path, {"image": "file", "text": "texts"})
    assert "column 'texts' can't be 'text'" in said
    assert "`several: each`" in said
    assert "`several: first`" in said
    if suffix in ("csv", "tsv"):
        source = open_table(path, {"text": {"column": "texts", "path": False}})
        assert source[0].items["text"] == '["a", "b"]'


def test_a_column_of_jsonl_that_mixes_texts_and_lists_is_refused_without_the_option(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"texts": "a", "file": "f"}, {"texts": ["b", "c"], "file": "f"}])
    assert "is a list of texts" in refusal(path, {"text": "texts"})
    assert [text for _, text, _ in told(open_table(path, EACH))] == ["a", "b", "c"]


@pytest.mark.parametrize("text", ['["quoted"] he said', '["', "[a]"])
def test_a_text_that_only_begins_like_a_list_is_one_text(tmp_path: Path, text: str) -> None:
    assert open_table(write(tmp_path / "t.csv", [{"text": text}]), {"text": "text"})[0].items["text"] == text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": {"column": "a", "several": "all"}}, "must be each or first"),
        ({"image": {"column": "a", "several": "each"}}, "for the modality text"),
        ({"text": {"column": "a", "several": "each", "path": False}}, "without path"),
        ({"text": {"columns": ["a", "b"]}}, "texts can't be channels: add `several: each`"),
        ({"text": {"columns": ["a"], "column": "b", "several": "each"}}, "neither column nor path"),
        ({"text": {"column": "a", "severel": "each"}}, "did you mean 'several'?"),
        (
            {one: {"column": "a", "modality": "text", "several": "each"} for one in ("alt", "text")},
            "columns.alt and columns.text both say `several: each`: keep it for one",
        ),
    ],
)
def test_options_of_texts_that_make_no_sense_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(write(tmp_path / "t.csv", [{"a": "a", "b": "b"}]), columns)


def test_a_table_of_texts_feeds_training_alike_with_any_number_of_workers(tmp_path: Path) -> None:
    cells = [{"meta": json.dumps({"texts": [f"{i}.{k}" for k in range(i % 4)]}), "file": f"{i}"} for i in range(20)]
    cells[3]["meta"] = '{"texts": "[broken"}'
    columns = {"image": {"column": "file", "path": False}, "text": {**EACH["text"], "column": "meta.texts"}}
    source = open_table(write(tmp_path / "t.csv", cells), columns)
    check_resume(source, batch=4)
