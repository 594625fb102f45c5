"""How the cells of a table become items: bytes, numbers, arrays, texts and paths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmssl_sources.fetch import Download, Rules
from mmssl_sources.several import parse_texts
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # two letters or more: C:// is a disk

_REMEDY = "`several: each` for a sample for each text of a row, or `several: first` for the first"


@dataclass(frozen=True, slots=True)
class Cells:
    """Which cells make the items of one name, and how.

    Attributes:
        stacked: each column is one channel.
        row: each column is one cell of a row (modality tabular).
        path: a string is a path.
        json: a string that begins with "[" is a list.
        several: of the texts of a row, each is a sample, or the first is taken; None: a row has one.
        text: a string is one text, even if it looks like a list of them.
    """

    name: str
    modality: str
    columns: tuple[str, ...]
    stacked: bool
    row: bool
    path: bool
    json: bool
    several: str | None
    text: bool

    @classmethod
    def parse(cls, name: str, given: str | Mapping[str, Any]) -> Cells:
        """Read the option: a column, {column, modality, path, several} or {columns, modality, several}."""
        options = {"column": given} if isinstance(given, str) else dict(given)
        for option in options:
            if option not in (known := ("column", "columns", "modality", "path", "several")):
                raise InputError(f"columns.{name} has no option {option!r}: {nearest(option, known)}")
        several = options.get("several")
        modality = options.get("modality", name)
        if not isinstance(modality, str):
            raise InputError(f"columns.{name}.modality must be the name of a modality (given: {modality!r})")
        row = "columns" in options and modality == "tabular"
        stacked = "columns" in options and several is None and not row
        columns = options.get("columns", [options.get("column")])
        if not isinstance(columns, list) or not columns or not all(isinstance(column, str) for column in columns):
            raise InputError(f"columns.{name} must name a column, or a list of `columns` (given: {given!r})")
        if "columns" in options and ("column" in options or "path" in options):
            raise InputError(
                f"columns.{name}: `columns` are {'channels' if stacked else 'cells' if row else 'texts'} of one item, "
                "so neither column nor path goes with it"
            )
        if several is not None and (several not in ("each", "first") or modality != "text" or "path" in options):
            raise InputError(
                f"columns.{name}.several must be each or first, for the modality text, without path (given: {given!r})"
            )
        if stacked and modality == "text":
            raise InputError(
                f"columns.{name}: texts can't be channels: add `several: each` for a sample for each text of a row, or "
                "`several: first` for the first"
            )
        path = options.get("path", modality != "text" and not row)
        if not isinstance(path, bool):
            raise InputError(f"columns.{name}.path must be true or false (given: {path!r})")
        may_be_list = modality != "text" and not row and options.get("path") is not True
        return cls(name, modality, tuple(columns), stacked, row, path, may_be_list, several, "path" in options)

    def check(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the column, its numbers as text if the modality is text; raise ValueError if it can't be used."""
        kind = column.type
        if self.row:
            if not (_is_number(kind) or _is_string(kind)):
                raise ValueError(f"it holds {kind}, but a cell of a row is a number or a string")
            return column
        if self.several and (_is_string(kind) or _is_list_of_texts(kind)):
            return column
        if self.modality == "text" and not self.text:
            _refuse_lists(column)
        while _is_list(kind) and self.modality != "text":
            kind = kind.value_type
        if _is_number(kind) and self.modality == "text":
            return column.cast(pa.string())
        in_list = kind != column.type
        if not (_is_number(kind) or (pa.types.is_null(kind) if in_list else _is_string(kind) or _is_bytes(kind))):
            raise ValueError(f"it holds {column.type}, not strings, bytes, numbers or lists of numbers")
        return column

    def find(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return which cells hold something, [N] (bool)."""
        kind = column.type
        if _is_string(kind):
            blank = pa.array(["", "[]"] if self.json else [""], kind)
            found = pc.invert(pc.is_in(pc.utf8_trim_whitespace(column), value_set=blank))
            found = pc.and_(found, column.is_valid())
        elif _is_bytes(kind):
            found = pc.greater(pc.binary_length(column), 0)
        elif _is_list(kind):
            found = pc.greater(pc.list_value_length(column), 0)
        elif pa.types.is_floating(kind):
            found = pc.invert(column.is_null(nan_is_null=True))
        else:
            found = column.is_valid()
        mask: np.ndarray = found.fill_null(False).to_numpy()
        return mask

    def measure(self, columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
        """Return how long each item is, [N]: characters of a text, bytes, numbers of a list; 0 of what is elsewhere."""
        kind = columns[0].type
        if self.modality == "text" and _is_string(kind):
            lengths = pc.utf8_length(columns[0])
        elif _is_bytes(kind):
            lengths = pc.binary_length(columns[0])
        elif _is_list(kind):
            lengths = pc.list_value_length(columns[0])
        else:
            return np.zeros(len(columns[0]))
        found: np.ndarray = lengths.fill_null(0).to_numpy()
        return found

    def read(self, cells: Sequence[pa.Scalar], root: Path, urls: Rules | None) -> Any:
        """Return what Modality.load takes; raise ValueError if it is not to be had."""
        if self.row:
            values = [cell.as_py() for cell in cells]
            # Not None, of which there is no digest.
            return {name: math.nan if one is None else one for name, one in zip(self.columns, values, strict=True)}
        if self.stacked:
            return _stack([_channel(cell) for cell in cells]).astype(np.float32)
        if isinstance(cells[0], pa.ListScalar):
            return _array(cells[0].values)
        value = cells[0].as_py()
        if not isinstance(value, str):
            return value
        if self.json and value.lstrip().startswith("["):
            return _parse(value)
        if not self.path:
            return value
        if _URL.match(value):
            if urls is not None:
                return Download(value, urls)
            raise ValueError(f"URLs are not fetched: download {value} and put the file's path here, or set `urls`")
        return root / value


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_list_of_texts(kind: pa.DataType) -> bool:
    return _is_list(kind) and (_is_string(kind.value_type) or pa.types.is_null(kind.value_type))


def _refuse_lists(column: pa.ChunkedArray) -> None:
    """Raise ValueError if a cell is a list of texts."""
    if _is_string(column.type):
        for place in pc.indices_nonzero(pc.starts_with(column, '["')).to_pylist():
            cell = column[place].as_py()
            try:
                parse_texts(cell)
            except ValueError:
                continue  # a text that begins like a list
            raise ValueError(
                f"{cell[:40]!r} is a list of texts: say {_REMEDY}; `path: false` takes it as one text as it is"
            )
    elif _is_list_of_texts(column.type):
        raise ValueError(f"it holds lists of texts: say {_REMEDY}")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _channel(cell: pa.Scalar) -> np.ndarray | None:
    """Return one channel [T], or None if it is missing."""
    if isinstance(cell, pa.ListScalar):
        return None if cell.values is None else _array(cell.values)
    value = cell.as_py()
    if isinstance(value, str):
        return _parse(value) if value.strip() else None
    return None if value is None else np.array([value])


def _array(values: pa.Array) -> np.ndarray:
    """Return a list of numbers, or of lists of equal shape, as an array, nulls being NaN."""
    if _is_list(values.type):
        return _stack([None if one.values is None else _array(one.values) for one in values])
    if values.null_count or not pa.types.is_primitive(values.type):
        values = values.cast(pa.float64())
    # A copy: the table's memory can't be written to.
    return np.array(values.to_numpy(zero_copy_only=False))


def _parse(text: str) -> np.ndarray:
    """Return a JSON list of numbers as an array, nulls being NaN."""
    try:
        return _from_lists(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{text[:40]!r} is no list in JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("a list nested too deep") from error


def _from_lists(value: Any) -> np.ndarray:
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, list) for one in values):
        return _stack([None if one is None else _from_lists(one) for one in values])
    array = np.array([math.nan if one is None else one for one in values])
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{str(value)[:40]!r} is no list of numbers")
    return array


def _stack(rows: Sequence[np.ndarray | None]) -> np.ndarray:
    """Stack arrays of equal shape, a missing one being NaN."""
    shapes = {row.shape for row in rows if row is not None}
    if len(shapes) != 1:
        lengths = dict.fromkeys("none" if row is None else "x".join(map(str, row.shape)) for row in rows)
        raise ValueError(f"the lengths of the channels differ: {', '.join(list(lengths)[:5])}")
    missing = np.full(shapes.pop(), np.nan)
    return np.stack([missing if row is None else row for row in rows])
