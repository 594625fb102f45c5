"""Trust: a running agreement per sample, which weighs it at its next visit and tells afterwards what was believed.

CRCL's self-refining correspondence (Qin et al. 2023, eq. 9) for every objective, but geometric: t is the mean of
log agreement over the visits after the warm-up, and where these are many a running one. Agreements span orders of
magnitude, and a pair that was believed once in a while, in an easy batch, is not thereby trusted. In CRCL the weight is
t itself. But how large an agreement is depends on the batch and on how far training is, and early on that of most right
pairs is near 0; so here it is compared with the best: w = min(1, t / (full * sqrt(progress) * top)), top being a
running .9-quantile of t, and a weight below the floor is 0. Each kind of batch has a top of its own: pairs of a source
that is harder than another one are not wrong for that.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimodal_ssl.config import TrustConfig
from multimodal_ssl.files import replacing

TOP = 0.9  # quantile of the trust in a batch that is called the top
TOP_MOMENTUM = 0.95
LEAST = 1e-6  # agreement; less says nothing more
RECENT = 65_536  # samples seen first since the last merge: they are merged seldom, since it costs a pass over all


class Records(NamedTuple):
    """16 bytes a sample, sorted by name."""

    names: NDArray[np.int64]
    values: NDArray[np.float32]
    visits: NDArray[np.uint32]

    def find(self, names: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of the names are here, and where."""
        places = np.searchsorted(self.names, names)
        inside = np.flatnonzero(places < len(self.names))
        found = inside[self.names[places[inside]] == names[inside]]
        return found, places[found]

    def merge(self, other: Records) -> Records:
        """Return the records of both."""
        names = np.concatenate([self.names, other.names])
        order = np.argsort(names, kind="stable")
        values = np.concatenate([self.values, other.values])
        return Records(names[order], values[order], np.concatenate([self.visits, other.visits])[order])


EMPTY = Records(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.uint32))


@final
class Trust:
    """The running agreement of every sample that was visited, by the hash of its key (see `data.hash64`)."""

    def __init__(self, config: TrustConfig) -> None:
        self.config = config
        self.tops: dict[int, float] = {}  # by kind of batch (see `data.Batch.kind`)
        self._settled = self._recent = EMPTY

    def __len__(self) -> int:
        return len(self._settled.names) + len(self._recent.names)

    def weights(self, names: NDArray[np.int64], *, kind: int = 0, progress: float = 1.0) -> NDArray[np.float32]:
        """Return the weights [B] of samples of one kind when so much of training is over: 1 before the warm-up is."""
        weights = np.ones(len(names), np.float32)
        enough = max(self.config.full * math.sqrt(progress) * self.tops.get(kind, 0.0), 1e-9)
        for part in (self._settled, self._recent):
            found, places = part.find(names)
            values = np.minimum(1, part.values[places] / enough)
            trusted = np.where(values < self.config.floor, 0, values)
            weights[found] = np.where(part.visits[places] < self.config.warmup, 1, trusted)
        return weights

    def update(self, names: NDArray[np.int64], agreement: NDArray[np.float32], *, kind: int = 0) -> None:
        """Take a visit of samples [B] of one kind into account; a name that repeats has the geometric mean."""
        names, which, counts = np.unique(names, return_inverse=True, return_counts=True)
        logs = np.bincount(which, np.log(np.maximum(agreement, LEAST))) / counts
        unknown = np.ones(len(names), bool)
        for part in (self._settled, self._recent):
            found, places = part.find(names)
            unknown[found] = False
            counted = np.maximum(part.visits[places].astype(np.int64) - self.config.warmup + 1, 1)  # this one, too
            momentum = np.minimum(self.config.momentum, 1 - 1 / counted)
            logs[found] = momentum * np.log(part.values[places]) + (1 - momentum) * logs[found]
            part.values[places] = np.exp(logs[found])
            part.visits[places] += 1
        if unknown.any():
            new = Records(names[unknown], np.exp(logs[unknown], dtype=np.float32), np.ones(unknown.sum(), np.uint32))
            self._recent = self._recent.merge(new)
        top = math.exp(np.quantile(logs, TOP))
        before = self.tops.get(kind, top)
        self.tops[kind] = before + (1 - TOP_MOMENTUM) * (top - before)
        if len(self._recent.names) > max(RECENT, len(self._settled.names) // 8):
            self._settled, self._recent = self._settled.merge(self._recent), EMPTY

    def values(self, names: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the running agreement [B] of samples, in (0, 1]; NaN of one that was never visited."""
        values = np.full(len(names), np.nan, np.float32)
        for part in (self._settled, self._recent):
            found, places = part.find(names)
            values[found] = part.values[places]
        return values

    def tensors(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint."""
        names, values, visits = self._settled.merge(self._recent)
        tensors = {"names": names, "values": values, "visits": visits.astype(np.int64)}
        kinds, tops = np.array([*self.tops], np.int64), np.array([*self.tops.values()], np.float64)
        return {field: torch.from_numpy(one) for field, one in (tensors | {"kinds": kinds, "tops": tops}).items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the state of a checkpoint."""
        names, values, visits = (tensors[field].numpy() for field in ("names", "values", "visits"))
        self.tops = dict(zip(tensors["kinds"].tolist(), tensors["tops"].tolist(), strict=True))
        self._settled, self._recent = Records(names.copy(), values.copy(), visits.astype(np.uint32)), EMPTY

    def save(self, path: Path) -> None:
        """Write a Parquet file: hash of the key, trust, visits; and the tops as metadata."""
        tensors = self.tensors()
        columns = {field: tensors[field].numpy() for field in ("names", "values", "visits")}
        table = pa.table(columns, metadata={"tops": json.dumps(self.tops)})
        with replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path, config: TrustConfig) -> Trust:
        """Read what `save` wrote."""
        trust = cls(config)
        table = pq.ParquetFile(path).read()
        names, values, visits = (table[field].to_numpy() for field in ("names", "values", "visits"))
        trust.tops = {int(kind): top for kind, top in json.loads(table.schema.metadata[b"tops"]).items()}
        trust._settled = Records(names.copy(), values.copy(), visits.astype(np.uint32))
        return trust
