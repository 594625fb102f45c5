"""Items to index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl import Index, Preview
from multimodal_ssl.embed import Embedded

from .toys import units


def items(seed: int, count: int, prefix: str = "k") -> Embedded:
    return Embedded(
        units(count, 16, seed=seed),
        [f"{prefix}{i}" for i in range(count)],
        [f"g{i // 2}" for i in range(count)],
        [Preview(text=f"t{i}") for i in range(count)],
        metadata=[{"number": float(i), "name": f"n{i}"} for i in range(count)],
    )


def keys_of(index: Index, ids: NDArray[np.int64]) -> list[str]:
    return [hit.item.key for hit in index.hits(ids, np.zeros(len(ids), np.float32))]
