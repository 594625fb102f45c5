"""Hashes of items: whether two of them are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_ssl.types import Inputs, LazyItem

LARGE = 8 << 20  # bytes of a file, from which its digest is that of its size, beginning, middle and end
PART = 1 << 20  # bytes of each of these


def digest(inputs: Inputs) -> int:
    """Return a 64-bit hash of prepared inputs: equal where an encoder can't tell two items apart."""
    hasher = hashlib.blake2b(digest_size=8)

    def add(one: Inputs) -> None:
        if isinstance(one, Mapping):
            hasher.update(f"dict {len(one)};".encode())
            for key in sorted(one):
                hasher.update(f"{key};".encode())
                add(one[key])
        elif isinstance(one, list | tuple):
            hasher.update(f"list {len(one)};".encode())
            for part in one:
                add(part)
        elif isinstance(one, Tensor):
            hasher.update(f"{one.dtype} {tuple(one.shape)};".encode())
            hasher.update(one.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            values = np.asarray(one)
            if values.dtype == object:
                raise TypeError(f"{type(one).__name__} has no digest: give tensors, arrays, numbers or texts")
            hasher.update(f"{values.dtype} {values.shape};".encode())
            hasher.update(values.tobytes())

    add(inputs)
    return int.from_bytes(hasher.digest(), "little", signed=True)


def raw_digest(item: Any) -> int:
    """Return a 64-bit hash of a raw item: of a file that of its path, of a lazy item that of its `repr`."""
    if isinstance(item, Path):
        item = os.path.abspath(item)
    elif isinstance(item, LazyItem):
        item = repr(item)
    return digest(np.frombuffer(item, np.uint8) if isinstance(item, bytes) else item)


def as_text(item: Any) -> Any:
    """Return what a text item says: itself, or the UTF-8 of a file, bytes or a lazy item; what is no text as it is.

    Raises OSError or ValueError where it can't be read.
    """
    if isinstance(item, LazyItem):
        item = item.read()
    if isinstance(item, Path):
        item = item.read_bytes()
    return item.decode("utf-8-sig") if isinstance(item, bytes) else item


def content_digest(item: Any) -> int:
    """Return a 64-bit hash of what a raw item holds, of a path that of the file.

    Raises TypeError for a type that has none, OSError or ValueError where it can't be read.
    """
    if isinstance(item, str):
        return _hash(b"text", item.encode("utf-8", "surrogatepass"))
    if isinstance(item, bytes | bytearray | memoryview):
        return _hash_bytes(bytes(item))
    if isinstance(item, LazyItem):
        return content_digest(item.read())
    if isinstance(item, Path):
        return _hash_file(item)
    return digest(item)


def item_digest(items: Mapping[str, Any], name: str, modality: str) -> int:
    """Return the `content_digest` of one of the items of a sample, of a text that of what it says."""
    return content_digest(as_text(items[name]) if modality == "text" else items[name])


def item_key(item: Any, modality: str) -> int:
    """Return a 64-bit key of what an item holds, never 0; of a file by its path, size and time of its last change.

    A string that is no file's path is an item itself, as those of some modalities are.

    Raises TypeError for a kind of item that has none, such as a picture, whose pixels are not all that it is.
    """
    if isinstance(item, LazyItem):
        item = item.read()
    if isinstance(item, Path) or (isinstance(item, str) and modality != "text"):
        try:
            state = os.stat(item)
        except (OSError, ValueError):  # if it should have been one, its modality tells
            return digest(os.fspath(item)) or 1
        return digest(f"{os.path.abspath(item)} {state.st_size} {state.st_mtime_ns}") or 1
    if isinstance(item, bytes | bytearray | memoryview):
        whole = hashlib.blake2b(item, digest_size=8).digest()  # `content_digest` takes parts of large ones
        return int.from_bytes(whole, "little", signed=True) or 1
    if not isinstance(item, str | int | float | np.ndarray | np.generic | Tensor | Mapping | list | tuple):
        raise TypeError(f"{type(item).__name__} has no key")
    return digest(item) or 1


def _hash_file(path: Path) -> int:
    size = path.stat().st_size
    if size <= LARGE:
        return _hash_bytes(path.read_bytes())
    parts = []
    with path.open("rb") as file:
        for start in (0, size // 2, size - PART):
            file.seek(start)
            parts.append(file.read(PART))
    return _hash(f"large {size}".encode(), *parts)


def _hash_bytes(data: bytes) -> int:
    if len(data) <= LARGE:
        return _hash(b"bytes", data)
    middle = len(data) // 2
    return _hash(f"large {len(data)}".encode(), data[:PART], data[middle : middle + PART], data[-PART:])


def _hash(kind: bytes, *parts: bytes) -> int:
    hasher = hashlib.blake2b(kind, digest_size=8)
    for part in parts:
        hasher.update(part)
    return int.from_bytes(hasher.digest(), "little", signed=True)
