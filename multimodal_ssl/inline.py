"""A source given in words: its name and its options, as ``table path=pairs.csv columns.image=file``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimodal_ssl.config import SourceConfig, override_key, parse_sources
from multimodal_ssl.errors import InputError, nearest

LOOK = 10_000  # files of a folder that are looked at


def parse_source(name: str, options: Sequence[str], known: Sequence[str]) -> SourceConfig:
    """Return the config of a source; raise InputError if there is none of the name, or an option is no KEY=VALUE."""
    if name not in known:
        if Path(name).exists():
            raise InputError(explain(Path(name)))
        raise InputError(f"{name!r} is no config (.yaml), no source and no file: {nearest(name, known)}")
    values: dict[str, Any] = {"name": name}
    for option in options:
        override_key(values, option)
    return parse_sources([values], name)[0]


def explain(path: Path) -> str:
    """Say how to write the source that reads a file or folder: what is what in it is not guessed."""
    if path.is_dir():
        files = (one.suffix.lower() or "none" for one in islice(path.rglob("*"), LOOK) if one.is_file())
        suffixes = ", ".join(f"{suffix} ({count:,})" for suffix, count in Counter(files).most_common(8))
        example = f"mmssl inspect folder path={path} items.image=.jpg items.text=.txt"
        return (
            f"{path} is a folder; say which suffix holds what, e.g. `{example}`; its suffixes: {suffixes or 'no files'}"
        )
    columns = _columns(path)
    example = f"mmssl inspect table path={path} columns.image=COLUMN columns.text=COLUMN"
    if columns is None:
        return (
            f"{path} is a file, and a source reads it: `mmssl plugins` lists them; of a table, e.g. .csv, .jsonl or "
            f".parquet, say which column holds what: `{example}`"
        )
    return f"{path} is a table; say which column holds what: `{example}`; its columns: {', '.join(columns[:30])}"


def _columns(path: Path) -> list[str] | None:
    """Return the names of the columns of a table; None if it is none that can be told."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return list(pq.read_schema(path).names)
        if suffix in (".csv", ".tsv", ".jsonl"):
            with path.open(encoding="utf-8-sig") as file:
                line = file.readline(100_000)
            return (
                list(json.loads(line)) if suffix == ".jsonl" else line.strip().split("," if suffix == ".csv" else "\t")
            )
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return None
    return None
