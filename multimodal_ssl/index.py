"""The Index: vectors of every modality in FAISS, the items they stand for, and the Binder that made them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.files import replacing, sync_folder, write_text
from multimodal_ssl.types import Preview

FORMAT = 2
MANIFEST = "manifest.json"
Kind = Literal["flat", "hnsw"]
HNSW_LINKS = 32
HNSW_BUILD, HNSW_SEARCH = 200, 128  # efConstruction and efSearch: recall@10 about .99 at 100,000 x 128

_ITEMS = pa.schema(
    [
        ("key", pa.large_string()),
        ("group", pa.large_string()),
        ("text", pa.large_string()),
        ("png", pa.large_binary()),
        ("wav", pa.large_binary()),
        ("path", pa.large_string()),
        ("caption", pa.large_string()),
        ("vector", pa.int64()),  # its position in FAISS
    ]
)


class Hit(NamedTuple):
    """One answer: cosine similarity in [-1, 1] and the item."""

    score: float
    key: str
    group: str
    modality: str
    preview: Preview


@final
class Index:
    """One FAISS index and one table of items a modality. It answers only to the Binder that made its vectors.

    Equal vectors, as of one text for many pictures, are held once: HNSW loses items among many at one point.

    Args:
        fingerprint: of that Binder.
        dim: D.
        kind: ``flat`` is exact; ``hnsw`` is faster from about 50,000 items on.
    """

    def __init__(self, fingerprint: str, dim: int, *, kind: Kind = "flat") -> None:
        self.fingerprint, self.dim, self.kind = fingerprint, dim, kind
        self._parts: dict[str, _Part] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by modality."""
        return {name: part.items.num_rows for name, part in self._parts.items()}

    def add(self, modality: str, items: Embedded) -> None:
        """Add the items of one modality; raise InputError if keys repeat or vectors are no unit vectors [N, D]."""
        vectors = self._checked(items.vectors)
        if not len(vectors) == len(items.keys) == len(items.groups) == len(items.previews or items.keys):
            raise InputError(
                f"{len(vectors)} vectors, {len(items.keys)} keys, {len(items.groups)} groups and {len(items.previews)} "
                "previews are not the same number"
            )
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise InputError("vectors must be of length 1: inner product is the cosine only then")
        part = self._parts.get(modality) or _Part(_new_faiss(self.dim, self.kind), _ITEMS.empty_table())
        part.add(modality, vectors, items)
        self._parts[modality] = part

    def check(self, fingerprint: str) -> None:
        """Raise InputError if another Binder made this index."""
        if fingerprint != self.fingerprint:
            raise InputError(
                f"this index was made by the Binder {self.fingerprint[:12]}, not by {fingerprint[:12]}: "
                "search it with the run that made it, or build it again with `mmssl index`"
            )

    def nearest(
        self, modality: str, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and positions [N, K] of the nearest items of a modality, K being min(k, number of items).

        An approximate index may find fewer: the positions are then -1 and the cosines -inf.
        """
        if modality not in self._parts:
            raise InputError(f"this index holds no {modality!r}: {nearest(modality, self._parts)}")
        if k < 1:
            raise InputError(f"k is {k}; ask for one answer at least")
        return self._parts[modality].nearest(self._checked(queries), k)

    def items(self, modality: str, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """Return the items at positions [K] with their scores [K]; positions of -1 are left out."""
        found = rows >= 0
        table = (
            self._parts[modality].items.take(pa.array(rows[found].tolist(), pa.int64())).to_pylist()
        )  # of an array it would import pandas
        return [
            Hit(
                float(score), one["key"], one["group"], modality,
                Preview(one["text"], one["png"], one["wav"], one["path"], one["caption"]),
            )
            for score, one in zip(scores[found], table, strict=True)
        ]  # fmt: skip

    def save(self, folder: Path | str) -> None:
        """Write the index to a folder; whatever happens on the way, it holds the old one or the new one.

        The manifest names the files of the index and is replaced last.
        """
        import faiss

        folder = Path(folder)
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        edition = uuid.uuid4().hex[:8]
        for name, part in self._parts.items():
            with replacing(folder / f"{name}-{edition}.faiss") as temporary:
                faiss.write_index(part.vectors, str(temporary))
            with (
                replacing(folder / f"{name}-{edition}.arrow") as temporary,
                pa.ipc.new_file(str(temporary), _ITEMS) as writer,
            ):
                writer.write_table(part.items)
        manifest = {
            "format": FORMAT, "fingerprint": self.fingerprint, "dim": self.dim, "kind": self.kind,
            "items": self.counts, "edition": edition,
        }  # fmt: skip
        write_text(folder / MANIFEST, json.dumps(manifest, indent=2))
        for old in (*folder.glob("*.faiss"), *folder.glob("*.arrow"), *folder.glob(".*.tmp")):
            if not old.stem.endswith(edition):
                old.unlink(missing_ok=True)
        sync_folder(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Index:
        """Open a saved index; items are read when asked for. Raises InputError if there is none or it is damaged."""
        import faiss

        folder = Path(folder)
        manifest = _read_manifest(folder)
        index = cls(manifest["fingerprint"], manifest["dim"], kind=manifest["kind"])
        for name, count in manifest["items"].items():
            path = folder / f"{name}-{manifest['edition']}"
            try:
                vectors = faiss.read_index(f"{path}.faiss")
                items = pa.ipc.open_file(pa.memory_map(f"{path}.arrow")).read_all()
            except (RuntimeError, OSError, pa.ArrowException) as error:
                raise InputError(f"the index {folder} is damaged ({name}: {error}): build it again") from error
            if items.schema != _ITEMS or count != items.num_rows or vectors.d != index.dim:
                raise InputError(f"the index {folder} is damaged ({name}: not what the manifest says): build it again")
            index._parts[name] = _Part(vectors, items)
            if vectors.ntotal != index._parts[name].num_vectors:
                raise InputError(f"the index {folder} is damaged ({name}: vectors are missing): build it again")
        return index

    def _checked(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"this index holds vectors [N, {self.dim}], not {list(vectors.shape)}")
        if not np.isfinite(vectors).all():
            raise InputError("some of the vectors are not finite")
        return vectors


class _Part:
    """The items of one modality, several of which may have one vector."""

    def __init__(self, vectors: Any, items: pa.Table) -> None:
        self.vectors, self.items = vectors, items  # faiss.Index
        self._keys: set[str] | None = None
        self._known: dict[bytes, int] | None = None
        self._group()

    def _group(self) -> None:
        """Sort the items by their vector, so that those of one vector stand together."""
        chunks = [np.from_dlpack(chunk) for chunk in self.items["vector"].chunks]  # to_numpy would import pandas
        owner = np.concatenate([np.empty(0, np.int64), *chunks])
        self.order = np.argsort(owner, kind="stable")
        self.num_vectors = int(owner.max(initial=-1)) + 1
        self.starts = np.searchsorted(owner[self.order], np.arange(self.num_vectors + 1))

    def add(self, modality: str, vectors: NDArray[np.float32], items: Embedded) -> None:
        if self._keys is None:
            self._keys = set(self.items["key"].to_pylist())
        repeated = [key for key, n in Counter(items.keys).items() if n > 1 or key in self._keys]
        if repeated:
            raise InputError(f"{len(repeated)} keys of {modality} repeat: {', '.join(repeated[:5])}")
        if self._known is None:
            stored = self.vectors.reconstruct_n(0, self.vectors.ntotal)
            self._known = {name: place for place, name in enumerate(_names(stored))}
        before = len(self._known)
        owner = [self._known.setdefault(name, len(self._known)) for name in _names(vectors)]
        _, first = np.unique(owner, return_index=True)
        self.vectors.add(vectors[[i for i in first if owner[i] >= before]])
        seen = items.previews or [Preview()] * len(items.keys)
        columns = [
            items.keys, items.groups, *([getattr(one, name) for one in seen] for name in _ITEMS.names[2:7]), owner,
        ]  # fmt: skip
        table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, _ITEMS, strict=True)], schema=_ITEMS)
        self.items = pa.concat_tables([self.items, table])
        self._keys.update(items.keys)
        self._group()

    def nearest(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and positions [N, K] of items; the nearest k vectors hold the nearest k items."""
        k = min(k, len(self.order))
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        scores, found = self.vectors.search(queries, min(k, self.num_vectors))
        if self.num_vectors == len(self.order):
            return scores, np.where(found >= 0, self.order[found], -1)
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), -np.inf, np.float32)
        sizes = np.diff(self.starts)
        for query, (near, score) in enumerate(zip(found, scores, strict=True)):
            near, score = near[near >= 0], score[near >= 0]
            last = int(np.searchsorted(np.cumsum(sizes[near]), k)) + 1  # as many vectors as hold k items
            members = [self.order[self.starts[one] : self.starts[one + 1]] for one in near[:last]]
            joined = np.concatenate([np.empty(0, np.int64), *members])[:k]
            rows[query, : len(joined)] = joined
            cosines[query, : len(joined)] = np.repeat(score[:last], sizes[near[:last]])[:k]
        return cosines, rows


def check_folder(folder: Path) -> None:
    """Raise InputError unless an index may be written to the folder: a new one, an empty one, or that of an index."""
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if not folder.is_dir() or any(path.suffix not in (".faiss", ".arrow", ".tmp") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and is no index: it is left as it is; give another folder")


def _names(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return a 64-bit hash of each vector [N, D]."""
    return [hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(vectors)]


def _new_faiss(dim: int, kind: Kind) -> Any:
    import faiss

    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    return index


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} holds no index; make one with `mmssl index RUN`") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {error}") from error
    if not isinstance(manifest, dict) or not {"format", "fingerprint", "dim", "kind", "items"} <= manifest.keys():
        raise InputError(f"{folder / MANIFEST} is damaged: build the index again with `mmssl index RUN`")
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{folder} is an index of format {manifest['format']}, this version reads {FORMAT}: build it again with "
            "`mmssl index RUN`"
        )
    return manifest
