"""Files of the pairing source ``table``: every format gives the same; what is broken is skipped or refused."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from mmssl_sources import formats
from multimodal_ssl import InputError, Sample
from multimodal_ssl.testing import check_pairing_source

from ..toys import present
from .tables import FORMATS, PAIR, open_table, pairs, refusal, write


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


ODD = {
    "text": ["null", "1", "[1]", '{"a": 1}', "true", '"\\ud800"', '"\u00e9"', '"2020-01-01"'],
    "n": ["1.5", "null", '"7"', "1e400", "-0", "9" * 20, "NaN", "1E2", "01", "true"],
    "b": ["null", "1", '"true"', "True"],
}


def lines_of_jsonl(rng: random.Random, *, odd: bool) -> list[str]:
    """Return objects of a text, a number and a truth value, some of them odd in one way or another."""
    lines = []
    for _ in range(rng.randrange(1, 60)):
        cells = {
            "text": f'"w\\u00e9 {rng.randrange(9)}\\n"',
            "n": str(rng.randrange(-9, 99)),
            "b": "true",
            "more": "[{}]",
        }
        if odd and rng.random() < 0.3:
            name = rng.choice([*ODD])
            cells[name] = rng.choice(ODD[name])
        parts = [f'"{name}": {cell}' for name, cell in cells.items()]
        rng.shuffle(parts)
        if odd and rng.random() < 0.1:
            parts = rng.choice([parts[1:], [*parts, parts[0]]])
        line = "{" + ", ".join(parts) + "}"
        wrong = [
            "[1]",
            "nope",
            line[:-1],
            "",
            "{}",
            line + "}",
            f"{line} {line}",
            f" {line}\t",
            line.replace("te", "t\\u0065"),
        ]
        lines.append(rng.choice(wrong) if odd and rng.random() < 0.05 else line)
    return lines


def test_jsonl_gives_the_same_whether_arrow_or_python_reads_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, plain = random.Random(0), formats._parse_plain
    tables: list[Any] = []
    monkeypatch.setattr(formats, "_BLOCK", 300)
    for turn in range(150):
        (tmp_path / "t.jsonl").write_text("\n".join(lines_of_jsonl(rng, odd=turn % 2 == 1)), encoding="utf-8")
        found = []
        for reader in (lambda *given: tables.append(plain(*given)) or tables[-1], lambda *_: None):
            monkeypatch.setattr(formats, "_parse_plain", reader)
            try:
                blocks = list(formats.read(tmp_path / "t.jsonl", [*ODD]))
                found.append(repr([(one.rows.to_pydict(), one.numbers.tolist(), one.skipped) for one in blocks]))
            except InputError as error:
                found.append(str(error))
        assert found[0] == found[1]
    assert sum(one is not None for one in tables) > 300
    assert sum(one is None for one in tables) > 50


def test_a_row_of_jsonl_may_leave_out_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_BLOCK", 40)
    path = write(tmp_path / "t.jsonl", [*({"caption": "c"} for _ in range(9)), {"file": "a", "caption": "d"}])
    assert [len(present(open_table(path), index)) for index in (0, 9)] == [1, 2]
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
