"""Sources without, or with less of, what an audit holds for wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from multimodal_ssl.config import AuditConfig
from multimodal_ssl.data import Supply, attempt, full_key
from multimodal_ssl.errors import InputError
from multimodal_ssl.types import Manifest, MapSource, PairingSource, Sample

SOON = 10_000  # samples of a stream, of which its audit knows one at least


def apply_audit(supplies: list[Supply], config: AuditConfig) -> list[Supply]:
    """Return the supplies as the audit leaves them; raise InputError if it is none, or of other data.

    A sample that the audit does not know stays as it is; of one with several pairs the worst counts.
    """
    trust = _read(config)
    audited = []
    lost = known = total = 0
    for position, supply in enumerate(supplies):
        if isinstance(supply.source, MapSource):
            factors, found = _factors(supplies, position, supply.source, trust)
            rows = np.flatnonzero(factors)
            lost, known, total = lost + len(factors) - len(rows), known + found, total + len(factors)
            audited.append(replace(supply, source=AuditedMap(supply.source, rows, factors[rows])))
        else:
            stream = AuditedStream(supply.source, supplies, position, trust, config.path)
            audited.append(replace(supply, source=stream))
    if total:
        _tell(config.path, lost, known, total)
    return audited


def _tell(path: Path, lost: int, known: int, total: int) -> None:
    """Print what an audit does; raise InputError if it knows no sample."""
    if not known:
        raise InputError(f"{path} knows none of the {total:,} samples: it is an audit of other sources")
    text = f"audit: {lost:,} of {total:,} samples are left out; it does not know {total - known:,}"
    Console(stderr=True).print(text, markup=False, highlight=False)


class AuditedMap(MapSource):
    """Some rows [N] of a MapSource, each weight times a factor [N]."""

    def __init__(self, source: MapSource, rows: NDArray[np.int64], factors: NDArray[np.float64]) -> None:
        self.source, self.rows, self.factors = source, rows, factors
        self.modalities, self.skipped = source.modalities, source.skipped

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[int(self.rows[index])]
        return replace(sample, weight=sample.weight * float(self.factors[index]))

    def manifest(self) -> Manifest:
        return self.source.manifest().take(self.rows)


class AuditedStream(PairingSource):
    """The samples of a source that an audit leaves, each weight times what it leaves of it.

    What is left out is told at the end of the first pass. Raises InputError after the first SOON samples, if the audit
    knows none of them.
    """

    def __init__(
        self, source: PairingSource, supplies: list[Supply], position: int, trust: Mapping[str, float], path: Path
    ) -> None:
        self.source, self.supplies, self.position, self.trust, self.path = source, supplies, position, trust, path
        self.modalities = source.modalities
        self._is_told = False

    def __iter__(self) -> Iterator[Sample]:
        lost = known = total = 0
        for sample in self.source:
            key = full_key(self.supplies, self.position, sample.key)
            factor = self.trust.get(key, 1.0)
            lost, known, total = lost + (not factor), known + (key in self.trust), total + 1
            if total == SOON and not known:
                _tell(self.path, lost, known, total)
            self.skipped = self.source.skipped
            if factor:
                yield replace(sample, weight=sample.weight * factor)
        self.skipped = self.source.skipped
        if total and not self._is_told:
            _tell(self.path, lost, known, total)
            self._is_told = True


def _read(config: AuditConfig) -> dict[str, float]:
    """Return what is left of the weight of each sample that is known, by key."""
    try:
        table = pq.ParquetFile(config.path).read(["key", "p_mismatch"])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"can't read the audit {config.path}: {error}") from error
    if table.column_names != ["key", "p_mismatch"]:
        raise InputError(f"{config.path} is no audit.parquet: it lacks key or p_mismatch; make one with `mmssl audit`")
    trust: dict[str, float] = {}
    for key, p in zip(table["key"].to_pylist(), table["p_mismatch"].to_pylist(), strict=True):
        left = 1.0 if p is None else 1 - p if config.use == "weigh" else float(p < config.above)
        trust[key] = min(left, trust.get(key, 1.0))
    return trust


def _factors(
    supplies: list[Supply], position: int, source: MapSource, trust: Mapping[str, float]
) -> tuple[NDArray[np.float64], int]:
    """Return the factor [N] of each row, and how many rows the audit knows."""
    factors, known = np.ones(len(source)), 0
    for row, sample in attempt(source):
        if isinstance(sample, Sample):  # the others are recorded by training
            key = full_key(supplies, position, sample.key)
            factors[row] = trust.get(key, 1.0)
            known += key in trust
    return factors, known
