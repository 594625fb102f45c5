"""Some of the samples of a source: folds that keep groups together, for training on one part and judging the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import attempt, hash64
from multimodal_ssl.errors import InputError, UnreadableError
from multimodal_ssl.types import MapSource, PairingSource, Sample


class Subset(MapSource):
    """The samples of a MapSource at these rows [N]."""

    def __init__(self, source: MapSource, rows: NDArray[np.int64]) -> None:
        self.source, self.rows = source, rows
        self.modalities, self.skipped = source.modalities, source.skipped

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.rows[index])]

    def present(self, index: int) -> Collection[str]:
        return self.source.present(int(self.rows[index]))


def folds_of(source: PairingSource, folds: int) -> NDArray[np.int64]:
    """Return the fold [N] of each sample, 0 to folds - 1: by the hash of its group, so that groups stay together.

    Raises InputError for a source without random access.
    """
    if not isinstance(source, MapSource):
        raise InputError(f"{type(source).__name__} has no random access to part it by: write it to a table first")
    found = (one for _, one in attempt(source))
    names = [one.key if isinstance(one, UnreadableError) else one.group or one.key for one in found]
    return fold_of(names, folds)


def fold_of(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Return the fold [N] of each group."""
    return (hash64(groups).astype(np.uint64) % np.uint64(folds)).astype(np.int64)
