"""The tables of an index in SQLite: what stands in them, and the functions that read and write it."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.checksums import Damage, crc_of_row, seal, unseal
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, StorageError
from multimodal_ssl.types import Preview

PATIENCE = 60.0  # seconds to wait for another writer
PAUSE = 10_000  # steps of SQLite after which it is asked whether a filter takes too long
NO_DAMAGE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

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


class Block(NamedTuple):
    """Vectors that were written together: the first row, how many, and the checksum of their bytes."""

    first: int
    rows: int
    crc: int


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


def damaged(folder: Path, why: str) -> StorageError:
    """Return what is said of an index that is not what was written."""
    return StorageError(f"the index {folder} is damaged ({why}): build it again or take a copy of it")


@contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Turn what SQLite says of the index in a folder into what a user can do."""
    try:
        yield
    except (Damage, UnicodeDecodeError) as error:
        raise damaged(folder, str(error)) from error
    except UnicodeEncodeError as error:
        raise InputError(f"a key, group or text is no valid Unicode: {error}") from error
    except sqlite3.ProgrammingError:  # the index was closed: no fault of its files
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise StorageError(f"{folder}: another process writes for {PATIENCE:.0f} s now; try again") from error
        if code in NO_DAMAGE:
            raise StorageError(f"{folder} can't be used: {error}") from error
        raise damaged(folder, str(error)) from error


@contextmanager
def hurrying(db: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Raise InputError if what is asked for in this block, a filter, takes longer."""
    end = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > end, PAUSE)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        raise InputError(f"the filter takes longer than {seconds:g} s: make it simpler") from error
    finally:
        db.set_progress_handler(None, 0)


def create(path: Path, facts: Mapping[str, Any]) -> None:
    """Make a database without items."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")  # who reads and who writes don't wait for each other
    db.executescript(SCHEMA)
    write_facts(db, facts)
    db.commit()
    db.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open a database; one that may not be written, as on a read-only disk, is taken to stay as it is."""
    can_write = os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)
    query = "mode=rw" if can_write else "mode=ro&immutable=1"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{query}", uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it is told
    return db


def read_facts(db: sqlite3.Connection) -> dict[str, Any]:
    """Return what was told of the index."""
    return {name: unseal(value, crc) for name, value, crc in db.execute("SELECT name, value, crc FROM facts")}


def write_facts(db: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    """Write facts, in the place of those with their names."""
    rows = [(name, *seal(value)) for name, value in facts.items()]
    db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)


def read_version(db: sqlite3.Connection) -> int:
    """Return the number of the last change."""
    return int(db.execute("SELECT coalesce(max(version), 0) FROM changes").fetchone()[0])


def read_changes(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the log of changes."""
    names = ("version", "at", "what", "modality", "items")
    rows = db.execute(f"SELECT {', '.join(names)} FROM changes ORDER BY version")
    return [dict(zip(names, row, strict=True)) for row in rows]


def write_change(db: sqlite3.Connection, version: int, what: str, modality: str, count: int) -> None:
    """Log a change."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    db.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", (version, at, what, modality, count))


def read_parts(db: sqlite3.Connection) -> dict[str, Part]:
    """Return the parts by modality."""
    rows = db.execute("SELECT modality, value, crc FROM parts ORDER BY modality")
    return {name: Part(**unseal(value, crc)) for name, value, crc in rows}


def write_part(db: sqlite3.Connection, modality: str, part: Part) -> None:
    """Write a part, in the place of what it was."""
    db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (modality, *seal(asdict(part))))


def read_blocks(db: sqlite3.Connection, modality: str) -> list[Block]:
    """Return the blocks of a part's vectors in their order."""
    query = "SELECT first, rows, crc FROM blocks WHERE modality = ? ORDER BY first"
    return [Block(*row) for row in db.execute(query, (modality,))]


def write_block(db: sqlite3.Connection, modality: str, block: Block) -> None:
    """Write down a block."""
    db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", (modality, *block))


def read_places(db: sqlite3.Connection, modality: str, after: int = 0) -> Places:
    """Return the items of a modality whose id is greater than `after`."""
    query = "SELECT id, vector, grp FROM items WHERE modality = ? AND id > ? ORDER BY id"
    found = db.execute(query, (modality, after)).fetchall()
    try:
        ids, rows = (np.fromiter((one[column] for one in found), np.int64, len(found)) for column in (0, 1))
        return Places(ids, rows, hash64(one[2] for one in found))
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise Damage(f"the items are not what was written: {error}") from error


def move(db: sqlite3.Connection, modality: str, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Tell of all items of a modality in which rows of a new file their vectors are; forget what had been deleted."""
    db.execute("DELETE FROM blocks WHERE modality = ?", (modality,))
    db.executemany("UPDATE items SET vector = ? WHERE id = ?", zip(rows.tolist(), ids.tolist(), strict=True))
    db.execute("DELETE FROM deletions")


def find(db: sqlite3.Connection, modality: str, keys: Sequence[str]) -> dict[str, int]:
    """Return the ids of the items with these keys that are there."""
    query = "SELECT id FROM items WHERE modality = ? AND key = ?"
    return {key: row[0] for key in keys if (row := db.execute(query, (modality, key)).fetchone())}


def find_row(db: sqlite3.Connection, modality: str, digest: int) -> int | None:
    """Return the row of a vector with this digest that some item has, or None."""
    query = "SELECT vector FROM items WHERE modality = ? AND digest = ? LIMIT 1"
    found = db.execute(query, (modality, digest)).fetchone()
    return None if found is None else int(found[0])


def select(db: sqlite3.Connection, modality: str, condition: str, values: Sequence[str | float]) -> NDArray[np.int64]:
    """Return the ids of the items of a modality of which an SQL condition holds; its values are bound."""
    query = f"SELECT id FROM items WHERE modality = ? AND ({condition})"
    return np.array([id for (id,) in db.execute(query, (modality, *values))], np.int64)


def read_fields(db: sqlite3.Connection, modality: str) -> list[str]:
    """Return the names of all metadata of a modality."""
    query = "SELECT DISTINCT one.key FROM items, json_each(metadata) AS one WHERE modality = ? ORDER BY one.key"
    return [name for (name,) in db.execute(query, (modality,))]


def read_items(db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, Item]:
    """Return the items with these ids that are there, by id, in the order of the ids."""
    ids = list(ids)
    query = (
        f"SELECT {SEALED}, crc, png, wav FROM items LEFT JOIN previews USING (id) "
        "WHERE id IN (SELECT value FROM json_each(?))"
    )
    found = {}
    for *sealed, crc, png, wav in db.execute(query, (json.dumps(ids),)):
        id, modality, key, group, metadata, text, path, caption, shown, _ = sealed
        if crc_of_row(sealed) != crc or crc_of_row((png, wav)) != shown:
            raise Damage(f"item {key!r} is not what was written")
        found[id] = Item(id, modality, key, group, json.loads(metadata), Preview(text, png, wav, path, caption))
    return {id: found[id] for id in ids if id in found}


def check_items(db: sqlite3.Connection, after: int = 0) -> int:
    """Compare items whose id is greater than `after` with their checksums, but for previews; return the last id."""
    for *row, crc in db.execute(f"SELECT {SEALED}, crc FROM items WHERE id > ? ORDER BY id", (after,)):
        if crc_of_row(row) != crc:
            raise Damage(f"item {row[2]!r} is not what was written")
        after = row[0]
    return after


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


def delete(db: sqlite3.Connection, ids: Sequence[int], version: int) -> NDArray[np.int64]:
    """Delete items in a change and return the rows [N] of their vectors."""
    gone = [(id,) for id in ids]
    rows = [db.execute("SELECT vector FROM items WHERE id = ?", one).fetchone()[0] for one in gone]
    db.executemany("DELETE FROM items WHERE id = ?", gone)
    db.executemany("DELETE FROM previews WHERE id = ?", gone)
    db.executemany("INSERT INTO deletions VALUES (?, ?)", [(id, version) for id in ids])
    return np.array(rows, np.int64)


def read_deleted(db: sqlite3.Connection, version: int) -> NDArray[np.int64]:
    """Return the ids of items that later changes deleted."""
    found = db.execute("SELECT id FROM deletions WHERE version > ?", (version,))
    return np.array([id for (id,) in found], np.int64)


def _plain(metadata: Mapping[str, str | float | None]) -> str:
    """Return metadata as JSON; a number that is none is null there."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metadata.items()
    }
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)
