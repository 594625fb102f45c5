"""Checksums of what an index keeps, so that a flipped byte is told and never becomes an answer."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 1 << 64


class Damage(Exception):
    """Something is not what was written."""


def crc_of(vectors: NDArray[np.float32]) -> int:
    """Return the CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(vectors).data)


def crc_of_row(row: Iterable[Any]) -> int:
    """Return the CRC-32 of a row of numbers, texts, bytes and None."""
    return zlib.crc32(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def seal(value: Any) -> tuple[str, int]:
    """Return a value as JSON with its checksum."""
    text = json.dumps(value, ensure_ascii=False)
    return text, zlib.crc32(text.encode())


def unseal(text: Any, crc: Any) -> Any:
    """Return a value that was sealed; raise Damage if it is another now."""
    if not isinstance(text, str) or zlib.crc32(text.encode("utf-8", "surrogatepass")) != crc:
        raise Damage(f"{text!r:.60} is not what was written")
    return json.loads(text)


def checksum_of(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> int:
    """Return a sum over pairs (id, row) [N] in which each of them counts: of a set it can be kept up to date."""
    ids, rows = ids.astype(np.uint64), rows.astype(np.uint64)
    mixed = ids * np.uint64(0x9E3779B97F4A7C15) + rows * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return int((mixed ^ (mixed >> np.uint64(32))).sum(dtype=np.uint64))


def digests_of(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a 64-bit hash of each vector [N, D]."""
    digests = (hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(vectors))
    return np.frombuffer(b"".join(digests), np.int64)
