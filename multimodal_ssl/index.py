"""The Index: vectors of every modality, the items they stand for, and the Binder that made them, in a folder.

Items are added, replaced and deleted by key while others search; each search sees one committed state.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl import ann, calibration
from multimodal_ssl.database import Item, Part, Places
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, StorageError, nearest
from multimodal_ssl.exact import best_of, exact, exact_allowed
from multimodal_ssl.files import sync_folder
from multimodal_ssl.store import DATABASE, Store, check_vectors
from multimodal_ssl.where import BUILT_IN, parse_where

CALIBRATED, ANSWERS = 2000, 20  # queries that probabilities are learnt from, and answers to each
SELECTIVE = 0.02  # share of the vectors, below which comparing all of them beats any structure


class Hit(NamedTuple):
    """One answer: its cosine in [-1, 1], or what it was ranked by, and how probably it is a match, if that is known."""

    score: float
    item: Item
    probability: float | None = None


@final
class Index:
    """An index in a folder, see `create`. It answers only to the Binder that made its vectors.

    Attributes:
        store: the folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.store = Store(folder)
        self._lock = threading.Lock()
        self._views: Mapping[str, _View] = {}
        self._version = self._stamp = -1
        self._checked = 0  # the last item that was compared with its checksum
        self._refresh()

    @classmethod
    def create(cls, folder: Path | str, fingerprint: str, dim: int, **facts: Any) -> Index:
        """Make an empty index in a folder that is new or empty.

        Args:
            fingerprint: of the Binder.
            dim: D.
            facts: what else is to be known of it, as plain values.
        """
        Store.create(folder, {**facts, "fingerprint": fingerprint, "dim": dim}).close()
        return cls(folder)

    def close(self) -> None:
        """Give the files back."""
        self.store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fingerprint(self) -> str:
        """Of the Binder that made the vectors."""
        return str(self.store.facts["fingerprint"])

    @property
    def dim(self) -> int:
        """D."""
        return self.store.dim

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by modality."""
        return {name: view.part.items for name, view in self._refresh().items() if view.part.items}

    def check(self, fingerprint: str) -> None:
        """Raise InputError if another Binder made this index."""
        if fingerprint != self.fingerprint:
            raise InputError(
                f"this index was made by the Binder {self.fingerprint[:12]}, not by {fingerprint[:12]}: "
                "search it with the run that made it, or build it again with `mmssl index`"
            )

    def mean(self, modality: str) -> NDArray[np.float32]:
        """Return the mean vector [D] of a modality's items."""
        part = self._view(modality).part
        return (np.array(part.total) / max(1, part.items)).astype(np.float32)

    def add(self, modality: str, items: Embedded, *, update: bool = False) -> None:
        """Add items, all or none; with `update` they may take the place of items with their keys."""
        self.store.add(modality, items, update=update)

    def delete(self, modality: str, keys: Sequence[str]) -> None:
        """Delete items by key, all or none."""
        self.store.delete(modality, keys)

    def compact(self) -> None:
        """Give back the room of what was deleted, and build the structures anew."""
        structures = {name: part.structure for name, part in self.store.parts().items() if part.structure}
        self.store.compact()
        for name, facts in structures.items():
            self.optimise(name, kind=facts["kind"], recall=facts["measured"]["wanted"])

    def optimise(
        self, modality: str, *, kind: ann.Kind | None = None, recall: float = 0.95, memory: float | None = None
    ) -> ann.Measured:
        """Build the structure that searches a modality fastest, see `ann.build`, and return what was measured of it."""
        view = self._view(modality)
        others = {
            f"of {name}": np.ascontiguousarray(other.sample(ann.QUERIES))
            for name, other in self._refresh().items()
            if name != modality and other.part.items
        }
        structure, measured = ann.build(view.vectors, kind=kind, recall=recall, memory=memory, queries=others)
        if structure is None:
            self.store.drop_structure(modality)
        else:
            facts = {"kind": structure.kind, "effort": structure.effort, "widen": structure.widen}
            self.store.keep_structure(
                modality, view.part, structure.to_bytes(), {**facts, "measured": asdict(measured)}
            )
        return measured

    def nearest(
        self, modality: str, queries: NDArray[np.float32], k: int, *, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and ids [Q, K] of the nearest items of a modality, K being min(k, number of items).

        Where fewer were found the ids are -1 and the cosines -inf.

        Args:
            queries: unit vectors [Q, D].
            among: ids of the only items that count.
        """
        if k < 1:
            raise InputError(f"k is {k}; ask for one answer at least")
        return self._view(modality).nearest(check_vectors(queries, self.dim), k, among)

    def vectors(self, modality: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors [..., D] of items with these ids [...]; of what is not there, such as -1, they are 0."""
        view = self._view(modality)
        places = np.minimum(np.searchsorted(view.places.ids, ids), len(view.places.ids) - 1)
        is_there = view.places.ids[places] == ids
        return np.where(is_there[..., None], view.vectors[view.places.rows[places]], np.float32(0))

    def background(self, modality: str) -> NDArray[np.float32]:
        """Return the vectors [B, D] of at most calibration.BACKGROUND items, drawn at random."""
        return self._view(modality).background

    def vector(self, modality: str, key: str) -> NDArray[np.float32]:
        """Return the vector [D] of an item."""
        found = self.store.find(modality, [key])
        vector = self.vectors(modality, np.array([found.get(key, -1)]))[0]
        if not vector.any():
            raise InputError(f"this index holds no {modality} with the key {key!r}")
        return vector

    def where(self, names: Sequence[str], text: str) -> list[NDArray[np.int64]]:
        """Return the ids of the items of each modality of which a condition holds (docs/filters.md).

        Raises InputError if it holds of none and asks for metadata that no item has.
        """
        parsed = parse_where(text)
        condition, values = parsed.sql()
        with self._lock:
            self._checked = self.store.check_items(self._checked)
        found = [self.store.select(name, condition, values) for name in names]
        if not any(map(len, found)):
            known = {*BUILT_IN, *(field for name in names for field in self.store.fields(name))}
            for field in sorted(parsed.names - known):
                raise InputError(f"no {' or '.join(names)} has {field!r} to filter by: {nearest(field, known)}")
        return found

    def calibrate(self) -> dict[str, calibration.Calibration]:
        """Learn how probable matches are, between all modalities that have groups in common; return it by direction."""
        found = {}
        views = {name: view for name, view in self._refresh().items() if view.part.items}
        for query, gallery in itertools.permutations(views, 2):
            asked, one = views[query].places, views[gallery]
            rows = np.flatnonzero(np.isin(asked.groups, one.places.groups))
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:CALIBRATED])
            if not len(rows):
                continue
            vectors = views[query].vectors[asked.rows[rows]]
            cosines, ids = one.nearest(vectors, min(ANSWERS, one.part.items), None)
            place = np.searchsorted(one.places.ids, ids)
            is_match = one.places.groups[np.minimum(place, len(one.places.ids) - 1)] == asked.groups[rows][:, None]
            z = calibration.standardised(cosines, vectors @ one.background.T)
            keep = (ids >= 0).all(1)
            if learnt := calibration.calibrate(z[keep], is_match[keep], one.part.items):
                found[f"{query}-{gallery}"] = learnt
        self.store.note(calibration={name: one.to_dict() for name, one in found.items()})
        return found

    def probability(
        self, by: str, modality: str, queries: NDArray[np.float32], cosines: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return how probably items at cosines [Q, K] from queries [Q, D] of a modality are matches; NaN if unknown."""
        values = self.store.facts.get("calibration", {}).get(f"{by}-{modality}")
        if values is None:
            return np.full(cosines.shape, np.nan)
        view = self._view(modality)
        z = calibration.standardised(cosines, queries @ view.background.T)
        return calibration.Calibration(**values).probability(z, view.part.items)

    def hits(self, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """Return the items with these ids [K] and their scores [K]; what was deleted meanwhile is left out."""
        items = self.store.items(ids[ids >= 0].tolist())
        return [Hit(float(score), items[id]) for id, score in zip(ids.tolist(), scores, strict=True) if id in items]

    def describe(self) -> dict[str, Any]:
        """Return what the index is and holds, as plain values."""
        parts = {
            name: {"items": part.items, "vectors": part.rows, "structure": part.structure or {"kind": "flat"}}
            for name, part in self.store.parts().items()
        }
        return {**self.store.facts, "version": self.store.version(), "modalities": parts}

    def _view(self, modality: str) -> _View:
        views = self._refresh()
        if modality not in views or not views[modality].part.items:
            raise InputError(f"this index holds no {modality!r}: {nearest(modality, self.counts)}")
        return views[modality]

    def _refresh(self) -> Mapping[str, _View]:
        """Return the last committed state."""
        stamp = self.store.stamp()
        if stamp == self._stamp:
            return self._views
        with self._lock:
            views: dict[str, _View] | None = None
            while views is None:
                version = self.store.version()
                try:
                    with self.store.reading():
                        self.store.read_facts()
                        gone = self.store.deleted_since(self._version)
                        views = {
                            name: _view(self.store, name, part, self._views.get(name), gone)
                            for name, part in self.store.parts().items()
                        }
                except StorageError:  # another process may have compacted: the files of then are gone
                    if self.store.version() == version:
                        raise
            self._views, self._version, self._stamp = views, version, stamp
            return views


@final
class _View:
    """One modality at one moment."""

    def __init__(
        self, part: Part, vectors: NDArray[np.float32], places: Places, structure: ann.Structure | None
    ) -> None:
        self.part, self.vectors, self.places, self.structure = part, vectors, places, structure
        self.order = np.argsort(places.rows, kind="stable")  # so that the items of one vector stand together
        self.starts = np.searchsorted(places.rows[self.order], np.arange(len(vectors) + 1))
        self.background = self.sample(calibration.BACKGROUND)
        self.ids = places.ids[self.order]
        self.is_plain = len(places.ids) == len(vectors) and bool((np.diff(self.starts) == 1).all())

    def sample(self, count: int) -> NDArray[np.float32]:
        """Return the vectors [N, D] of items drawn at random, N <= count."""
        rows = self.places.rows
        drawn = np.random.default_rng(0).choice(len(rows), min(count, len(rows)), replace=False, shuffle=False)
        return self.vectors[rows[np.sort(drawn)]]

    def nearest(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and ids [Q, K] of items; the nearest K vectors hold the nearest K items."""
        if among is None and self.is_plain:
            scores, rows = self._rows(queries, k, None)
            return scores, np.where(rows >= 0, self.ids[rows], -1)
        counts = np.ones(len(self.places.ids), bool) if among is None else np.isin(self.places.ids, among)
        members = self.order[counts[self.order]]
        owners = self.places.rows[members]
        allowed = np.zeros(len(self.vectors), bool)
        allowed[owners] = True
        scores, rows = self._rows(queries, k, allowed)
        starts = np.searchsorted(owners, np.arange(len(self.vectors) + 1))
        return _expanded(scores, rows, self.places.ids[members], starts, min(k, len(members)))

    def _rows(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and rows [Q, K] of vectors."""
        number = len(self.vectors) if allowed is None else int(allowed.sum())
        if allowed is None and self.structure is None:
            return exact(self.vectors, queries, k)
        if allowed is not None and (self.structure is None or number <= max(ann.FLAT, SELECTIVE * len(self.vectors))):
            return exact_allowed(self.vectors, queries, k, allowed)
        assert self.structure
        covered = len(self.structure.order)
        scores, rows = self.structure.nearest(self.vectors, queries, k, None if allowed is None else allowed[:covered])
        if covered < len(self.vectors):
            tail = np.ones(len(self.vectors) - covered, bool) if allowed is None else allowed[covered:]
            more, places = exact_allowed(self.vectors[covered:], queries, k, tail)
            scores, rows = best_of([scores, more], [rows, places + covered], k)
        return scores[:, :number], rows[:, :number]


def check_folder(folder: Path) -> None:
    """Raise InputError unless an index may stand in the folder: it is not there, or empty, or holds one."""
    if not folder.exists() or (folder / DATABASE).exists() or (folder / "manifest.json").exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise InputError(f"{folder} exists and is no index: it is left as it is; give another folder")


def replace_index(new: Path, folder: Path) -> Index:
    """Move an index to a folder, in the place of one that may be there, and open it."""
    check_folder(folder)
    old = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    if old.exists():
        shutil.rmtree(old)
    return Index(folder)


def _view(store: Store, modality: str, part: Part, before: _View | None, gone: NDArray[np.int64]) -> _View:
    """Return a modality as it is committed, reading only what is new since `before`."""
    if before and before.part == part:
        return before
    if before and before.part.file == part.file:
        stays = ~np.isin(before.places.ids, gone)
        news = store.places(modality, after=int(before.places.ids.max(initial=0)))
        places = Places(*(np.concatenate([old[stays], new]) for old, new in zip(before.places, news, strict=True)))
        store.check_vectors(modality, part, since=before.part.rows)
    else:
        before, places = None, store.places(modality)
        store.check_vectors(modality, part)
    store.check_places(part, places)
    is_same = before is not None and before.part.structure == part.structure
    structure = before.structure if before and is_same else _structure(store, part)
    return _View(part, store.vectors(part), places, structure)


def _structure(store: Store, part: Part) -> ann.Structure | None:
    if part.structure is None:
        return None
    facts = part.structure
    return ann.Structure.from_bytes(
        store.structure(part), kind=facts["kind"], count=facts["rows"], effort=facts["effort"], widen=facts["widen"]
    )


def _expanded(
    scores: NDArray[np.float32], rows: NDArray[np.int64], ids: NDArray[np.int64], starts: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and ids [Q, K] of the items of vectors [Q, R], of row r ids[starts[r] : starts[r + 1]]."""
    sizes = np.where(rows >= 0, (starts[1:] - starts[:-1])[rows], 0)
    ends = np.cumsum(sizes, axis=1)
    place = np.arange(k)
    found = np.full((len(rows), k), -1, np.int64)
    cosines = np.full((len(rows), k), -np.inf, np.float32)
    for query in range(len(rows)):
        which = np.searchsorted(ends[query], place, side="right")
        there = which < rows.shape[1]
        which = which[there]
        offset = place[there] - (ends[query][which] - sizes[query][which])
        found[query, there] = ids[starts[rows[query][which]] + offset]
        cosines[query, there] = scores[query][which]
    return cosines, found
