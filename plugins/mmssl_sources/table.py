"""The pairing source ``table``: one sample a row of a CSV, TSV, JSONL or Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmssl_sources import formats
from mmssl_sources.cells import Cells
from mmssl_sources.fetch import parse_rules
from mmssl_sources.several import Spread, find_texts, spread
from multimodal_ssl import InputError, Manifest, MapSource, Sample, UnreadableError

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class Table(MapSource):
    """A file whose rows are samples and whose cells are items or say where they lie.

    Nothing is decoded here: the engine does it in a worker. Cells that are null, NaN, blank or an empty list hold no
    item. The options are those of the factory.

    Attributes:
        skipped: rows that can't be parsed: their number in the file, counted as for keys, and why.
    """

    def __init__(
        self,
        *,
        path: Path,
        columns: Mapping[str, str | Mapping[str, Any]],
        key: str | None,
        group: str | None,
        weight: str | None,
        metadata: Sequence[str],
        where: Mapping[str, Any] | None,
        root: Path | None,
        limit: int | None,
        urls: Mapping[str, Any] | None,
    ) -> None:
        if not columns:
            raise InputError("columns is empty: say which column holds what, e.g. {image: file, text: caption}")
        self._cells = {name: Cells.parse(name, given) for name, given in columns.items()}
        self.modalities = {name: cells.modality for name, cells in self._cells.items()}
        self._urls = None if urls is None else parse_rules(urls)
        names = [column for cells in self._cells.values() for column in cells.columns]
        names += [name for name in (key, group, weight, *metadata) if name is not None]
        rows, numbers, self.skipped = _read_rows(path, names, where or {}, limit)
        self._root = path.parent if root is None else root
        self._keys = numbers.cast(pa.string()) if key is None else read_keys(rows, key, path, numbers)
        self._groups = None if group is None else read_groups(rows, group, path)
        self._weights = None if weight is None else read_weights(rows, weight, path, self._keys)
        self._metadata = {name: read_metadata(rows, name, path) for name in metadata}
        self._columns = {name: _take_columns(rows, cells, path) for name, cells in self._cells.items()}
        self._rows: np.ndarray | None = None  # of which the samples are, [N]; None: each row is one sample
        self._wrong: dict[str, Mapping[int, str]] = {}  # name -> row -> why its texts can't be read
        self._split = _find_split(self._cells)
        for name, cells in self._cells.items():
            if cells.several:
                texts = find_texts(self._columns[name], lists=len(cells.columns) == 1)
                samples = spread(texts, len(rows), each=name == self._split)
                self._columns[name], self._wrong[name] = [samples.texts], texts.wrong
                if name == self._split:
                    self._rows = samples.rows
                    self._groups = _group_texts(self._groups, self._keys, samples, path)
                    self._keys = _name_texts(self._keys, samples)
        self._present = np.column_stack([self._find(name) for name in self._cells])  # [N, M]: M names

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index].as_py()
        row = index if self._rows is None else int(self._rows[index])
        present = tuple(compress(self.modalities, self._present[index].tolist()))
        if not present:
            raise UnreadableError(key, f"the row has no {' and no '.join(self.modalities)}")
        return Sample(
            key,
            {name: self._read(name, index if name == self._split else row, row, key) for name in present},
            group="" if self._groups is None else self._groups[index].as_py(),
            weight=1.0 if self._weights is None else self._weights[row].item(),
            metadata={name: column[row].as_py() for name, column in self._metadata.items()},
        )

    def manifest(self) -> Manifest:
        lengths = [self._spread(name, self._cells[name].measure(columns)) for name, columns in self._columns.items()]
        return Manifest(
            self._present,
            None if self._groups is None else number(self._groups),
            np.where(self._present, np.column_stack(lengths), 0).astype(np.float32),
        )

    def _find(self, name: str) -> np.ndarray:
        """Return which samples have the items of a name, [N] (bool); those that can't be read are there."""
        found = np.any([self._cells[name].find(column) for column in self._columns[name]], axis=0)
        found = self._spread(name, found)
        if wrong := list(self._wrong.get(name, ())):
            found |= np.isin(np.arange(len(found)) if self._rows is None else self._rows, wrong)
        return found

    def _spread(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return what is known of the cells of a name for each sample, [N]."""
        return values if self._rows is None or name == self._split else values[self._rows]

    def _read(self, name: str, place: int, row: int, key: str) -> Any:
        try:
            if why := self._wrong.get(name, {}).get(row):
                raise ValueError(why)
            return self._cells[name].read([column[place] for column in self._columns[name]], self._root, self._urls)
        except ValueError as error:
            raise UnreadableError(key, f"{name}: {error}") from error


def _find_split(cells: Mapping[str, Cells]) -> str | None:
    """Return the name whose texts are a sample each, or None."""
    names = [name for name, one in cells.items() if one.several == "each"]
    if len(names) > 1:
        raise InputError(
            f"columns.{names[0]} and columns.{names[1]} both say `several: each`: keep it for one, "
            "and give the other `several: first`"
        )
    return names[0] if names else None


def _group_texts(
    groups: pa.ChunkedArray | None, keys: pa.Array | pa.ChunkedArray, samples: Spread, path: Path
) -> pa.ChunkedArray:
    """Return the groups of samples, [N]: those of their rows, or else the keys of these."""
    keys = pa.chunked_array([keys]) if isinstance(keys, pa.Array) else keys
    rows = pa.array(samples.rows)
    if groups is None:
        return keys.take(rows)
    alone = pc.equal(groups, "")
    both = pc.and_(alone, pc.is_in(keys, value_set=groups.combine_chunks()))
    if len(found := pc.indices_nonzero(both)):
        raise InputError(
            f"{path}: row {keys[found[0].as_py()].as_py()!r} has no group, so its texts have its key for a group, "
            "but other rows have a group of that name: give it a group"
        )
    return pc.if_else(alone, keys, groups).take(rows)


def _name_texts(keys: pa.Array | pa.ChunkedArray, samples: Spread) -> pa.ChunkedArray:
    """Return KEY#0, KEY#1, ...: of all rows, so that no key of another row can be the same."""
    of_rows = keys.take(pa.array(samples.rows))
    joined = pc.binary_join_element_wise(of_rows, pa.array(samples.numbers).cast(pa.string()), "#")
    return pa.chunked_array([joined]) if isinstance(joined, pa.Array) else joined


def _read_rows(
    path: Path, names: Sequence[str], where: Mapping[str, Any], limit: int | None
) -> tuple[pa.Table, pa.Array, list[tuple[str, str]]]:
    """Return the rows that pass where, at most limit, the numbers of these rows (from 0), and what was skipped."""
    names = list(dict.fromkeys(names))
    tables, numbers, skipped = [], [], []
    seen = kept = 0
    first: list[dict[str, Any]] = []
    with closing(formats.read(path, list(dict.fromkeys([*names, *where])))) as blocks:
        for rows, places, broken in blocks:
            mask = match(rows, where, path)
            if limit is not None:
                mask &= np.cumsum(mask) <= limit - kept
            # Filtered at once, and so copied: what is left out must not stay in memory, nor be pickled for workers.
            tables.append(rows.select(names) if mask.all() else rows.select(names).filter(pa.array(mask)))
            numbers.append(places[mask])
            skipped += broken
            first = first or rows.select(list(where)).slice(0, 1).to_pylist()
            seen += len(rows)
            kept += len(tables[-1])
            if kept == limit:
                break
    if not kept:
        asked = f"; where asks for {dict(where)}, the first row has {first[0]}" if where and first else ""
        wrong = f"; {len(skipped)} can't be parsed, e.g. {': '.join(skipped[0])}" if skipped else ""
        raise InputError(f"{path}: no row is left of {seen}{asked}{wrong}")
    table = formats.join(tables)
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_null(kind):
            raise InputError(f"{path}: no row has anything in column {name!r}")
    return table, pa.array(np.concatenate(numbers)), skipped


def match(block: pa.Table, where: Mapping[str, Any], path: Path) -> np.ndarray:
    """Return which rows have the values that are asked for, [N] (bool)."""
    mask = np.ones(len(block), bool)
    for name, given in where.items():
        kind = block[name].type
        values = given if isinstance(given, list) else [given]
        if pa.types.is_null(kind):  # a block of JSONL without any value
            mask &= None in values
            continue
        try:
            wanted = pa.array([pa.scalar(value).cast(kind).as_py() for value in values], kind)
            mask &= pc.is_in(block[name], value_set=wanted).to_numpy()
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(f"where.{name} is {given!r}, but the column of {path} holds {kind}") from error
    return mask


def read_keys(rows: pa.Table, name: str, path: Path, numbers: pa.Array) -> pa.ChunkedArray:
    """Return a column of keys as text; raise InputError if one is missing or comes again."""
    keys = cast_to_text(rows, name, path)
    empty = pc.indices_nonzero(pc.equal(keys.fill_null(""), ""))
    if len(empty):
        number = numbers[empty[0].as_py()]
        raise InputError(f"{path}: rows without a key in {name!r}: {len(empty)}, e.g. row {number} (from 0)")
    if pc.count_distinct(keys).as_py() < len(keys):
        counts = pc.value_counts(keys)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        some = ", ".join(map(repr, repeated[:5].to_pylist()))
        raise InputError(f"{path}: keys that {name!r} gives to more than one row: {len(repeated)}, e.g. {some}")
    return keys


def cast_to_text(rows: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """Return a column as text; raise InputError if that can't be."""
    try:
        return rows[name].cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"{path}: {name!r} holds {rows[name].type}, which is no text") from error


def read_groups(rows: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """Return a column as groups, "" where it is null or NaN."""
    groups = cast_to_text(rows, name, path)
    if pa.types.is_floating(rows[name].type):
        groups = pc.if_else(pc.is_nan(rows[name]), "", groups)
    return groups.fill_null("")


def read_metadata(rows: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """Return a column of plain values: numbers and texts as they are, what else can be text as text."""
    kind = rows[name].type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return rows[name]
    return cast_to_text(rows, name, path)


def number(groups: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each group [N], equal where the groups are; "" is a group of its own."""
    codes = pc.dictionary_encode(groups).combine_chunks()
    numbers: np.ndarray = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    alone = pc.equal(groups, "").to_numpy()
    numbers[alone] = -1 - np.flatnonzero(alone)
    return numbers


def parse_weights(rows: pa.Table, name: str, path: Path) -> np.ndarray:
    """Return a column as weights [N], NaN where they are none in (0, 1]."""
    texts = pc.utf8_trim_whitespace(cast_to_text(rows, name, path))
    numeric = pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, pa.scalar(None, pa.string()))
    weights: np.ndarray = numeric.cast(pa.float64()).fill_null(np.nan).to_numpy()
    return np.where((weights > 0) & (weights <= 1), weights, np.nan)


def read_weights(rows: pa.Table, name: str, path: Path, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a column of weights [N]; raise InputError if one of them is not in (0, 1]."""
    weights = parse_weights(rows, name, path)
    wrong = np.flatnonzero(np.isnan(weights))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}: the weight ({name!r}) of row {keys[row].as_py()!r} is {rows[name][row].as_py()!r}, "
            f"not in (0, 1] ({len(wrong)} such rows of {len(rows)})"
        )
    return weights


def _take_columns(rows: pa.Table, cells: Cells, path: Path) -> list[pa.ChunkedArray]:
    taken = []
    for name in cells.columns:
        try:
            taken.append(cells.check(rows[name]))
        except ValueError as error:
            raise InputError(f"{path}: column {name!r} can't be {cells.name!r}: {error}") from error
    return taken
