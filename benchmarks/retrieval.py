"""Measure the index: search structures against exact search and against peers, filters, overhead, changes.

python benchmarks/retrieval.py structures peers overhead filters binary
python benchmarks/retrieval.py large evaluation
python benchmarks/retrieval.py mixed --run runs/quickstart

What results/retrieval/index.json has of a part is measured anew. `peers` needs hnswlib and usearch in the environment.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from multimodal_ssl import Index, ann, load, search
from multimodal_ssl.embed import Embedded
from multimodal_ssl.exact import exact
from multimodal_ssl.index import Hit
from multimodal_ssl.metrics import answer, summarise
from multimodal_ssl.report import device_name

HERE = Path(__file__).parent
OUT = HERE / "results" / "retrieval" / "index.json"
DIM, TOP, TURNS = 128, 10, 5
Vectors = NDArray[np.float32]


def vectors(count: int, *, seed: int, dim: int = DIM) -> Vectors:
    """Return unit vectors like an encoder's: clusters of unequal size in a space of fewer dimensions, and noise."""
    world = np.random.default_rng(0)  # one for all seeds, so that queries and items are of one kind
    centres = world.standard_normal((2000, 24)).astype(np.float32)
    lift = world.standard_normal((24, dim)).astype(np.float32) / 24**0.5
    rng = np.random.default_rng(seed)
    found = np.empty((count, dim), np.float32)
    for start in range(0, count, 100_000):
        number = min(100_000, count - start)
        latent = centres[(2000 * rng.random(number) ** 1.5).astype(int)] + 0.5 * rng.standard_normal((number, 24))
        part = latent.astype(np.float32) @ lift + 0.25 * rng.standard_normal((number, dim)).astype(np.float32)
        found[start : start + number] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return found


def in_turns(*calls: Callable[[], object], turns: int = TURNS) -> list[list[float]]:
    """Return the seconds of each call in so many turns, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(turns + 1):
        for call, times in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - began)
    return seconds


def ratios(base: list[float], other: list[float]) -> dict[str, Any]:
    """Return how many times as long the base takes: the median of the turns, and all of them."""
    each = [round(a / b, 3) for a, b in zip(base, other, strict=True)]
    return {"ratio": median(each), "ratios": each}


def made(folder: Path, items: Vectors) -> Index:
    """Return an index of pictures whose key and group are their number."""
    index = Index.create(folder, "benchmark", items.shape[1])
    for start in range(0, len(items), 50_000):
        keys = [str(start + i) for i in range(len(items[start : start + 50_000]))]
        index.add("image", Embedded(items[start : start + 50_000], keys, keys))
    return index


def recall_at_10(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of the true ten that were found."""
    return float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, truth, strict=True)]))


def structures(folder: Path) -> Iterable[dict[str, Any]]:
    """Compare every structure that reaches .97 with exact search, by recall on unseen queries, speed and memory."""
    items, queries = vectors(100_000, seed=1), vectors(2000, seed=2)
    index = made(folder, items)
    _, ids = index.nearest("image", queries, TOP)
    for kind in (None, *ann.DESIGNS):
        measured = index.optimise("image", kind=kind, recall=0.97)
        structure = index.describe()["modalities"]["image"]["structure"]
        _, found = index.nearest("image", queries, TOP)
        times = in_turns(lambda: exact(items, queries, TOP), lambda: index.nearest("image", queries, TOP))
        yield {
            "kind": kind or "chosen", "is": structure["kind"], "effort": structure.get("effort"),
            "widen": structure.get("widen"), "wanted": 0.97, "reported": measured.recall,
            "unseen": recall_at_10(found, ids), "bytes": measured.bytes, "seconds": measured.seconds,
            "queries_per_second": len(queries) / median(times[1]), "faster_than_exact": ratios(*times),
            "tried": measured.tried,
        }  # fmt: skip


def peers(folder: Path) -> Iterable[dict[str, Any]]:
    """Compare HNSW here, in FAISS bare, in hnswlib and in usearch, each at the effort that reaches .97."""
    import hnswlib
    import usearch.index

    items, queries = vectors(100_000, seed=1), vectors(2000, seed=2)
    index = made(folder, items)
    _, truth = index.nearest("image", queries, TOP)
    truth -= 1  # ids begin at 1
    seconds = {}
    began = time.perf_counter()
    index.optimise("image", kind="hnsw", recall=0.97)
    seconds["multimodal_ssl, tuned"] = time.perf_counter() - began
    threads = faiss.omp_get_max_threads()
    began = time.perf_counter()
    theirs = hnswlib.Index("ip", DIM)
    theirs.init_index(len(items), ef_construction=ann.BREADTH, M=ann.LINKS)
    theirs.add_items(items, num_threads=threads)
    seconds["hnswlib"] = time.perf_counter() - began
    began = time.perf_counter()
    other = usearch.index.Index(ndim=DIM, metric="ip", connectivity=ann.LINKS, expansion_add=ann.BREADTH)
    other.add(np.arange(len(items)), items, threads=threads)
    seconds["usearch"] = time.perf_counter() - began

    def search_hnswlib() -> NDArray[np.int64]:
        return theirs.knn_query(queries, TOP, num_threads=threads)[0].astype(np.int64)

    def search_usearch() -> NDArray[np.int64]:
        return other.search(queries, TOP, threads=threads).keys.astype(np.int64)

    def search_ours() -> NDArray[np.int64]:
        return index.nearest("image", queries, TOP)[1] - 1

    for effort in ann.BEAMS:
        theirs.set_ef(effort)
        if recall_at_10(search_hnswlib(), truth) >= 0.97:
            break
    for effort in ann.BEAMS:
        other.expansion_search = effort
        if recall_at_10(search_usearch(), truth) >= 0.97:
            break
    calls = {"multimodal_ssl, tuned": search_ours, "hnswlib": search_hnswlib, "usearch": search_usearch}
    times = in_turns(*calls.values())
    for (name, call), each in zip(calls.items(), times, strict=True):
        yield {
            "name": name, "recall": recall_at_10(call(), truth), "queries_per_second": len(queries) / median(each),
            "ours_faster": ratios(each, times[0]), "build_seconds": seconds[name],
        }  # fmt: skip


def overhead(folder: Path) -> Iterable[dict[str, Any]]:
    """Compare batches through the index with FAISS bare: the same search, at the same effort."""
    items, queries = vectors(100_000, seed=1), vectors(2000, seed=2)
    index = made(folder, items)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(items)
    index.optimise("image", kind="hnsw", recall=0.97)
    index.nearest("image", queries[:1], TOP)
    structure = index._views["image"].structure
    assert structure
    parameters = ann._parameters(structure.kind, structure.effort, 0)
    for kind in ("hnsw", "flat"):
        if kind == "flat":
            index.optimise("image", kind="flat")
        bare = flat.search if kind == "flat" else partial(structure.index.search, params=parameters)
        for size in (1, 64, 2000):
            some = [queries[start : start + size] for start in range(0, 2000 if size > 1 else 200, size)]
            ours = partial(each, partial(index.nearest, "image"), some)
            times = in_turns(ours, partial(each, bare, some), turns=25)
            yield {"kind": kind, "batch": size, "ours_takes": ratios(*times)}


def each(search: Callable[[Vectors, int], object], batches: Iterable[Vectors]) -> None:
    """Search for batch after batch."""
    for one in batches:
        search(one, TOP)


def filters(folder: Path) -> Iterable[dict[str, Any]]:
    """Search among a share of the items: recall against comparing all of these."""
    items, queries = vectors(100_000, seed=1), vectors(500, seed=2)
    index = made(folder, items)
    rng = np.random.default_rng(0)
    for kind in ("hnsw", "ivf-pq"):
        index.optimise("image", kind=kind, recall=0.97)
        for share in (0.5, 0.1, 0.01, 0.001):
            rows = np.sort(rng.permutation(len(items))[: round(share * len(items))])
            truth = rows[np.argsort(-(queries @ items[rows].T), axis=1)[:, :TOP]]
            began = time.perf_counter()
            _, found = index.nearest("image", queries, TOP, among=rows + 1)
            seconds = time.perf_counter() - began
            yield {
                "kind": kind, "share": share, "recall": recall_at_10(found - 1, truth),
                "queries_per_second": len(queries) / seconds,
            }  # fmt: skip


def binary(_: Path) -> Iterable[dict[str, Any]]:
    """Keep one bit a number, and compare ten candidates for each answer exactly."""
    for dim in (DIM, 512):
        items, queries = vectors(50_000, seed=1, dim=dim), vectors(1000, seed=2, dim=dim)
        truth = exact(items, queries, TOP)[1]
        kinds: tuple[ann.Kind, ...] = ("binary", "sq8")
        for kind in kinds:
            structure, measured = ann.build(items, kind=kind, recall=0.99)
            assert structure
            for structure.widen in (1, 2, 4, 10, 20):
                yield {
                    "dim": dim, "kind": kind, "widen": structure.widen,
                    "share_of_memory": measured.bytes / items.nbytes,
                    "recall": recall_at_10(structure.nearest(items, queries, TOP)[1], truth),
                }  # fmt: skip


def large(folder: Path) -> Iterable[dict[str, Any]]:
    """Build an index of a million within 400 MB; the vectors stay in their file."""
    program = "import sys; from pathlib import Path; from retrieval import build; build(Path(sys.argv[1]))"
    items = vectors(1_000_000, seed=1)
    began = time.perf_counter()
    made(folder, items).close()
    added = time.perf_counter() - began
    queries = vectors(1000, seed=2)
    truth = exact(items, queries, TOP)[1]
    del items
    told = subprocess.run(
        [sys.executable, "-c", program, folder], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE
    ).stdout.splitlines()[-1]
    with Index(folder) as index:
        _, found = index.nearest("image", queries, TOP)
        yield {
            "items": 1_000_000, "seconds_to_add": added, **json.loads(told), "unseen": recall_at_10(found - 1, truth),
            "structure": index.describe()["modalities"]["image"]["structure"],
        }  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "cosine": {"centre": False},
    "centred": {"centre": True},
    "csls": {"centre": False, "csls": True},
    "centred, csls": {"centre": True, "csls": True},
}


def mixed(_: Path, run: Path) -> Iterable[dict[str, Any]]:
    """Search one modality or two at once by words, ranked in every way: nDCG@10, and what it gains on the cosine."""
    binder = load(run)
    with Index(run / "index") as index:
        texts = index.store.items(index.store.places("text").ids.tolist()).values()
        for among in (["image"], ["outline"], ["image", "outline"], ["text", "image"]):
            relevant = Counter(
                item.group
                for name in among
                for item in index.store.items(index.store.places(name).ids.tolist()).values()
            )
            gains = {}
            for way, options in WAYS.items():
                answers = search(binder, index, [item.preview.text for item in texts], among=among, **options)
                gains[way] = np.array(
                    [gain(item.group, hits, relevant[item.group]) for item, hits in zip(texts, answers, strict=True)]
                )
                difference = gains[way] - gains["cosine"]
                yield {
                    "by": "text", "among": among, "queries": len(texts), "way": way, "ndcg": float(gains[way].mean()),
                    "gain": float(difference.mean()),
                    "plus_minus": 1.96 * float(difference.std()) / len(difference) ** 0.5,
                }  # fmt: skip


def gain(group: str, hits: Iterable[Hit], relevant: int) -> float:
    """Return nDCG@10 of answers, those of the group being relevant."""
    discount = 1 / np.log2(np.arange(2, TOP + 2))
    found = np.array([hit.item.group == group for hit in hits])
    return float(discount[: len(found)][found].sum() / discount[: min(TOP, relevant)].sum())


def evaluation(_: Path) -> Iterable[dict[str, Any]]:
    """Score 100,000 queries against 100,000 items with all measures, in a process whose memory is told."""
    items, queries = vectors(100_000, seed=1), vectors(100_000, seed=2)
    groups = np.arange(100_000) // 5
    began = time.perf_counter()
    result = summarise(answer(queries, items, groups, groups))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, len(queries), 1000):
        queries[start : start + 1000] @ items.T
    product = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield {"n": result.n, "seconds": seconds, "of_it_product": product, "peak_rss": peak}


def build(folder: Path) -> None:
    """Build the structure of a large index, in a process of its own whose memory is told."""
    with Index(folder) as index:
        before = anonymous()
        began = time.perf_counter()
        index.optimise("image", recall=0.95, memory=400e6)
        print(json.dumps({"seconds_to_build": time.perf_counter() - began, "before": before, "after": anonymous(),
                          "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))  # fmt: skip


def anonymous() -> int:
    """Return the memory of this process that is no file's, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


PARTS: dict[str, Callable[..., Iterable[dict[str, Any]]]] = {
    one.__name__: one for one in (structures, peers, overhead, filters, binary, large, mixed, evaluation)
}


def main() -> None:
    """Measure the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--run", type=Path, help="a trained quickstart, for `mixed`")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    origin = {"commit": commit, "device": device_name(), "threads": faiss.omp_get_max_threads()}
    for name in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            more = [arguments.run] if name == "mixed" else []
            for row in PARTS[name](Path(folder) / "index", *more):
                print(name, json.dumps(row), flush=True)
                rows.append(row)
        found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        arguments.out.write_text(json.dumps({**found, name: {**origin, "rows": rows}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
