"""The features of one frozen encoder on the disk: appended, never changed, memory-mapped, shared between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.files import write_text

Keys = NDArray[np.int64]


def default_folder() -> Path:
    """Return where features are kept unless a config says where: MMSSL_CACHE, or the user's cache folder."""
    if given := os.environ.get("MMSSL_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmssl" / "features"


class FeatureStore:
    """Vectors [N, F] (float32) by 64-bit keys.

    A vector is there when its key is: keys are written last, and what lies behind them is written over. So a process
    that was stopped anywhere leaves a whole store. Processes append in turns.

    Args:
        folder: of the encoder; made if it is not there.
        width: F.
        about: of the encoder, for people who look into the folder.
    """

    def __init__(self, folder: Path, width: int, about: Mapping[str, Any]) -> None:
        self.folder, self.width = folder, width
        self._keys, self._vectors = folder / "keys.i64", folder / "vectors.f32"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            with self._lock:
                self._keys.touch()
                self._vectors.touch()
                if not (folder / "about.json").exists():
                    write_text(folder / "about.json", json.dumps({**about, "width": width}, indent=2, default=str))
        except OSError as error:
            raise InputError(
                f"features can't be kept in {folder} ({error.strerror or error}): give another folder with cache=FOLDER"
            ) from error
        self.refresh()

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path, int, Mapping[str, Any]]]:
        return FeatureStore, (self.folder, self.width, {})

    def refresh(self) -> None:
        """See what others have appended."""
        keys = np.fromfile(self._keys, np.int64, count=self._keys.stat().st_size // 8)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: Keys) -> Keys:
        """Return the row of each key [n], -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)

    def append(self, keys: Keys, vectors: NDArray[np.float32]) -> None:
        """Write vectors [n, F]; `refresh` lets `find` know of them."""
        if vectors.shape != (len(keys), self.width):
            raise ValueError(f"vectors are {vectors.shape}, not {(len(keys), self.width)}")
        with self._lock:
            count = self._keys.stat().st_size // 8
            for path, data, size in (
                (self._vectors, np.ascontiguousarray(vectors, np.float32), 4 * self.width),
                (self._keys, np.ascontiguousarray(keys, np.int64), 8),
            ):
                with path.open("r+b") as file:
                    file.seek(count * size)
                    file.write(data.tobytes())
                    file.flush()
                    os.fsync(file.fileno())

    def vectors(self) -> NDArray[np.float32]:
        """Return all vectors, [N, F], mapped from the disk."""
        if not len(self):
            return np.empty((0, self.width), np.float32)
        mapped = np.memmap(self._vectors, np.float32, "r", shape=(len(self), self.width))
        return mapped.view(np.ndarray)  # whose rows take a third of the time
