"""What one frozen encoder makes of items, on the disk: appended, never changed, memory-mapped, shared between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
    """Vectors [N, F] (float32) by 64-bit keys other than 0; an item has one, or several in a row (tokens).

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
        """See what others have appended; raise InputError if vectors were lost."""
        keys = np.fromfile(self._keys, np.int64, count=self._keys.stat().st_size // 8)
        self._ends = np.flatnonzero(keys)  # rows of key 0 belong to the item that ends with the next key
        if self._vectors.stat().st_size < 4 * self.width * len(self):
            raise InputError(f"{self._vectors} is cut short or lost: remove its folder, and features are computed anew")
        order = np.argsort(keys[self._ends], kind="stable")
        self._order = self._ends[order]
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return int(self._ends[-1]) + 1 if len(self._ends) else 0

    def find(self, keys: Keys) -> Keys:
        """Return the row of each key [n], the last one of an item that has several; -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)

    def first(self, rows: Keys) -> Keys:
        """Return the first row of the item that ends with each row [n]."""
        place = np.searchsorted(self._ends, rows)
        return np.where(place > 0, self._ends[place - 1] + 1, 0)

    def append(self, keys: Keys, items: Sequence[NDArray[np.float32]]) -> None:
        """Write the vectors [T, F] of items, T being of each its own and 1 at least; `refresh` lets `find` know."""
        vectors = np.concatenate(items)
        if vectors.shape[1] != self.width:
            raise ValueError(f"vectors are {vectors.shape[1]} wide, not {self.width}")
        marks = np.zeros(len(vectors), np.int64)
        marks[np.cumsum([len(one) for one in items]) - 1] = keys
        with self._lock:
            count = self._whole()
            for path, data, size in (
                (self._vectors, np.ascontiguousarray(vectors, np.float32), 4 * self.width),
                (self._keys, marks, 8),
            ):
                with path.open("r+b") as file:
                    file.seek(count * size)
                    file.write(data.tobytes())
                    file.flush()
                    os.fsync(file.fileno())

    def _whole(self) -> int:
        """Return how many rows belong to whole items: a process may have been stopped within one."""
        with self._keys.open("rb") as file:
            for count in range(self._keys.stat().st_size // 8, 0, -1):
                file.seek(8 * (count - 1))
                if any(file.read(8)):
                    return count
        return 0

    def vectors(self) -> NDArray[np.float32]:
        """Return all vectors, [N, F], mapped from the disk."""
        if not len(self):
            return np.empty((0, self.width), np.float32)
        mapped = np.memmap(self._vectors, np.float32, "r", shape=(len(self), self.width))
        return mapped.view(np.ndarray)  # whose rows take a third of the time
