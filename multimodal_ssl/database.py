"""The tables of an index in SQLite: what stands in them, and the only functions that read and write their rows."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.checksums import Damage, crc_of_row, seal, unseal
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.types import Preview

PATIENCE = 60.0  # seconds to wait for another writer

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE parts (modality TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE blocks (modality TEXT, first INTEGER, rows INTEGER, crc INTEGER, PRIMARY KEY (modality, first));
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, modality TEXT NOT NULL, key TEXT NOT NULL, grp TEXT NOT NULL,
    metadata TEXT NOT NULL, text TEXT, path TEXT, caption TEXT, shown INTEGER NOT NULL, digest INTEGER NOT NULL,
    crc INTEGER NOT NULL, vector INTEGER NOT NULL, UNIQUE (modality, key)
);
CREATE INDEX by_digest ON items (modality, digest);
CREATE TABLE previews (id INTEGER PRIMARY KEY, png BLOB, wav BLOB);
CREATE TABLE changes (version INTEGER PRIMARY KEY, at TEXT, what TEXT, modality TEXT, items INTEGER);
CREATE TABLE deletions (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
"""
SEALED = "id, modality, key, grp, metadata, text, path, caption, shown, digest"  # what the checksum of an item is over


@dataclass(frozen=True, slots=True)
class Part:
    """What is committed of one modality.

    Attributes:
        file: of the vectors.
        rows: of the file; several items may have one, and some may have none any more.
        items: that are there.
        checksum: over their ids and rows.
        total: the sum of their vectors [D].
        structure: what the search structure over the first rows is and where, or None.
    """

    file: str
    rows: int = 0
    items: int = 0
    checksum: int = 0
    total: tuple[float, ...] = ()
    structure: Mapping[str, Any] | None = None


class Item(NamedTuple):
    """An item as it was indexed."""

    id: int
    modality: str
    key: str
    group: str
    metadata: Mapping[str, str | float | None]
    preview: Preview


class Places(NamedTuple):
    """Items by their id, ascending: ids, rows of their vectors and hashes of their groups, all [N]."""

    ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]


def connect(path: Path) -> sqlite3.Connection:
    """Open a database; one that may not be written, as on a read-only disk, is taken to stay as it is."""
    can_write = os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)
    query = "mode=rw" if can_write else "mode=ro&immutable=1"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{query}", uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it is told
    return db


def read_version(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(version), 0) FROM changes").fetchone()[0])


def read_parts(db: sqlite3.Connection) -> dict[str, Part]:
    rows = db.execute("SELECT modality, value, crc FROM parts ORDER BY modality").fetchall()
    return {name: Part(**unseal(value, crc)) for name, value, crc in rows}


def write_part(db: sqlite3.Connection, modality: str, part: Part) -> None:
    db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (modality, *seal(asdict(part))))


def read_places(db: sqlite3.Connection, modality: str, after: int = 0) -> Places:
    found = db.execute(
        "SELECT id, vector, grp FROM items WHERE modality = ? AND id > ? ORDER BY id", (modality, after)
    ).fetchall()
    try:
        ids, rows = (np.fromiter((one[column] for one in found), np.int64, len(found)) for column in (0, 1))
        return Places(ids, rows, hash64(one[2] for one in found))
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise Damage(f"the items are not what was written: {error}") from error


def find(db: sqlite3.Connection, modality: str, keys: Sequence[str]) -> dict[str, int]:
    query = "SELECT id FROM items WHERE modality = ? AND key = ?"
    return {key: row[0] for key in keys if (row := db.execute(query, (modality, key)).fetchone())}


def insert(
    db: sqlite3.Connection, modality: str, items: Embedded, rows: NDArray[np.int64], digests: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Write items and return their ids; an id is never given twice."""
    first = 1 + int(db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()[0])
    ids = np.arange(first, first + len(rows))
    previews, metadata = items.previews or [Preview()] * len(rows), items.metadata or [{}] * len(rows)
    written, seen = [], []
    for id, vector, digest, key, group, preview, known in zip(
        ids.tolist(), rows.tolist(), digests.tolist(), items.keys, items.groups, previews, metadata, strict=True
    ):
        shown = crc_of_row((preview.png, preview.wav))
        row = (id, modality, key, group, _plain(known), preview.text, preview.path, preview.caption, shown, digest)
        written.append((*row, crc_of_row(row), vector))
        if preview.png or preview.wav:
            seen.append((id, preview.png, preview.wav))
    db.executemany(f"INSERT INTO items ({SEALED}, crc, vector) VALUES ({', '.join('?' * 12)})", written)
    db.executemany("INSERT INTO previews VALUES (?, ?, ?)", seen)
    return ids


def _plain(metadata: Mapping[str, str | float | None]) -> str:
    """Return metadata as JSON; a number that is none is null there."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metadata.items()
    }
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)


def read_item(row: tuple[Any, ...], seen: tuple[bytes | None, bytes | None]) -> Item:
    *sealed, crc = row
    id, modality, key, group, metadata, text, path, caption, shown, _ = sealed
    if crc_of_row(sealed) != crc or crc_of_row(seen) != shown:
        raise Damage(f"item {key!r} is not what was written")
    return Item(id, modality, key, group, json.loads(metadata), Preview(text, *seen, path, caption))
