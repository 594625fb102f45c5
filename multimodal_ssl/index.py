"""The Index: vectors of every modality in FAISS, the items they stand for, and the Binder that made them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.types import Preview

FORMAT = 1
MANIFEST = "manifest.json"
Kind = Literal["flat", "hnsw"]
HNSW_LINKS = 32
HNSW_BUILD, HNSW_SEARCH = 200, 128  # efConstruction and efSearch: recall@10 about .99 at 100,000 x 128

_ITEMS = pa.schema(
    [("key", pa.string()), ("group", pa.string()), ("text", pa.string()), ("png", pa.binary()), ("wav", pa.binary())]
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

    Args:
        fingerprint: of that Binder.
        dim: D.
        kind: ``flat`` is exact; ``hnsw`` is faster from about 50,000 items on.
    """

    def __init__(self, fingerprint: str, dim: int, *, kind: Kind = "flat") -> None:
        self.fingerprint, self.dim, self.kind = fingerprint, dim, kind
        self._vectors: dict[str, Any] = {}  # faiss.Index
        self._items: dict[str, pa.Table] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by modality."""
        return {name: items.num_rows for name, items in self._items.items()}

    def add(self, modality: str, items: Embedded) -> None:
        """Add the items of one modality; raise InputError if keys repeat or vectors are no unit vectors [N, D]."""
        vectors = np.ascontiguousarray(items.vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"this index holds vectors [N, {self.dim}], not {list(vectors.shape)}")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise InputError("vectors must be finite and of length 1: inner product is the cosine only then")
        before = self._items.get(modality, _ITEMS.empty_table())
        repeated = [key for key, n in Counter(before["key"].to_pylist() + items.keys).items() if n > 1]
        if repeated:
            raise InputError(f"{len(repeated)} keys of {modality} repeat: {', '.join(repeated[:5])}")
        seen = items.previews or [Preview()] * len(items.keys)
        columns = [items.keys, items.groups, *zip(*((one.text, one.png, one.wav) for one in seen), strict=True)]
        table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, _ITEMS, strict=True)], schema=_ITEMS)
        if modality not in self._vectors:
            self._vectors[modality] = _new_faiss(self.dim, self.kind)
        self._vectors[modality].add(vectors)
        self._items[modality] = pa.concat_tables([before, table]).combine_chunks()

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
        """Return cosines and positions [N, K] of the nearest items of a modality, K being min(k, number of items)."""
        if modality not in self._vectors:
            raise InputError(f"this index holds no {modality!r}: {nearest(modality, self._vectors)}")
        scores, rows = self._vectors[modality].search(
            np.ascontiguousarray(queries, np.float32), min(k, self.counts[modality])
        )
        return scores, rows

    def items(self, modality: str, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """Return the items at positions [K] with their scores [K]."""
        table = self._items[modality].take(pa.array(rows)).to_pylist()
        return [
            Hit(float(score), one["key"], one["group"], modality, Preview(one["text"], one["png"], one["wav"]))
            for score, one in zip(scores, table, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is then either the old one or the new one."""
        import faiss

        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, items in self._items.items():
            faiss.write_index(self._vectors[name], str(temporary / f"{name}.faiss"))
            pq.write_table(items, temporary / f"{name}.parquet")
        manifest = {
            "format": FORMAT, "fingerprint": self.fingerprint, "dim": self.dim, "kind": self.kind, "items": self.counts,
        }  # fmt: skip
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))
        temporary.chmod(0o755)
        if folder.exists():
            if not (folder / MANIFEST).exists():
                shutil.rmtree(temporary)
                raise InputError(f"{folder} exists and is no index: it is left as it is; give another folder")
            old = folder.with_name(f".{folder.name}-old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Open a saved index; raise InputError if the folder holds none, or a damaged one."""
        import faiss

        manifest = _read_manifest(folder)
        index = cls(manifest["fingerprint"], manifest["dim"], kind=manifest["kind"])
        for name, count in manifest["items"].items():
            try:
                index._vectors[name] = faiss.read_index(str(folder / f"{name}.faiss"))
                index._items[name] = pq.read_table(folder / f"{name}.parquet", schema=_ITEMS)
            except (RuntimeError, OSError, pa.ArrowException) as error:
                raise InputError(f"the index {folder} is damaged ({name}: {error}): build it again") from error
            if not count == index._vectors[name].ntotal == index._items[name].num_rows:
                raise InputError(f"the index {folder} is damaged ({name}: counts differ): build it again")
        return index


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
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no index; make one with `mmssl index RUN`") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {error}") from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{folder} is an index of format {manifest.get('format')}, this version reads {FORMAT}")
    return manifest
