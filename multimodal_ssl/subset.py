"""Some of the samples of a source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.types import Manifest, MapSource, Sample


class Subset(MapSource):
    """The samples of a MapSource at these rows [N]."""

    def __init__(self, source: MapSource, rows: NDArray[np.int64]) -> None:
        self.source, self.rows = source, rows
        self.modalities, self.skipped = source.modalities, source.skipped

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.rows[index])]

    def manifest(self) -> Manifest:
        return self.source.manifest().take(self.rows)
