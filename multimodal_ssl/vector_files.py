"""Vectors in a file, row after row in little-endian float32, of which only the first rows are told to be there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.files import sync_folder

NUMBER = np.dtype("<f4")


def map_vectors(path: Path, rows: int, dim: int) -> NDArray[np.float32]:
    """Return the first rows [N, D] of a file, mapped into memory; raise OSError or ValueError if it has fewer."""
    return np.memmap(path, NUMBER, "r", shape=(rows, dim)) if rows else np.empty((0, dim), np.float32)


def append_vectors(path: Path, rows: int, vectors: NDArray[np.float32]) -> None:
    """Write vectors [N, D] behind the first rows of a file, over what a writer left that was stopped, to the disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(rows * vectors.shape[1] * NUMBER.itemsize)
        file.seek(0, os.SEEK_END)
        file.write(np.ascontiguousarray(vectors, NUMBER).data)
        file.flush()
        os.fsync(file.fileno())
    if not rows:
        sync_folder(path.parent)
