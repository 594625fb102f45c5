"""The folder of an index: items and the log of changes in SQLite, vectors in files beside it.

A change appends vectors to their file, brings them to the disk and then commits to SQLite what they mean; what lies
behind the last committed row is no part of the index and is written over. So whatever stops the machine, the last
committed state is there. One process writes at a time, any number read. Everything has a checksum that is compared
before an answer is made from it.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.checksums import WORD, Damage, checksum_of, crc_of, crc_of_row, digests_of, seal, unseal
from multimodal_ssl.database import (
    PATIENCE,
    SCHEMA,
    SEALED,
    Item,
    Part,
    Places,
    connect,
    find,
    insert,
    read_item,
    read_parts,
    read_places,
    read_version,
    write_part,
)
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, StorageError
from multimodal_ssl.files import sync_folder

FORMAT = 3
DATABASE = "index.sqlite"
CHUNK = 2**22  # numbers that are copied at once
STALE = 3600.0  # seconds after which a file that no part names is of no living writer
BUSY, READ_ONLY, STOPPED, DISK, FULL, NO_FILE = 5, 8, 9, 10, 13, 14  # codes of SQLite that mean no damage
PAUSE = 10_000  # steps of SQLite after which it is asked whether a filter takes too long


@final
class Store:
    """The items and vectors of an index in a folder, see `create`.

    Attributes:
        facts: what was told at its creation, such as the Binder's fingerprint, and what was noted since.
        dim: D.
        patience: seconds that a filter may take; set it where strangers ask.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.patience: float | None = None
        if not (self.folder / DATABASE).is_file():
            earlier = (self.folder / "manifest.json").is_file()
            raise InputError(
                f"{folder} is an index of an earlier version: build it again with `mmssl index RUN`"
                if earlier
                else f"{folder} holds no index; make one with `mmssl index RUN`"
            )
        self._reading, self._writing = threading.RLock(), threading.RLock()
        with self._explaining():
            self._reader = connect(self.folder / DATABASE)
            self._writer: sqlite3.Connection | None = None
            facts = self._reader.execute("SELECT name, value, crc FROM facts").fetchall()
            self.facts: Mapping[str, Any] = {name: unseal(value, crc) for name, value, crc in facts}
        if self.facts.get("format") != FORMAT or "dim" not in self.facts:
            raise InputError(
                f"{folder} is an index of format {self.facts.get('format')}, this version reads {FORMAT}: build it "
                "again with `mmssl index RUN`"
            )
        self.dim: int = self.facts["dim"]

    @classmethod
    def create(cls, folder: Path | str, facts: Mapping[str, Any]) -> Store:
        """Make an empty store in a folder that is new or empty; `facts` are what never changes, `dim` among them."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = any(not name.name.endswith(".tmp") for name in folder.iterdir())
        except OSError as error:
            raise InputError(f"{folder} can't be made a folder ({error.strerror}): give another") from error
        if taken:
            raise InputError(f"{folder} is not empty: it is left as it is; give another folder")
        temporary = folder / f"{uuid.uuid4().hex}.tmp"
        db = sqlite3.connect(temporary)
        db.execute("PRAGMA journal_mode = WAL")  # who reads and who writes don't wait for each other
        db.executescript(SCHEMA)
        everything = {**facts, "format": FORMAT}
        db.executemany("INSERT INTO facts VALUES (?, ?, ?)", [(name, *seal(one)) for name, one in everything.items()])
        db.commit()
        db.close()
        temporary.replace(folder / DATABASE)
        sync_folder(folder)
        return cls(folder)

    def close(self) -> None:
        """Give the files back."""
        self._reader.close()
        if self._writer:
            self._writer.close()

    # What is there.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that is read in this block be of one moment."""
        with self._reading, self._explaining():
            if self._reader.in_transaction:
                yield
                return
            self._reader.execute("BEGIN")
            try:
                yield
            finally:
                self._reader.execute("ROLLBACK")

    def version(self) -> int:
        """Return the number of the last change that was committed, by whomever."""
        with self.reading():
            return read_version(self._reader)

    def parts(self) -> dict[str, Part]:
        """Return what is committed, by modality."""
        with self.reading():
            return read_parts(self._reader)

    def vectors(self, part: Part) -> NDArray[np.float32]:
        """Return the vectors [N, D] of a part, mapped into memory."""
        if not part.rows:
            return np.empty((0, self.dim), np.float32)
        try:
            return np.memmap(self.folder / part.file, np.dtype("<f4"), "r", shape=(part.rows, self.dim))
        except (OSError, ValueError) as error:
            raise self._damaged(f"{part.file}: {error}") from error

    def check_vectors(self, modality: str, part: Part, since: int = 0) -> None:
        """Compare the vectors from a row on with their checksums."""
        with self.reading():
            blocks = self._reader.execute(
                "SELECT first, rows, crc FROM blocks WHERE modality = ? ORDER BY first", (modality,)
            ).fetchall()
        vectors, reached = self.vectors(part), 0
        for first, rows, crc in blocks:
            if first != reached:
                break
            reached += rows
            if first >= since and crc_of(vectors[first:reached]) != crc:
                raise self._damaged(f"{part.file}: rows {first} to {reached} are not what was written")
        if reached != part.rows:
            raise self._damaged(f"{part.file}: {part.rows} rows, but checksums of {reached}")

    def places(self, modality: str, after: int = 0) -> Places:
        """Return the items of a modality whose id is greater than `after`."""
        with self.reading():
            return read_places(self._reader, modality, after)

    def check_places(self, part: Part, places: Places) -> None:
        """Raise InputError unless these are all items of a part."""
        if len(places.ids) != part.items or checksum_of(places.ids, places.rows) != part.checksum:
            raise self._damaged(f"{len(places.ids)} items are not the {part.items} that were written")

    def deleted_since(self, version: int) -> NDArray[np.int64]:
        """Return the ids of items that later changes deleted."""
        with self.reading():
            found = self._reader.execute("SELECT id FROM deletions WHERE version > ?", (version,)).fetchall()
        return np.array([id for (id,) in found], np.int64)

    def items(self, ids: Iterable[int]) -> dict[int, Item]:
        """Return the items with these ids that are there, by id."""
        found: dict[int, Item] = {}
        query = f"SELECT {SEALED}, crc, png, wav FROM items LEFT JOIN previews USING (id) WHERE id = ?"
        with self.reading():
            for id in ids:
                if row := self._reader.execute(query, (id,)).fetchone():
                    found[id] = read_item(row[:-2], row[-2:])
        return found

    def find(self, modality: str, keys: Sequence[str]) -> dict[str, int]:
        """Return the ids of the items with these keys that are there."""
        with self.reading():
            return find(self._reader, modality, keys)

    def select(self, modality: str, condition: str, values: Sequence[str | float]) -> NDArray[np.int64]:
        """Return the ids of the items of a modality of which an SQL condition holds; its values are bound."""
        query = f"SELECT id FROM items WHERE modality = ? AND ({condition})"
        with self.reading():
            if self.patience is not None:
                end = time.monotonic() + self.patience
                self._reader.set_progress_handler(lambda: time.monotonic() > end, PAUSE)
            try:
                return np.array([id for (id,) in self._reader.execute(query, (modality, *values))], np.int64)
            finally:
                self._reader.set_progress_handler(None, 0)

    def check_items(self) -> None:
        """Compare all items with their checksums, but for their pictures and sounds."""
        with self.reading():
            for *row, crc in self._reader.execute(f"SELECT {SEALED}, crc FROM items"):
                if crc_of_row(row) != crc:
                    raise Damage(f"item {row[2]!r} is not what was written")

    def changes(self) -> list[dict[str, Any]]:
        """Return the log: version, time (UTC), what was done, to which modality and how many items."""
        names = ("version", "at", "what", "modality", "items")
        with self.reading():
            rows = self._reader.execute(f"SELECT {', '.join(names)} FROM changes ORDER BY version").fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def structure(self, part: Part) -> bytes:
        """Return the search structure of a part as it was kept."""
        assert part.structure is not None
        try:
            data = (self.folder / part.structure["file"]).read_bytes()
        except OSError as error:
            raise self._damaged(f"{part.structure['file']}: {error.strerror}") from error
        if zlib.crc32(data) != part.structure["crc"]:
            raise self._damaged(f"{part.structure['file']} is not what was written")
        return data

    # What changes it.

    def add(self, modality: str, items: Embedded, *, update: bool = False) -> int:
        """Add items, all or none, and return the version that has them; with `update`, keys may be there already.

        Raises InputError if keys repeat, or are there and are not to be updated, or vectors are no unit vectors [N, D].
        """
        vectors = self._checked(items)
        repeated = [key for key, n in Counter(items.keys).items() if n > 1]
        with self.changing("update" if update else "add", modality, len(items.keys)) as (db, version):
            part = read_parts(db).get(modality) or Part(_new_file(modality, "f32"))
            known = find(db, modality, items.keys)
            if repeated := repeated or [key for key in known if not update]:
                raise InputError(f"{len(repeated)} keys of {modality} repeat: {', '.join(map(repr, repeated[:5]))}")
            part = self._remove(db, part, list(known.values()), version)
            digests = digests_of(vectors)
            rows, fresh = self._place(db, modality, part, vectors, digests)
            part = self._append(db, modality, part, vectors[fresh])
            ids = insert(db, modality, items, rows, digests)
            total = vectors.sum(0, dtype=np.float64) + (part.total or 0)
            write_part(db, modality, replace(
                part, items=part.items + len(ids), checksum=(part.checksum + checksum_of(ids, rows)) % WORD,
                total=tuple(total.tolist()),
            ))  # fmt: skip
        return version

    def delete(self, modality: str, keys: Sequence[str]) -> int:
        """Delete items by key, all or none, and return the version without them."""
        with self.changing("delete", modality, len(keys)) as (db, version):
            part, known = read_parts(db).get(modality), find(db, modality, keys)
            missing = [key for key in keys if key not in known]
            if missing or part is None:
                some = ", ".join(map(repr, missing[:5]))
                raise InputError(f"{len(missing)} keys of {modality} are not in the index: {some}")
            write_part(db, modality, self._remove(db, part, list(known.values()), version))
        return version

    def compact(self) -> int:
        """Write the vectors that items still have into new files, without structures; return the version."""
        old, size = {}, max(1, CHUNK // self.dim)
        with self.changing("compact", "", 0) as (db, version):
            old = read_parts(db)
            for modality, part in old.items():
                places, vectors = read_places(db, modality), self.vectors(part)
                kept, moved = np.unique(places.rows, return_inverse=True)
                fresh = Part(
                    _new_file(modality, "f32"),
                    items=part.items,
                    checksum=checksum_of(places.ids, moved),
                    total=part.total,
                )
                db.execute("DELETE FROM blocks WHERE modality = ?", (modality,))
                for start in range(0, len(kept), size):
                    fresh = self._append(db, modality, fresh, vectors[kept[start : start + size]])
                pairs = zip(moved.tolist(), places.ids.tolist(), strict=True)
                db.executemany("UPDATE items SET vector = ? WHERE id = ?", pairs)
                write_part(db, modality, fresh)
            db.execute("DELETE FROM deletions")
        for part in old.values():
            self._unlink(part.file, (part.structure or {}).get("file"))
        self._sweep()
        return version

    def keep_structure(self, modality: str, part: Part, data: bytes, facts: Mapping[str, Any]) -> int:
        """Keep a search structure over the rows of a part in a file of its own, unless it was compacted meanwhile."""
        file = _new_file(modality, "faiss")
        with (self.folder / file).open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self.folder)
        with self.changing("structure", modality, part.rows) as (db, version):
            now = read_parts(db)[modality]
            is_late = now.file != part.file
            if not is_late:
                structure = {**facts, "rows": part.rows, "file": file, "crc": zlib.crc32(data)}
                write_part(db, modality, replace(now, structure=structure))
        self._unlink(file if is_late else (now.structure or {}).get("file"))
        return version

    def drop_structure(self, modality: str) -> int:
        """Forget the search structure of a part, if it has one."""
        with self.changing("structure", modality, 0) as (db, version):
            part = read_parts(db)[modality]
            write_part(db, modality, replace(part, structure=None))
        self._unlink((part.structure or {}).get("file"))
        return version

    def note(self, **facts: Any) -> None:
        """Keep facts that change, such as how far a build has come."""
        with self.changing("note", "", 0) as (db, _):
            rows = [(name, *seal(value)) for name, value in facts.items()]
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
        self.facts = {**self.facts, **facts}

    @contextmanager
    def changing(self, what: str, modality: str, count: int) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Be the only writer in this block, then commit and log all that it did, or nothing; gives the next version."""
        with self._writing, self._explaining():
            if self._writer is None:
                self._writer = connect(self.folder / DATABASE)
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                version = read_version(db) + 1
                yield db, version
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                db.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", (version, at, what, modality, count))
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _checked(self, items: Embedded) -> NDArray[np.float32]:
        vectors = check_vectors(items.vectors, self.dim)
        given = (vectors, items.keys, items.groups, items.previews or vectors, items.metadata or vectors)
        if len({len(one) for one in given}) > 1:
            names = ("vectors", "keys", "groups", "previews", "metadata")
            counts = ", ".join(f"{len(one)} {name}" for one, name in zip(given, names, strict=True))
            raise InputError(f"{counts} are not the same number")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise InputError("vectors must be of length 1: inner product is the cosine only then")
        return vectors

    def _place(
        self,
        db: sqlite3.Connection,
        modality: str,
        part: Part,
        vectors: NDArray[np.float32],
        digests: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], list[int]]:
        """Return the row [N] that each vector has or will have, and which of them have to be written.

        Equal vectors, as of one text for many pictures, are held once: HNSW loses items among many at one point.
        """
        stored = self.vectors(part)
        fresh: list[int] = []
        known: dict[int, tuple[int, NDArray[np.float32]]] = {}
        rows = np.empty(len(vectors), np.int64)
        query = "SELECT vector FROM items WHERE modality = ? AND digest = ? LIMIT 1"
        for position, (digest, vector) in enumerate(zip(digests.tolist(), vectors, strict=True)):
            if digest not in known and (found := db.execute(query, (modality, digest)).fetchone()):
                known[digest] = (found[0], stored[found[0]])
            if digest in known and np.array_equal(known[digest][1], vector):
                rows[position] = known[digest][0]
            else:
                rows[position] = part.rows + len(fresh)
                known[digest] = (int(rows[position]), vector)
                fresh.append(position)
        return rows, fresh

    def _append(self, db: sqlite3.Connection, modality: str, part: Part, vectors: NDArray[np.float32]) -> Part:
        """Write vectors behind the committed rows and bring them to the disk."""
        if not len(vectors):
            return part
        path = self.folder / part.file
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(part.rows * self.dim * 4)  # what a writer left that was stopped
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(vectors).data)
            file.flush()
            os.fsync(file.fileno())
        if not part.rows:
            sync_folder(self.folder)
        db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", (modality, part.rows, len(vectors), crc_of(vectors)))
        return replace(part, rows=part.rows + len(vectors))

    def _remove(self, db: sqlite3.Connection, part: Part, ids: Sequence[int], version: int) -> Part:
        if not ids:
            return part
        rows = np.array(
            [db.execute("SELECT vector FROM items WHERE id = ?", (id,)).fetchone()[0] for id in ids], np.int64
        )
        total = np.array(part.total) - self.vectors(part)[rows].sum(0, dtype=np.float64)
        gone = [(id,) for id in ids]
        db.executemany("DELETE FROM items WHERE id = ?", gone)
        db.executemany("DELETE FROM previews WHERE id = ?", gone)
        db.executemany("INSERT INTO deletions VALUES (?, ?)", [(id, version) for id in ids])
        checksum = (part.checksum - checksum_of(np.array(ids, np.int64), rows)) % WORD
        return replace(part, items=part.items - len(ids), checksum=checksum, total=tuple(total.tolist()))

    def _sweep(self) -> None:
        """Remove the files of writers that were stopped."""
        used = {name for part in self.parts().values() for name in (part.file, (part.structure or {}).get("file"))}
        for path in self.folder.iterdir():
            is_old = path.stat().st_mtime < time.time() - STALE
            if path.suffix in (".f32", ".faiss", ".tmp") and path.name not in used and is_old:
                path.unlink(missing_ok=True)

    def _unlink(self, *names: str | None) -> None:
        for name in names:
            if name:
                (self.folder / name).unlink(missing_ok=True)

    def _damaged(self, why: str) -> StorageError:
        return StorageError(f"the index {self.folder} is damaged ({why}): build it again or take a copy of it")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn what SQLite says into what a user can do."""
        try:
            yield
        except (Damage, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        except UnicodeEncodeError as error:
            raise InputError(f"a key, group or text is no valid Unicode: {error}") from error
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == BUSY:
                raise StorageError(
                    f"{self.folder}: another process writes for {PATIENCE:.0f} s now; try again"
                ) from error
            if code == STOPPED:
                raise InputError(f"the filter takes longer than {self.patience:g} s: make it simpler") from error
            if code in (READ_ONLY, FULL, DISK, NO_FILE):
                raise StorageError(f"{self.folder} can't be used: {error}") from error
            raise self._damaged(str(error)) from error


def check_vectors(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return vectors as little-endian float32 [N, D]; raise InputError if they are not, or not finite."""
    vectors = np.ascontiguousarray(vectors, np.dtype("<f4"))
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InputError(f"this index holds vectors [N, {dim}], not {list(vectors.shape)}")
    if not np.isfinite(vectors).all():
        raise InputError("some of the vectors are not finite")
    return vectors


def _new_file(modality: str, suffix: str) -> str:
    """Return a name that no file had before; modalities may be named by anything."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', modality)[:40]}-{uuid.uuid4().hex[:12]}.{suffix}"
