"""CSV, TSV, JSONL and Parquet files as Arrow tables, some rows at a time."""

from __future__ import annotations

import codecs
import functools
import itertools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv, parquet

from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

_BLOCK = 8 << 20  # bytes; Arrow can't parse a CSV row that spans more than two blocks
_ROWS = 4096  # of Parquet at a time: what a filter drops is never held for long
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Block(NamedTuple):
    """Some rows of a file, and those among them that can't be parsed: where they are, and why."""

    rows: pa.Table
    skipped: list[tuple[str, str]]


def read(path: Path, names: Sequence[str]) -> Generator[Block, None, None]:
    """Yield the named columns of a file, some rows at a time.

    Raises InputError if the file or a column is missing, or the file is broken beyond single rows.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no table that can be read: its name must end in {', '.join(_READERS)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        yield from reader(path, names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        hint = " (is a quote not closed?)" if "straddling" in said else ""
        raise InputError(f"can't read {path}: {said}{hint}") from error


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables of the same columns without copying; where the types of a column differ, find one for all."""
    return pa.table({name: _join_column(name, tables) for name in tables[0].column_names})


def _join_column(name: str, tables: Sequence[pa.Table]) -> pa.ChunkedArray:
    try:
        return pa.concat_tables([table.select([name]) for table in tables], promote_options="permissive")[name]
    except pa.ArrowTypeError:
        return pa.chunked_array([_as_text(table[name].to_pylist()) for table in tables])


def _read_csv(path: Path, names: Sequence[str], *, delimiter: str) -> Iterator[Block]:
    skipped: list[tuple[str, str]] = []

    def skip(row: Any) -> str:
        hint = " (is a quote not closed?)" if '"' in row.text else ""
        cells = f"{row.actual_columns} cells, not {row.expected_columns}"
        skipped.append((f"row {row.number}", f"{cells}{hint}: {row.text[:80]!r}"))
        return "skip"

    reading = csv.ReadOptions(use_threads=False, block_size=_BLOCK)  # with threads, skip isn't told the row's number
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
    with csv.open_csv(path, reading, parsing) as head:
        _check_columns(path, names, head.schema.names)
    skipped.clear()  # the first block is read again
    # As strings, so that "007" stays "007".
    strings = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=list(names))
    with csv.open_csv(path, reading, parsing, strings) as batches:
        for batch in itertools.chain(batches, [pa.RecordBatch.from_pylist([], batches.schema)]):
            yield Block(pa.Table.from_batches([batch]), skipped.copy())
            skipped.clear()


def _read_jsonl(path: Path, names: Sequence[str]) -> Iterator[Block]:
    # Arrow's own reader gives up at the first bad line, and at the first column that mixes types.
    known: set[str] = set()
    number = 1
    with path.open("rb") as file:
        if file.peek(3).startswith(codecs.BOM_UTF8):
            file.seek(3)
        while lines := file.readlines(_BLOCK):
            rows, skipped = _parse_lines(lines, number)
            number += len(lines)
            known.update(*rows)
            if known and not file.peek(1):  # only at the end: a row may leave out what it lacks
                _check_columns(path, names, known)
            yield Block(pa.table({name: _infer([row.get(name) for row in rows]) for name in names}), skipped)


def _parse_lines(lines: Sequence[bytes], number: int) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return the objects on lines of JSONL, the first being line number, and what is skipped."""
    full = [(place, line) for place, line in enumerate(lines, number) if not line.isspace()]
    rows: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    try:
        rows = _parse(b"[%b]" % b",".join([line for _, line in full]))  # at once: twice as fast as one by one
        if len(rows) == len(full) and all(isinstance(row, dict) for row in rows):
            return rows, []
        rows = []
    except ValueError:
        pass
    for place, line in full:
        try:
            row = _parse(line)
            if not isinstance(row, dict):
                raise ValueError(f"not an object but {type(row).__name__}")
            rows.append(row)
        except ValueError as error:
            skipped.append((f"line {place}", str(error)))
    return rows, skipped


def _parse(text: bytes) -> Any:
    try:
        value = json.loads(text.decode())
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value


def _infer(values: list[Any]) -> pa.Array:
    """Return values of one kind as Arrow's type of that kind, mixed ones as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _as_text(values)


def _as_text(values: list[Any]) -> pa.Array:
    """Keep strings and nulls, and write everything else as JSON."""
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, pa.string())


def _read_parquet(path: Path, names: Sequence[str]) -> Iterator[Block]:
    with parquet.ParquetFile(path) as file:
        # A field of a struct is a column too, e.g. `image.bytes` in data sets of Hugging Face.
        _check_columns(path, names, file.schema_arrow.empty_table().flatten().column_names)
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(names)):
            table = pa.Table.from_batches([batch]).flatten().select(list(names))
            yield Block(_without_dictionaries(table), [])


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Return the table with categories as what they stand for."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _check_columns(path: Path, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            fields = ", ".join(one for one in known if one.startswith(f"{name}."))
            hint = f"it is made of the columns {fields}" if fields else nearest(name, known)
            raise InputError(f"{path} has no column {name!r}: {hint}")
        if known.count(name) > 1:
            raise InputError(f"{path} has {known.count(name)} columns named {name!r}: rename all but one")


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Block]]] = {
    ".csv": functools.partial(_read_csv, delimiter=","),
    ".tsv": functools.partial(_read_csv, delimiter="\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
