"""Train a config with several seeds and record figures, time and memory in results/NAME.json.

python benchmarks/record.py quickstart --seeds 0 1 2
python benchmarks/record.py icons --data DATA
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(name: str, seed: int, data: Path | None, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Return the figures of one training run in a process of its own."""
    run = folder / f"{name}-{seed}"
    config = ROOT / "configs" / f"{name}.yaml"
    mmssl = [sys.executable, "-m", "multimodal_ssl"]
    settings = [f"run={run}", f"seed={seed}", *overrides]
    began = time.perf_counter()
    if name == "quickstart":
        subprocess.run([*mmssl, "quickstart", *settings], check=True)
    else:
        subprocess.run([*mmssl, "fit", config, *data_paths(config, data), *settings], check=True)
    wall = time.perf_counter() - began
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    starts = [0, *(one["step"] for one in steps)]
    report = json.loads((run / "report.json").read_text())
    report["provenance"]["config"]["run"] = f"runs/{name}"
    report["seconds"] |= {
        "whole command": round(wall, 1),
        "steps": round(sum(one["seconds"] * (one["step"] - at) for one, at in zip(steps, starts, strict=False)), 1),
    }
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {"seed": seed, "commit": commit, "trained for": steps[-1]["step"], **report}


def data_paths(config: Path, data: Path | None) -> list[str]:
    """Return overrides that put the folder in place of `data/` wherever a config begins a path with it."""

    def walk(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, dict | list):
            for key, one in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(one, f"{place}.{key}" if place else str(key))
        elif isinstance(value, str) and value.startswith("data/"):
            yield f"{place}={data}/{value.removeprefix('data/')}"

    return list(walk(yaml.safe_load(config.read_text()), "")) if data else []


def main() -> None:
    """Record the named config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="quickstart, or the name of a file in configs/")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, help="folder that holds icons/, omniglot/, ...")
    arguments = parser.parse_intermixed_args()
    data = arguments.data.resolve() if arguments.data else None
    with tempfile.TemporaryDirectory() as folder:
        runs = [record(arguments.name, seed, data, arguments.overrides, Path(folder)) for seed in arguments.seeds]
    text = json.dumps(runs, indent=1)
    if data:  # where it lies on this machine is nobody's business
        text = text.replace(f"{data}/", "data/")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
