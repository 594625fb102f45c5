"""The Binder and the index that are served; an index that takes the place of another is noticed and opened."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

from mmssl_server.refusals import LOG
from multimodal_ssl import Index, InputError
from multimodal_ssl.binder import Binder
from multimodal_ssl.errors import StorageError
from multimodal_ssl.store import DATABASE

T = TypeVar("T")
MOVING = 1.0  # seconds that an index may be away while another takes its place


@final
class Library:
    """What is served.

    Args:
        name: of the run.
        folder: of the index.
        patience: seconds that a filter may take.
    """

    def __init__(self, binder: Binder, folder: Path, *, name: str, patience: float) -> None:
        self.binder, self.folder, self.name, self.patience = binder, folder, name, patience
        self._lock = threading.Lock()
        self._index = self._open()
        self._file = self._which()

    @property
    def index(self) -> Index:
        """The index that is in the folder now; raises StorageError if it is one that can't be served."""
        now = self._which()
        if now not in (self._file, None):  # None while one is moved away and another into its place
            with self._lock:
                if now != self._file:
                    self._replace(now)
        return self._index

    def change(self, make: Callable[[Index], T]) -> T:
        """Make a change of the index that is in the folder, and again if another took its place meanwhile."""
        while True:
            index = self.index
            try:
                made = make(index)
            except StorageError:
                if self._settled() is index:
                    raise
                continue
            if self._settled() is index:
                return made

    def close(self) -> None:
        """Give the files back."""
        self._index.close()

    def _open(self) -> Index:
        index = Index(self.folder)
        index.check(self.binder.fingerprint())
        index.store.patience = self.patience
        return index

    def _replace(self, now: tuple[int, int] | None) -> None:
        # Others may still read the old one, whose files are open though deleted: it is closed when the last lets it go.
        try:
            self._index = self._open()
        except InputError as error:
            raise StorageError(f"the index was replaced by one that can't be served: {error}") from error
        self._file = now
        LOG.warning("the index was replaced: the new one is served")

    def _settled(self) -> Index:
        """Return the index that is in the folder when none is on its way there."""
        end = time.monotonic() + MOVING
        while self._which() is None:
            if time.monotonic() > end:
                raise StorageError(f"there is no index in {self.folder} any more: nothing can be changed")
            time.sleep(0.01)
        return self.index

    def _which(self) -> tuple[int, int] | None:
        """Return what tells the file of an index from that of another, or None while there is none."""
        try:
            found = os.stat(self.folder / DATABASE)
        except OSError:
            return None
        return found.st_dev, found.st_ino
