"""Search structures in FAISS: which of them answers fastest within a memory is found by building and measuring it.

A structure names candidates; the exact cosine with the stored vectors decides among them, so that every score is exact
and a structure may be coarse (asymmetric search with re-ranking, Jégou et al. 2011).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.exact import PACKET, Rows, Vectors, exact_allowed, import_faiss, rescored

Kind = Literal["flat", "hnsw", "hnsw-sq8", "ivf-pq", "ivf-rabitq", "sq8", "binary"]

FLAT = 20_000  # vectors, up to which nothing is faster enough to be worth an approximation
TRIAL = 50_000  # vectors that the kinds are compared on
QUERIES = 1000  # of each sort, half to tune by and half to report
LINKS, BREADTH = 32, 100  # M and efConstruction of HNSW (Malkov and Yashunin 2018)
POINTS = 40  # vectors a cell that its centre is learnt from
MARGIN = 0.003  # of recall above what is wanted, for queries that were not tuned by
SLOWER = 1.1  # times the time of the fastest, up to which a kind is as fast: a measurement varies by as much
TOP = 10  # answers whose recall is measured


class Design(NamedTuple):
    """A kind of structure.

    Attributes:
        bytes: of memory for one vector of D numbers, about.
        efforts: values of efSearch or nprobe, from fast to thorough.
        widen: candidates for each answer, from few to many; one is enough where FAISS has the exact score.
        automatic: whether it is tried when none is asked for.
    """

    bytes: Callable[[int], float]
    efforts: tuple[int, ...]
    widen: tuple[int, ...]
    automatic: bool = True


BEAMS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
DESIGNS: dict[Kind, Design] = {
    "hnsw": Design(lambda dim: 4 * dim + 8.4 * LINKS + 4, BEAMS, (1,)),
    "hnsw-sq8": Design(lambda dim: dim + 8.4 * LINKS + 4, BEAMS, (2, 4)),  # Scalar quantisation to 8 bits a number.
    "ivf-pq": Design(lambda dim: dim / 4 + 16, PROBES, (4, 10, 20)),  # 4 bits for two numbers (André et al. 2017).
    "ivf-rabitq": Design(lambda dim: dim / 8 + 20, PROBES, (4, 10, 20, 40)),  # One bit a number (Gao and Long 2024).
    "sq8": Design(lambda dim: dim + 4.0, (0,), (2, 4), automatic=False),
    "binary": Design(lambda dim: dim / 8 + 4, (0,), (4, 10, 20, 40), automatic=False),  # The signs alone.
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a structure.

    Attributes:
        recall: share of the ten nearest vectors that it finds, by sort of query; of queries it was not tuned by.
        wanted: that it was tuned for.
        queries_per_second: in one batch, with as many threads as FAISS has.
        exact_queries_per_second: of comparing all vectors, in the same run.
        bytes: of memory.
        seconds: to build and tune it.
        tried: the kinds that were compared, with what was measured of them on a part of the vectors.
    """

    recall: dict[str, float]
    wanted: float
    queries_per_second: float
    exact_queries_per_second: float
    bytes: int
    seconds: float
    tried: dict[str, dict[str, float]] = field(default_factory=dict)


@final
class Structure:
    """A FAISS index over vectors [N, D], and how hard it looks.

    Args:
        kind: of DESIGNS.
        index: of faiss, over the vectors in this order.
        order: the row of each of its vectors [N].
        effort: efSearch or nprobe.
        widen: candidates for each answer.
    """

    def __init__(self, kind: str, index: Any, order: NDArray[np.int32], effort: int, widen: int) -> None:
        self.kind, self.index, self.order, self.effort, self.widen = kind, index, order, effort, widen

    def nearest(
        self, vectors: Vectors, queries: Vectors, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Vectors, Rows]:
        """Return cosines and rows [Q, K] of the vectors, which it is over, that are nearest to unit queries [Q, D].

        Where it finds fewer, rows are -1 and cosines -inf.

        Args:
            allowed: rows [N] that count; the fewer, the harder it looks.
        """
        faiss = import_faiss()
        count = min(k * self.widen, len(self.order))
        effort, selector = self.effort, None
        if allowed is not None:
            bits = np.packbits(allowed[self.order], bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            effort = round(effort / max(float(allowed.mean()), 1e-3))
        asked: Any = np.packbits(queries > 0, axis=1) if self.kind == "binary" else queries
        if selector is None:
            parameters = _shared_parameters(self.kind, max(effort, count), effort)
        else:
            parameters = _parameters(self.kind, max(effort, count), effort)
            parameters.sel = selector
        scores, found = self.index.search(asked, count, params=parameters)
        rows = self.order[found].astype(np.int64)
        if (missing := found < 0).any():
            rows[missing] = -1
            scores[missing] = -np.inf
        return (scores, rows) if self.kind == "hnsw" else rescored(vectors, queries, rows, k)

    def to_bytes(self) -> bytes:
        """Return the structure as bytes, see `from_bytes`."""
        faiss = import_faiss()
        serialize = faiss.serialize_index_binary if self.kind == "binary" else faiss.serialize_index
        return bytes(self.order.astype("<i4").tobytes() + serialize(self.index).tobytes())

    @classmethod
    def from_bytes(cls, data: bytes, *, kind: str, count: int, effort: int, widen: int) -> Structure:
        """Return a structure over `count` vectors from what `to_bytes` returned."""
        faiss = import_faiss()
        deserialize = faiss.deserialize_index_binary if kind == "binary" else faiss.deserialize_index
        rest = np.frombuffer(data, np.uint8, offset=4 * count)
        return cls(kind, deserialize(rest), np.frombuffer(data, "<i4", count), effort, widen)


def _parameters(kind: str, beam: int, probes: int) -> Any:
    faiss = import_faiss()
    made: Any = faiss.SearchParameters()
    if kind.startswith("hnsw"):
        made = faiss.SearchParametersHNSW()
        made.efSearch = beam
    if kind.startswith("ivf"):
        made = faiss.SearchParametersIVF()
        made.nprobe = probes
    return made


_shared_parameters = functools.lru_cache(_parameters)  # making them takes a third as long as searching for one query


def build(
    vectors: Vectors,
    *,
    kind: Kind | None = None,
    recall: float = 0.95,
    memory: float | None = None,
    queries: dict[str, Vectors] | None = None,
) -> tuple[Structure | None, Measured]:
    """Build the structure that answers fastest with the wanted recall; None is for comparing all vectors.

    It is tuned and measured by vectors that it has not yet when they are searched for, and by `queries` if given, as by
    those of another modality; the worst sort of query has to reach the recall.

    Args:
        vectors: unit vectors [N, D].
        kind: to build; None compares those that fit.
        recall: of the ten nearest.
        memory: bytes that it may take.
    """
    began = time.perf_counter()
    count, dim = vectors.shape
    kinds = [kind] if kind else fitting(count, dim, memory)
    if kinds == ["flat"] or count < 2 * TOP:
        return None, Measured({"all": 1.0}, recall, 0.0, 0.0, 4 * count * dim, time.perf_counter() - began)
    given = queries or {}
    tried: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(0)
    if len(kinds) > 1:
        sample = vectors[np.sort(rng.permutation(count)[:TRIAL])]
        for one in kinds:
            _, measured = _built(one, sample, recall, given, rng)
            tried[one] = {
                "recall": min(measured.recall.values()),
                "queries_per_second": measured.queries_per_second,
                "bytes": measured.bytes,
            }
        kinds = _ranked(tried, recall)
    best: tuple[Structure | None, Measured] | None = None
    for one in kinds:
        structure, measured = _built(one, vectors, recall, given, rng)
        if memory is not None and measured.bytes > memory:
            continue
        if best is None or min(measured.recall.values()) > min(best[1].recall.values()):
            best = structure, measured
        if min(measured.recall.values()) >= recall - MARGIN:
            break
    if best is None:
        raise InputError(f"none of {', '.join(kinds)} fits into {memory or 0:,.0f} bytes with {count:,} vectors")
    values = asdict(best[1]) | {"tried": tried, "seconds": time.perf_counter() - began}
    return best[0], Measured(**values)


def fitting(count: int, dim: int, memory: float | None) -> list[Kind]:
    """Return the kinds whose memory for so many vectors of D numbers is enough; raise InputError if none is."""
    if count <= FLAT and (memory is None or 4 * count * dim <= memory):
        return ["flat"]
    sizes = {kind: design.bytes(dim) * count for kind, design in DESIGNS.items()}
    found: list[Any] = [kind for kind, size in sizes.items() if memory is None or size <= memory]
    automatic = [kind for kind in found if DESIGNS[kind].automatic]
    if not found:
        least = min(sizes, key=lambda kind: sizes[kind])
        raise InputError(
            f"{count:,} vectors of {dim} numbers do not fit into {memory or 0:,.0f} bytes: {least} is the smallest and "
            f"takes about {sizes[least]:,.0f}"
        )
    return automatic or found


def recall_of(found: Rows, scores: Vectors, wanted: Vectors) -> float:
    """Return the share of the true nearest [Q, K] that were found; equal scores are as good."""
    hits = (scores >= wanted[:, -1:] - 1e-6) & (found >= 0)
    return float(np.minimum(hits.sum(1), wanted.shape[1]).mean() / wanted.shape[1])


def _built(
    kind: Kind, vectors: Vectors, recall: float, given: dict[str, Vectors], rng: np.random.Generator
) -> tuple[Structure, Measured]:
    """Build a structure of a kind over vectors in random order, the last of which are held back to tune by."""
    began = time.perf_counter()
    order = rng.permutation(len(vectors)).astype(np.int32)
    held = order[-min(QUERIES, len(vectors) // 4) :]
    first = order[: len(order) - len(held)]
    index = _trained(kind, vectors, first)
    _add(kind, index, vectors, first)
    asked = {"of its own": vectors[held]} | {
        name: some[rng.permutation(len(some))[:QUERIES]] for name, some in given.items() if len(some)
    }
    there = np.zeros(len(vectors), bool)
    there[first] = True
    structure = Structure(kind, index, first, 0, 1)
    exact_seconds = 0.0
    truth = {}
    for name, some in asked.items():
        start = time.perf_counter()
        truth[name] = exact_allowed(vectors, some, TOP, there)[0]
        exact_seconds += time.perf_counter() - start
    design = DESIGNS[kind]
    halves = [{name: slice(part, None, 2) for name in asked} for part in (0, 1)]
    for structure.widen in design.widen:
        structure.effort = design.efforts[-1]
        if _worst(structure, vectors, asked, truth, halves[0]) >= recall + MARGIN:
            break
    low, high = 0, len(design.efforts) - 1
    while low < high:  # the least effort that is enough
        middle = (low + high) // 2
        structure.effort = design.efforts[middle]
        if _worst(structure, vectors, asked, truth, halves[0]) >= recall + MARGIN:
            high = middle
        else:
            low = middle + 1
    structure.effort = design.efforts[low]
    start = time.perf_counter()
    recalls = {
        name: recall_of(rows, scores, truth[name][halves[1][name]])
        for name, some in asked.items()
        for scores, rows in [structure.nearest(vectors, some[halves[1][name]], TOP)]
    }
    number = sum(len(some[halves[1][name]]) for name, some in asked.items())
    speed = number / (time.perf_counter() - start)
    _add(kind, index, vectors, held)
    structure.order = order
    total = sum(len(some) for some in asked.values())
    return structure, Measured(
        recalls, recall, speed, total / exact_seconds, len(structure.to_bytes()), time.perf_counter() - began
    )


def _ranked(tried: dict[str, dict[str, float]], recall: float) -> list[Any]:
    """Return the kinds, the best first: the smallest of those about as fast as the fastest that has the recall."""
    enough = {kind for kind, one in tried.items() if one["recall"] >= recall - MARGIN}
    fastest = max(tried[kind]["queries_per_second"] for kind in enough or tried)

    def merit(kind: str) -> tuple[bool, float, float]:
        slowness = fastest / tried[kind]["queries_per_second"]
        return kind not in enough, slowness if slowness > SLOWER else 1.0, tried[kind]["bytes"]

    return sorted(tried, key=merit)


def _worst(
    structure: Structure, vectors: Vectors, asked: dict[str, Vectors], truth: dict[str, Vectors], half: dict[str, slice]
) -> float:
    found = []
    for name, some in asked.items():
        scores, rows = structure.nearest(vectors, some[half[name]], TOP)
        found.append(recall_of(rows, scores, truth[name][half[name]]))
    return min(found)


def _trained(kind: str, vectors: Vectors, rows: NDArray[np.int32]) -> Any:
    faiss = import_faiss()
    count, dim = len(rows), vectors.shape[1]
    if kind == "binary":
        return faiss.IndexBinaryFlat((dim + 7) // 8 * 8)
    cells = max(1, min(round(4 * count**0.5), count // POINTS))
    halves = next(parts for parts in range(max(1, dim // 2), 0, -1) if dim % parts == 0)
    factory = {
        "hnsw": f"HNSW{LINKS},Flat",
        "hnsw-sq8": f"HNSW{LINKS},SQ8",
        "ivf-pq": f"IVF{cells},PQ{halves}x4fs",
        "ivf-rabitq": f"RR{dim},IVF{cells},RaBitQ",
        "sq8": "SQ8",
    }[kind]
    index: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    inner: Any = faiss.downcast_index(index.index) if kind == "ivf-rabitq" else index
    if kind.startswith("hnsw"):
        index.hnsw.efConstruction = BREADTH
    if kind.startswith("ivf"):
        inner.cp.max_points_per_centroid = POINTS
        inner.cp.min_points_per_centroid = 1
    index.train(vectors[np.sort(rows[: max(cells * POINTS, 10_000)])])
    return index


def _add(kind: str, index: Any, vectors: Vectors, rows: NDArray[np.int32]) -> None:
    size = max(1, PACKET // vectors.shape[1])
    for start in range(0, len(rows), size):
        some = np.ascontiguousarray(vectors[rows[start : start + size]])
        index.add(np.packbits(some > 0, axis=1) if kind == "binary" else some)
