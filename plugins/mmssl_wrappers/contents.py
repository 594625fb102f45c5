"""Which items hold the same bytes: files are hashed as a stream, and only those that share their size with another."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_ssl import LazyItem, UnreadableError
from multimodal_ssl.digests import raw_digest


class Glance(NamedTuple):
    """What is kept of an item until all were seen: a path as it is; of others their size and their digest."""

    path: Path | None
    size: int
    digest: Hashable


def glance(item: Any) -> Glance:
    """Look at an item without reading a file; a text counts as its UTF-8 bytes, and a file may hold the same.

    What can't be read (see `find`) is equal to nothing, as a file is that is gone.
    """
    if isinstance(item, UnreadableError):
        return Glance(None, -1, None)
    if isinstance(item, LazyItem):
        try:
            item = item.read()
        except (OSError, ValueError):
            return Glance(None, -1, None)
    if isinstance(item, Path):
        try:
            return Glance(item, item.stat().st_size, None)
        except OSError:
            return Glance(None, -1, None)
    if isinstance(item, str):
        item = item.encode(errors="surrogatepass")
    if isinstance(item, bytes):
        return Glance(None, len(item), hashlib.blake2b(item, digest_size=16).digest())
    return Glance(None, -1, raw_digest(item))


def digests(glances: Sequence[Glance | None]) -> Iterator[Hashable]:
    """Yield what is equal where the bytes of items [N] are: None for an item that is missing.

    A file that can't be read is equal to nothing.
    """
    sizes = Counter(one.size for one in glances if one is not None and one.size >= 0)
    for row, one in enumerate(glances):
        if one is None:
            yield None
        elif one.digest is not None:
            yield one.digest
        elif one.path is None or sizes[one.size] == 1:
            yield "alone", row
        else:
            try:
                with one.path.open("rb") as file:
                    yield hashlib.file_digest(file, _blake2b).digest()
            except OSError:
                yield "alone", row


def _blake2b() -> Any:
    return hashlib.blake2b(digest_size=16)
