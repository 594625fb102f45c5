"""Pairing sources for data as it lies around."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register


def table(
    *,
    path: Path,
    columns: dict[str, str | dict[str, Any]],
    key: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    where: dict[str, Any] | None = None,
    root: Path | None = None,
    limit: int | None = None,
) -> PairingSource:
    """A CSV, TSV, JSONL or Parquet file, one sample a row, one column a modality."""
    from mmssl_sources.table import Table

    return Table(path=path, columns=columns, key=key, group=group, weight=weight, where=where, root=root, limit=limit)


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("table", table)
