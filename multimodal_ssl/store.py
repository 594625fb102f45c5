"""The folder of an index: items and the log of changes in SQLite, vectors in files beside it.

A change appends vectors to their file, brings them to the disk and then commits to SQLite what they mean; what lies
behind the last committed row is no part of the index and is written over. So whatever stops the machine, the last
committed state is there. One process writes at a time, any number read. Everything has a checksum that is compared
before an answer is made from it.
"""

from __future__ import annotations

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

from multimodal_ssl import database
from multimodal_ssl.checksums import WORD, checksum_of, crc_of, digests_of
from multimodal_ssl.database import Block, Item, Part, Places, damaged, explaining
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.files import sync_folder, write_bytes
from multimodal_ssl.vector_files import append_vectors, map_vectors

FORMAT = 3
DATABASE = "index.sqlite"
CHUNK = 2**22  # numbers that are copied at once
STALE = 3600.0  # seconds after which a file that no part names is of no living writer


@final
class Store:
    """The items and vectors of an index in a folder, see `create`.

    Attributes:
        facts: what was told at its creation, such as the Binder's fingerprint, and what was noted since.
        dim: D.
        patience: seconds that a filter may take.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.patience = 10.0
        if not (self.folder / DATABASE).is_file():
            earlier = (self.folder / "manifest.json").is_file()
            raise InputError(
                f"{folder} is an index of an earlier version: build it again with `mmssl index RUN`"
                if earlier
                else f"{folder} holds no index; make one with `mmssl index RUN`"
            )
        self._reading, self._writing = threading.RLock(), threading.RLock()
        with explaining(self.folder):
            self._reader = database.connect(self.folder / DATABASE)
            self._writer: sqlite3.Connection | None = None
            self.facts: Mapping[str, Any] = database.read_facts(self._reader)
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
        database.create(temporary, {**facts, "format": FORMAT})
        temporary.replace(folder / DATABASE)
        sync_folder(folder)
        return cls(folder)

    def close(self) -> None:
        """Give the files back, when what other threads do with them has ended."""
        with self._reading, self._writing:
            self._reader.close()
            if self._writer:
                self._writer.close()

    # What is there.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that is read in this block be of one moment."""
        with self._reading, explaining(self.folder):
            if self._reader.in_transaction:
                yield
                return
            self._reader.execute("BEGIN")
            try:
                yield
            finally:
                self._reader.execute("ROLLBACK")

    def stamp(self) -> int:
        """Return a number that is another one after each change, by whomever: faster to ask for than the version."""
        with self._reading, explaining(self.folder):
            return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def version(self) -> int:
        """Return the number of the last change that was committed, by whomever."""
        with self.reading():
            return database.read_version(self._reader)

    def read_facts(self) -> None:
        """Read the facts that others may have noted."""
        with self.reading():
            self.facts = database.read_facts(self._reader)

    def parts(self) -> dict[str, Part]:
        """Return what is committed, by modality."""
        with self.reading():
            return database.read_parts(self._reader)

    def vectors(self, part: Part) -> NDArray[np.float32]:
        """Return the vectors [N, D] of a part, mapped into memory."""
        try:
            return map_vectors(self.folder / part.file, part.rows, self.dim)
        except (OSError, ValueError) as error:
            raise damaged(self.folder, f"{part.file}: {error}") from error

    def check_vectors(self, modality: str, part: Part, since: int = 0) -> None:
        """Compare the vectors from a row on with their checksums."""
        with self.reading():
            blocks = database.read_blocks(self._reader, modality)
        vectors, reached = self.vectors(part), 0
        for first, rows, crc in blocks:
            if first != reached:
                break
            reached += rows
            if first >= since and crc_of(vectors[first:reached]) != crc:
                raise damaged(self.folder, f"{part.file}: rows {first} to {reached} are not what was written")
        if reached != part.rows:
            raise damaged(self.folder, f"{part.file}: {part.rows} rows, but checksums of {reached}")

    def places(self, modality: str, after: int = 0) -> Places:
        """Return the items of a modality whose id is greater than `after`."""
        with self.reading():
            return database.read_places(self._reader, modality, after)

    def check_places(self, part: Part, places: Places) -> None:
        """Raise InputError unless these are all items of a part."""
        if len(places.ids) != part.items or checksum_of(places.ids, places.rows) != part.checksum:
            raise damaged(self.folder, f"{len(places.ids)} items are not the {part.items} that were written")

    def deleted_since(self, version: int) -> NDArray[np.int64]:
        """Return the ids of items that later changes deleted."""
        with self.reading():
            return database.read_deleted(self._reader, version)

    def items(self, ids: Iterable[int]) -> dict[int, Item]:
        """Return the items with these ids that are there, by id."""
        with self.reading():
            return database.read_items(self._reader, ids)

    def find(self, modality: str, keys: Sequence[str]) -> dict[str, int]:
        """Return the ids of the items with these keys that are there."""
        with self.reading():
            return database.find(self._reader, modality, keys)

    def select(self, modality: str, condition: str, values: Sequence[str | float]) -> NDArray[np.int64]:
        """Return the ids of the items of a modality of which an SQL condition holds; its values are bound."""
        with self.reading(), database.hurrying(self._reader, self.patience):
            return database.select(self._reader, modality, condition, values)

    def fields(self, modality: str) -> list[str]:
        """Return the names of all metadata of a modality."""
        with self.reading():
            return database.read_fields(self._reader, modality)

    def check_items(self, after: int = 0) -> int:
        """Compare items whose id is greater than `after` with their checksums, not previews; return the last id."""
        with self.reading():
            return database.check_items(self._reader, after)

    def changes(self) -> list[dict[str, Any]]:
        """Return the log: version, time (UTC), what was done, to which modality and how many items."""
        with self.reading():
            return database.read_changes(self._reader)

    def structure(self, part: Part) -> bytes:
        """Return the search structure of a part as it was kept."""
        assert part.structure is not None
        try:
            data = (self.folder / part.structure["file"]).read_bytes()
        except OSError as error:
            raise damaged(self.folder, f"{part.structure['file']}: {error.strerror}") from error
        if zlib.crc32(data) != part.structure["crc"]:
            raise damaged(self.folder, f"{part.structure['file']} is not what was written")
        return data

    # What changes it.

    def add(self, modality: str, items: Embedded, *, update: bool = False) -> int:
        """Add items, all or none, and return the version that has them; with `update`, keys may be there already.

        Raises InputError if keys repeat, or are there and are not to be updated, or vectors are no unit vectors [N, D].
        """
        vectors = self._checked(items)
        repeated = [key for key, n in Counter(items.keys).items() if n > 1]
        with self.changing("update" if update else "add", modality, len(items.keys)) as (db, version):
            part = database.read_parts(db).get(modality) or Part(_new_file(modality, "f32"))
            known = database.find(db, modality, items.keys)
            if repeated := repeated or [key for key in known if not update]:
                raise InputError(f"{len(repeated)} keys of {modality} repeat: {', '.join(map(repr, repeated[:5]))}")
            part = self._remove(db, part, list(known.values()), version)
            digests = digests_of(vectors)
            rows, fresh = self._place(db, modality, part, vectors, digests)
            part = self._append(db, modality, part, vectors[fresh])
            ids = database.insert(db, modality, items, rows, digests)
            total = vectors.sum(0, dtype=np.float64) + (part.total or 0)
            database.write_part(db, modality, replace(
                part, items=part.items + len(ids), checksum=(part.checksum + checksum_of(ids, rows)) % WORD,
                total=tuple(total.tolist()),
            ))  # fmt: skip
        return version

    def delete(self, modality: str, keys: Sequence[str]) -> int:
        """Delete items by key, all or none, and return the version without them."""
        with self.changing("delete", modality, len(keys)) as (db, version):
            part, known = database.read_parts(db).get(modality), database.find(db, modality, keys)
            missing = [key for key in keys if key not in known]
            if missing or part is None:
                some = ", ".join(map(repr, missing[:5]))
                raise InputError(f"{len(missing)} keys of {modality} are not in the index: {some}")
            database.write_part(db, modality, self._remove(db, part, list(known.values()), version))
        return version

    def compact(self) -> int:
        """Write the vectors that items still have into new files, without structures; return the version."""
        old, size = {}, max(1, CHUNK // self.dim)
        with self.changing("compact", "", 0) as (db, version):
            old = database.read_parts(db)
            for modality, part in old.items():
                places, vectors = database.read_places(db, modality), self.vectors(part)
                kept, moved = np.unique(places.rows, return_inverse=True)
                fresh = Part(
                    _new_file(modality, "f32"),
                    items=part.items,
                    checksum=checksum_of(places.ids, moved),
                    total=part.total,
                )
                database.move(db, modality, places.ids, moved)
                for start in range(0, len(kept), size):
                    fresh = self._append(db, modality, fresh, vectors[kept[start : start + size]])
                database.write_part(db, modality, fresh)
        for part in old.values():
            self._unlink(part.file, (part.structure or {}).get("file"))
        self._sweep()
        return version

    def keep_structure(self, modality: str, part: Part, data: bytes, facts: Mapping[str, Any]) -> int:
        """Keep a search structure over the rows of a part in a file of its own, unless it was compacted meanwhile."""
        file = _new_file(modality, "faiss")
        write_bytes(self.folder / file, data)
        with self.changing("structure", modality, part.rows) as (db, version):
            now = database.read_parts(db)[modality]
            is_late = now.file != part.file
            if not is_late:
                structure = {**facts, "rows": part.rows, "file": file, "crc": zlib.crc32(data)}
                database.write_part(db, modality, replace(now, structure=structure))
        self._unlink(file if is_late else (now.structure or {}).get("file"))
        return version

    def drop_structure(self, modality: str) -> int:
        """Forget the search structure of a part, if it has one."""
        with self.changing("structure", modality, 0) as (db, version):
            part = database.read_parts(db)[modality]
            database.write_part(db, modality, replace(part, structure=None))
        self._unlink((part.structure or {}).get("file"))
        return version

    def note(self, **facts: Any) -> None:
        """Keep facts that change, such as how far a build has come."""
        with self.changing("note", "", 0) as (db, _):
            database.write_facts(db, facts)
        self.facts = {**self.facts, **facts}

    @contextmanager
    def changing(self, what: str, modality: str, count: int) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Be the only writer in this block, then commit and log all that it did, or nothing; gives the next version."""
        with self._writing, explaining(self.folder):
            if self._writer is None:
                self._writer = database.connect(self.folder / DATABASE)
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                version = database.read_version(db) + 1
                yield db, version
                database.write_change(db, version, what, modality, count)
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
        for position, (digest, vector) in enumerate(zip(digests.tolist(), vectors, strict=True)):
            if digest not in known and (row := database.find_row(db, modality, digest)) is not None:
                known[digest] = (row, stored[row])
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
        append_vectors(self.folder / part.file, part.rows, vectors)
        database.write_block(db, modality, Block(part.rows, len(vectors), crc_of(vectors)))
        return replace(part, rows=part.rows + len(vectors))

    def _remove(self, db: sqlite3.Connection, part: Part, ids: Sequence[int], version: int) -> Part:
        if not ids:
            return part
        rows = database.delete(db, ids, version)
        total = np.array(part.total) - self.vectors(part)[rows].sum(0, dtype=np.float64)
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
