"""CSV, TSV, JSONL and Parquet files as Arrow tables, some rows at a time."""

from __future__ import annotations

import codecs
import functools
import itertools
import json
import operator
import re
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet
from pyarrow import json as json_format

from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

_BLOCK = 8 << 20  # bytes; Arrow can't parse a CSV row that spans more than two blocks
_ROWS = 4096  # of Parquet at a time: what a filter drops is never held for long
_FIRST = 2  # the number that Arrow gives the row below the header of a CSV
_DELIMITERS = {
    ";": "save it with commas",
    "|": "save it with commas",
    "\t": "rename it to end in .tsv",
    ",": "rename it to end in .csv",
}
_PLAIN = {pa.string(), pa.int64(), pa.bool_()}  # that Arrow reads as Python does; 2 beside 1.5 is no float at once
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Block(NamedTuple):
    """Some rows of a file.

    Attributes:
        numbers: of the rows in the file, [N]: from 0 below the header; those that can't be parsed count too, and blank
            lines don't.
        skipped: rows that can't be parsed: where they are, and why.
    """

    rows: pa.Table
    numbers: np.ndarray
    skipped: list[tuple[str, str]]


def read(path: Path, names: Sequence[str]) -> Generator[Block, None, None]:
    """Yield the named columns of a file, some rows at a time.

    `COLUMN.FIELD.0` is what lies in the JSON or the nested value of a column, unless a column has that very name. Rows
    whose JSON is broken are skipped.

    Raises InputError if the file or a column is missing, or the file is broken beyond single rows.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no table that can be read: its name must end in {', '.join(_READERS)}")
    if not path.is_file():
        base = "" if path.is_absolute() else f": a relative path starts from the working folder, {Path.cwd()}"
        raise InputError(f"there is no file {path}{base}")
    try:
        yield from reader(path, names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {path}: {_explain(error)}") from error


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables of the same columns without copying; where the types of a column differ, find one for all."""
    return pa.table({name: _join_column(name, tables) for name in tables[0].column_names})


def _join_column(name: str, tables: Sequence[pa.Table]) -> pa.ChunkedArray:
    try:
        return pa.concat_tables([table.select([name]) for table in tables], promote_options="permissive")[name]
    except pa.ArrowTypeError:
        return pa.chunked_array([_as_text(table[name].to_pylist()) for table in tables])


def _explain(error: Exception) -> str:
    said = " ".join(str(error).split())
    row = re.search(r"Row #(\d+)", said)  # only of text: other rows that can't be parsed are skipped
    if row or isinstance(error, UnicodeDecodeError):
        # Not skipped like a line of JSONL: an encoding is the whole file's, and just the rows with accents would go.
        where = f", see {_place(int(row[1]) - _FIRST)}" if row else ""
        return f"it is not UTF-8{where}: save it as UTF-8 (Excel: as 'CSV UTF-8')"
    return f"{said} (is a quote not closed?)" if "straddling" in said else said


def _place(number: int) -> str:
    return f"row {number} (from 0)"


def _read_csv(path: Path, names: Sequence[str], *, delimiter: str) -> Iterator[Block]:
    skipped: list[tuple[str, str]] = []
    bad: set[int] = set()
    good = (number for number in itertools.count() if number not in bad)

    def skip(row: Any) -> str:
        hint = " (is a quote not closed?)" if '"' in row.text else ""
        cells = f"{row.actual_columns} cells, not {row.expected_columns}"
        skipped.append((_place(row.number - _FIRST), f"{cells}{hint}: {row.text[:80]!r}"))
        bad.add(row.number - _FIRST)
        return "skip"

    reading = csv.ReadOptions(use_threads=False, block_size=_BLOCK)  # with threads, skip isn't told the row's number
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
    with csv.open_csv(path, reading, parsing) as head:
        taken = [_find_column(name, head.schema.names) for name in names]
        _check_delimiter(path, taken, head.schema.names, delimiter)
        _check_columns(path, taken, head.schema.names)
        taken = list(dict.fromkeys(taken))
    skipped.clear()  # the first block is read again
    # As strings, so that "007" stays "007".
    strings = csv.ConvertOptions(column_types=dict.fromkeys(taken, pa.string()), include_columns=taken)
    with csv.open_csv(path, reading, parsing, strings) as batches:
        for batch in itertools.chain(batches, [pa.RecordBatch.from_pylist([], batches.schema)]):
            # Arrow reads ahead: the bad rows before these are known by now, and some behind them too.
            numbers = np.fromiter(itertools.islice(good, len(batch)), np.int64, len(batch))
            yield _dig(Block(pa.Table.from_batches([batch]), numbers, skipped.copy()), names)
            skipped.clear()


def _read_jsonl(path: Path, names: Sequence[str]) -> Iterator[Block]:
    # Arrow's own reader gives up at the first bad line, and at the first column that mixes types.
    known: set[str] = set()
    schema: pa.Schema | None = None
    start = 0
    with path.open("rb") as file:
        if file.peek(3).startswith(codecs.BOM_UTF8):
            file.seek(3)
        while lines := file.readlines(_BLOCK):
            full = [line for line in lines if not line.isspace()]
            plain = _parse_plain(full, schema) if schema else None
            if plain is not None:
                yield Block(plain.select(list(names)), np.arange(start, start + len(full)), [])
                start += len(full)
                continue
            rows, numbers, skipped = _parse_lines(full, start)
            start += len(full)
            known.update(*rows)
            if known and not file.peek(1):  # only at the end: a row may leave out what it lacks
                _check_columns(path, [_find_column(name, known) for name in names], known)
            table = pa.table({name: _infer(_column(rows, name)) for name in names if "." not in name})
            block = Block(table, np.array(numbers, np.int64), skipped)
            whole = len(table.column_names) == len(names)
            schema = table.schema if whole and known.issuperset(names) and set(table.schema.types) <= _PLAIN else None
            yield block if whole else _dig(block, names, rows)


def _parse_plain(lines: Sequence[bytes], schema: pa.Schema) -> pa.Table | None:
    """Return the rows of lines as Arrow reads them, five times as fast; None if it might differ from `_parse_lines`.

    It does not where each line is an object, and each value of the type that it had in a block before, or null.
    """
    text = b"".join(lines)
    if not text.isascii() or not all(line[:1] == b"{" and line.rstrip()[-1:] == b"}" for line in lines):
        return None
    options = json_format.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = json_format.read_json(pa.BufferReader(text), json_format.ReadOptions(use_threads=False), options)
    except pa.ArrowException:
        return None
    return table if len(table) == len(lines) else None


def _parse_lines(
    lines: Sequence[bytes], start: int
) -> tuple[list[dict[str, Any]], Sequence[int], list[tuple[str, str]]]:
    """Return the objects on lines of JSONL, their numbers, the first line being number start, and what is skipped."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    skipped: list[tuple[str, str]] = []
    try:
        rows = _parse(b"[%b]" % b",".join(lines))  # at once: twice as fast as one by one
        if len(rows) == len(lines) and set(map(type, rows)) <= {dict}:
            return rows, range(start, start + len(lines)), []
        rows = []
    except ValueError:
        pass
    for number, line in enumerate(lines, start):
        try:
            row = _parse(line)
            if not isinstance(row, dict):
                raise ValueError(f"not an object but {type(row).__name__}")
            rows.append(row)
            numbers.append(number)
        except ValueError as error:
            skipped.append((_place(number), str(error)))
    return rows, numbers, skipped


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


def _column(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(operator.itemgetter(name), rows))  # faster than get
    except KeyError:
        return [row.get(name) for row in rows]


def _find_column(name: str, known: Container[str]) -> str:
    """Return the column in which a name lies: of that very name, or else of the longest beginning up to a dot."""
    column = name
    while column not in known:
        column, dot, _ = column.rpartition(".")
        if not dot:
            return name
    return column


def _dig(block: Block, names: Sequence[str], rows: Sequence[dict[str, Any]] | None = None) -> Block:
    """Return the block with what lies inside columns as columns of their own, without rows whose JSON is broken.

    Args:
        rows: all that the rows hold, if that is more than the columns of the block.
    """
    deep = [name for name in names if name not in block.rows.column_names]
    if not deep:
        return block._replace(rows=block.rows.select(list(names)))
    if rows is None:
        columns = list(dict.fromkeys(_find_column(name, block.rows.column_names) for name in deep))
        rows = block.rows.select(columns).to_pylist()
    found: list[list[Any]] = []
    good = np.ones(len(rows), bool)
    skipped = list(block.skipped)
    for place, row in enumerate(rows):
        try:
            found.append([_look_into(row, name) for name in deep])
        except ValueError as error:
            good[place] = False
            skipped.append((_place(int(block.numbers[place])), str(error)))
    inside = dict(zip(deep, map(list, zip(*found, strict=True)) if found else [[] for _ in deep], strict=True))
    kept = block.rows if good.all() else block.rows.filter(pa.array(good))
    table = pa.table({name: _infer(inside[name]) if name in inside else kept[name] for name in names})
    return Block(table, block.numbers[good], skipped)


def _look_into(row: Mapping[str, Any], name: str) -> Any:
    """Return what lies at COLUMN.FIELD.0 of a row, None if nothing does; raise ValueError if it can't be told."""
    column = _find_column(name, row)
    value: Any = row.get(column)
    for step in name[len(column) + 1 :].split(".") if column != name else ():
        if isinstance(value, str):
            try:
                value = _parse_cell(value) if value.strip() else None
            except ValueError as error:
                raise ValueError(f"{column}: {error}: {value[:40]!r}") from error
        if value is None:
            return None
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            raise ValueError(f"{column} has a {type(value).__name__} where {name} asks for {step!r}")
    return value


@functools.lru_cache(maxsize=1)  # the names that a row is asked for lie mostly in one cell
def _parse_cell(text: str) -> Any:
    return _parse(text.encode())


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
        structs = {field.name for field in file.schema_arrow if pa.types.is_struct(field.type)}
        plain = [name for name in file.schema_arrow.names if name not in structs]
        nested = [f"{one}.{field.name}" for one in structs for field in file.schema_arrow.field(one).type]
        known = [*plain, *(name for name in nested if name not in plain)]
        taken = [name if name in (*known, *structs) else _find_column(name, {*known, *structs}) for name in names]
        _check_columns(path, [name for name, one in zip(names, taken, strict=True) if name == one], known)
        start = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(dict.fromkeys(taken))):
            whole = pa.Table.from_batches([batch])
            flat = whole.flatten()
            columns = {name: (whole if name in (*plain, *structs) else flat)[name] for name in taken}
            block = Block(_without_dictionaries(pa.table(columns)), np.arange(start, start + len(whole)), [])
            yield _dig(block, names)
            start += len(whole)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Return the table with categories as what they stand for."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _check_delimiter(path: Path, names: Sequence[str], known: Sequence[str], delimiter: str) -> None:
    """Raise InputError if the header is one cell that another delimiter would split."""
    (header, *more) = known
    if more or header in names:
        return
    for other, remedy in _DELIMITERS.items():
        if other in header:
            raise InputError(
                f"{path} seems to be separated by {other!r}, not by {delimiter!r} (its header is {header!r}): {remedy}"
            )


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
