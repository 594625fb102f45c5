"""Exact search: every vector is compared, or those that are allowed, or those that a structure named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

PACKET = 2**22  # numbers that are gathered at once


def import_faiss() -> Any:
    """Import faiss late, because torch brings another OpenMP; its type stubs lack what is used here."""
    import faiss

    return faiss


def exact(vectors: Vectors, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    """Return cosines and rows [Q, K] of the nearest of unit vectors [N, D] by comparing all; K = min(k, N)."""
    faiss = import_faiss()
    scores, rows = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def rescored(vectors: Vectors, queries: Vectors, rows: Rows, k: int) -> tuple[Vectors, Rows]:
    """Return the exact cosines and the rows [Q, K] of the best among candidate rows [Q, C]; those of -1 have -inf."""
    k = min(k, rows.shape[1])
    scores = np.empty((len(queries), k), np.float32)
    best = np.empty((len(queries), k), np.int64)
    size = max(1, PACKET // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(queries), size):
        some = rows[start : start + size]
        cosines = np.einsum("qcd,qd->qc", vectors[np.maximum(some, 0)], queries[start : start + size])
        cosines[some < 0] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        scores[start : start + size] = np.take_along_axis(cosines, order, 1)
        best[start : start + size] = np.take_along_axis(some, order, 1)
    return scores, best


def exact_allowed(vectors: Vectors, queries: Vectors, k: int, allowed: NDArray[np.bool_]) -> tuple[Vectors, Rows]:
    """Return cosines and rows [Q, K] of the nearest among the allowed rows [N] by comparing all of them.

    K = min(k, allowed rows).
    """
    rows = np.flatnonzero(allowed)
    size = max(1, PACKET // vectors.shape[1])
    scores, found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if not len(rows):
        return scores, found
    if 4 * len(rows) < len(vectors):
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            near, places = exact(vectors[part], queries, k)
            scores, found = best_of([scores, near], [found, part[places]], k)
        return scores, found
    size = max(k, PACKET // max(vectors.shape[1], len(queries)))
    for start in range(0, len(vectors), size):  # where most are allowed it is faster not to copy them
        cosines = queries @ vectors[start : start + size].T
        cosines[:, ~allowed[start : start + size]] = -np.inf
        some = np.argpartition(-cosines, min(k, cosines.shape[1]) - 1, axis=1)[:, :k]
        scores, found = best_of([scores, np.take_along_axis(cosines, some, 1)], [found, start + some], k)
    return scores[:, : len(rows)], found[:, : len(rows)]


def best_of(scores: Sequence[Vectors], rows: Sequence[Rows], k: int) -> tuple[Vectors, Rows]:
    """Return the K best of several answers [Q, K'] to the same queries, the best first."""
    every, where = np.concatenate(scores, 1), np.concatenate(rows, 1)
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, order, 1), np.take_along_axis(where, order, 1)
