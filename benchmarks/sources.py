"""Measure what sources and engine give: samples a second beside open_clip's loader, a large table, waiting in training.

uv pip install --target PEERS --no-deps webdataset==0.2.86 braceexpand
PYTHONPATH=PEERS python benchmarks/sources.py loader table memory waiting --data DATA

What results/sources/sources.json has is measured anew. Peer and toolkit take turns in one process, with the same tars,
transform, tokenizer, batch and workers; the ratio of each turn is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from open_clip.transform import PreprocessCfg, image_transform_v2

from multimodal_ssl import Catalog, Encoder, Inputs, load_config
from multimodal_ssl.data import Feed, Supply, batches
from multimodal_ssl.pipeline import fit
from multimodal_ssl.plan import Plan
from multimodal_ssl.report import device_name

RESULTS = Path(__file__).parent / "results" / "sources" / "sources.json"
SHARDS, SAMPLES, BATCH, TURNS = 8, 1536, 64, 5
ROWS = 1_000_000


class Transform(Encoder):
    """Prepares an item by a function."""

    width = 1

    def __init__(self, modality: str, function: Callable[[Any], Inputs]) -> None:
        super().__init__()
        self.modality, self.function = modality, function

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        return self.function(item)

    def forward(self, inputs: Inputs) -> Any:
        raise NotImplementedError("only its preparation is measured")


def loader(data: Path, folder: Path) -> dict[str, Any]:
    """Compare samples a second on the openstax tars with open_clip's own loader."""
    from open_clip_train.data import get_wds_dataset

    count = reshard(data / "openstax" / "train.tar", folder, SAMPLES)
    pattern = f"{folder}/{{0..{SHARDS - 1}}}.tar"
    catalog = Catalog.discover()
    encoders = {
        name: catalog.create("encoders", f"open-clip-{name}", options={"model": "ViT-B-32"})
        for name in ("image", "text")
    }
    transform = image_transform_v2(PreprocessCfg(size=(224, 224)), is_train=True)

    def theirs(workers: int) -> float:
        args = Namespace(
            train_data=pattern, train_num_samples=count, train_data_upsampling_factors=None, dataset_resampled=False,
            seed=0, batch_size=BATCH, workers=workers, world_size=1,
        )  # fmt: skip
        tokenizer = open_clip.get_tokenizer("ViT-B-32")
        found = get_wds_dataset(args, transform, is_train=True, tokenizer=tokenizer, floor=True).dataloader
        return rate(iter(found), lambda batch: len(batch[0]))

    def ours(workers: int) -> float:
        options = {"path": pattern, "items": {"image": "jpg", "text": "txt"}}
        supplies = [Supply(catalog.create("pairing_sources", "webdataset", options=options), ("image", "text"))]
        feed = Feed(supplies, encoders, {name: catalog.modality(name) for name in encoders}, seed=0)
        tickets = Plan(supplies, batch=BATCH, seed=0).tickets(start=0, stop=count // BATCH)
        # what the encoder leaves for its forward is part of the same transform, so it is done here
        return rate(
            batches(feed, tickets, workers=workers),
            lambda batch: len(encoders["image"].normalise(batch.inputs["image"].float().div_(255))),
        )

    def compare(workers: int) -> dict[str, Any]:
        return turns(lambda: ours(workers), lambda: theirs(workers))

    return {f"{workers} workers": compare(workers) for workers in (1, 2)}


def reshard(path: Path, folder: Path, count: int) -> int:
    """Write the first samples of a tar to several, as open_clip asks for; return their number."""
    with tarfile.open(path) as source:
        members = [member for member in source if member.name.endswith((".jpg", ".txt"))]
        samples = [list(some) for _, some in itertools.groupby(members, key=lambda one: one.name.rpartition(".")[0])]
        samples = samples[:count]
        for shard in range(SHARDS):
            with tarfile.open(folder / f"{shard}.tar", "w") as tar:
                for member in itertools.chain(*samples[shard::SHARDS]):
                    tar.addfile(member, source.extractfile(member))
    return len(samples)


def rate(found: Any, size: Callable[[Any], int]) -> float:
    """Return samples a second from the first batch on: how long workers take to start is not what is compared."""
    next(found)
    began, count = time.perf_counter(), 0
    for batch in found:
        count += size(batch)
    return count / (time.perf_counter() - began)


def turns(ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """Return the medians of both and of the ratio, with its range."""
    found = [(ours(), theirs()) if turn % 2 else (theirs(), ours())[::-1] for turn in range(TURNS)]
    ratios = [mine / other for mine, other in found]
    return {
        "samples a second": round(median(mine for mine, _ in found)),
        "open_clip": round(median(other for _, other in found)),
        "ratio": round(median(ratios), 2),
        "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def table(_: Path, folder: Path) -> dict[str, Any]:
    """Open a table of a million rows, take the first batch, and go on at row 700,000, each in a process of its own."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    texts = [" ".join(some) for some in words[rng.integers(0, 5000, (ROWS, 6))]]
    columns = {
        "key": [f"k{row}" for row in range(ROWS)],
        "file": [f"pictures/{row}.png" for row in range(ROWS)],
        "caption": texts,
        "group": [f"g{one}" for one in rng.integers(0, 400_000, ROWS)],
    }
    made = pa.table(columns)
    pyarrow.csv.write_csv(made, folder / "t.csv")
    pyarrow.parquet.write_table(made, folder / "t.parquet")
    with (folder / "t.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in made.to_pylist())
    found = {}
    for suffix in ("csv", "parquet", "jsonl"):
        told = [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--measure-table", folder / f"t.{suffix}"],
                    check=True, capture_output=True, text=True,
                ).stdout.splitlines()[-1]
            )
            for _ in range(3)
        ]  # fmt: skip
        found[suffix] = {name: round(median(one[name] for one in told), 2) for name in told[0]}
    return found


def measure_table(path: Path) -> None:
    """Print what opening a table, its first batch and going on at row 700,000 take."""
    catalog = Catalog.discover()
    modalities = {name: catalog.modality("text") for name in ("text", "other")}
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    columns = {"text": "caption", "other": {"column": "file", "modality": "text"}}
    options = {"path": path, "columns": columns, "key": "key", "group": "group"}
    source = catalog.create("pairing_sources", "table", options=options)
    opened, grown = time.perf_counter() - began, (process.memory_info().rss - before) / 1e6
    encoders = {name: Transform("text", len) for name in modalities}

    def first(step: int) -> float:
        began = time.perf_counter()
        supplies = [Supply(source, ("text", "other"))]
        tickets = Plan(supplies, batch=256, seed=0).tickets(start=step, stop=10_000)
        found = next(batches(Feed(supplies, encoders, modalities, seed=0), tickets, workers=0))
        assert len(found.keys) == 256
        return time.perf_counter() - began

    told = {"open s": opened, "grown MB": grown, "first batch s": first(0), "resume s": first(700_000 // 256)}
    print(json.dumps(told))


def memory(_: Path, folder: Path) -> dict[str, Any]:
    """Go over a million rows with two workers and tell the memory of all processes at each tenth."""
    path = folder / "t.parquet"
    pa.parquet.write_table(pa.table({"a": [f"text {row}" for row in range(ROWS)], "b": list(range(ROWS))}), path)
    catalog = Catalog.discover()
    options = {
        "path": path,
        "columns": {"a": {"column": "a", "modality": "text"}, "b": {"column": "b", "modality": "text"}},
    }
    supplies = [Supply(catalog.create("pairing_sources", "table", options=options), ("a", "b"))]
    encoders = {name: Transform("text", len) for name in ("a", "b")}
    feed = Feed(supplies, encoders, {name: catalog.modality("text") for name in encoders}, seed=0)
    steps = ROWS // 256
    process, told = psutil.Process(), []
    for step, _ in enumerate(batches(feed, Plan(supplies, batch=256, seed=0).tickets(start=0, stop=steps), workers=2)):
        if step % (steps // 10) == steps // 20:
            every = [process, *process.children()]
            told.append(round(sum(one.memory_full_info().uss for one in every) / 1e6))
    return {"MB": told, "growth": round(told[-1] / told[1], 3)}


def waiting(data: Path, folder: Path) -> dict[str, Any]:
    """Train the image and text encoders of configs/openstax-small.yaml and tell what share of a step waits for data."""
    overrides = {
        "run": folder / "run", "evaluation": "[]", "sources.0.path": data / "openstax" / "train.tar",
        "train.steps": 60, "train.workers": 1, "train.log_every": 10,
    }  # fmt: skip
    fit(load_config("configs/openstax-small.yaml", [f"{name}={value}" for name, value in overrides.items()]))
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = [one["waiting"] for one in lines if "waiting" in one][1:]  # workers start in the first
    return {"share": round(median(shares), 4), "shares": [round(min(shares), 4), round(max(shares), 4)]}


MEASURES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "loader": loader,
    "table": table,
    "memory": memory,
    "waiting": waiting,
}


def main(names: Sequence[str], data: Path) -> None:
    """Measure and record."""
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            told[name] = {"device": device_name(), **MEASURES[name](data, Path(folder))}
        print(name, json.dumps(told[name], indent=1))
        RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASURES, []])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--measure-table", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure_table:
        measure_table(given.measure_table)
    else:
        main(given.names or list(MEASURES), given.data)
