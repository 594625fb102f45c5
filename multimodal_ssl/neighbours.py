"""Nearest neighbours by cosine, exact among few vectors; of many, those in the cells around the query."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 100_000  # vectors, up to which all are compared
PROBES = 32  # cells that are searched, of 4 sqrt(N)
POINTS = 64  # vectors a cell that its centre is learnt from


def neighbours(vectors: NDArray[np.float32], queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the rows [Q, count] of the unit vectors [N, D] that are nearest to queries [Q, D], the nearest first.

    Above EXACT vectors some are missed (Sivic and Zisserman 2003: an inverted file), so that it takes N sqrt(N), not
    N^2; where too few are found the nearest stands in their places.
    """
    import faiss

    exact = faiss.IndexFlatIP(vectors.shape[1])
    index: Any = exact
    if len(vectors) > EXACT:
        cells = round(4 * len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(exact, exact.d, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = POINTS
        index.nprobe = PROBES
        index.train(vectors)
    index.add(vectors)
    found: NDArray[np.int64] = index.search(queries, min(count, len(vectors)))[1]
    return np.where(found < 0, found[:, :1], found)


def nearest_other(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows [Q] of the unit vectors [N, D] that are nearest to queries [Q, D], their own rows left out."""
    near = neighbours(vectors, queries, 2)
    nearest: NDArray[np.int64] = np.where(near[:, 0] == rows, near[:, -1], near[:, 0])
    return nearest
