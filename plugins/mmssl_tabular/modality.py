"""The modality of rows: what one is, how it is read, and what a page shows of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from multimodal_ssl import Modality, Preview

Row: TypeAlias = dict[str, float | str]
"""Name of a column -> number or category; NaN is missing."""

BLANK = {
    "", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NULL", "null", "None", "none", "-", "?",
}  # fmt: skip


def load(value: Any) -> Row:
    """Read a row from a mapping, or from the path or bytes of a JSON object.

    A cell is a number, true or false (1 or 0), or a text; None, NaN and texts such as "", "NA" and "null" are missing.
    """
    if isinstance(value, bytes | str | os.PathLike):
        data = value if isinstance(value, bytes) else Path(value).read_bytes()
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected a JSON object, but {data[:40]!r} can't be parsed: {error}") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"a row is a mapping of columns to numbers and texts, not a {type(value).__name__}")
    row = {str(name): _cell(name, cell) for name, cell in value.items()}
    if all(is_missing(cell) for cell in row.values()):
        raise ValueError(f"nothing is in the {len(row)} columns of the row")
    return row


def is_missing(cell: float | str) -> bool:
    """Tell whether there is nothing in a cell."""
    return isinstance(cell, float) and math.isnan(cell)


def _cell(name: Any, cell: Any) -> float | str:
    if isinstance(cell, str):
        return math.nan if cell.strip() in BLANK else cell.strip()
    if cell is None:
        return math.nan
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {name!r} holds a {type(cell).__name__}, neither a number nor a text") from error
    if math.isinf(number):
        raise ValueError(f"column {name!r} is infinite; NaN or null is missing")
    return number


def preview(item: Row) -> Preview:
    """Write a line for each column."""
    shown = {
        name: one if isinstance(one, str) else "" if is_missing(one) else f"{one:.10g}" for name, one in item.items()
    }
    return Preview(text="\n".join(f"{name}: {one}".rstrip() for name, one in shown.items()))


def measure(item: Row) -> dict[str, float]:
    """Return the number of columns and the share of them that are missing."""
    return {"columns": len(item), "missing": sum(map(is_missing, item.values())) / len(item)}


TABULAR = Modality("tabular", dict, load, preview, measure)
