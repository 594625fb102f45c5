"""Tables for the pairing source ``table``: how they are written and opened, and what it says of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from pyarrow import parquet

import mmssl_sources
from mmssl_sources.table import Table
from multimodal_ssl import Catalog, InputError, UnreadableError

CATALOG = Catalog.of(sources=mmssl_sources)
PAIR = {"image": "file", "text": "caption"}
SERIES = {"a": {"columns": ["x", "y"], "modality": "series"}, "text": "caption"}
FORMATS = ["csv", "tsv", "jsonl", "parquet"]
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def open_table(path: Path, columns: dict[str, Any] = PAIR, **options: Any) -> Table:
    """Open a table through the catalog, which checks the options."""
    return CATALOG.create("pairing_sources", "table", options={"path": path, "columns": columns, **options})


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table in the format of its suffix."""
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
    """Return rows of a path and a caption that csv has to quote."""
    return [{"id": f"00{i}", "file": f"{i}.png", "caption": f'a, "b"\tc\n{i}', "w": (i + 1) / 4} for i in range(count)]
