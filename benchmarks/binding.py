"""What emerges without being trained, against training it directly; and what missing items cost.

    python benchmarks/binding.py glyphs --seeds 0 1 2
    python benchmarks/binding.py digits --data DATA

What is measured is put beside what was recorded before, in place of the same way, seed and steps.

star: image-text and image-other are trained, text-other (of digits: image-audio through the word) emerges.
direct: only what emerges is trained, on as many steps.
whole, half: all items of a sample together, and the same with half of the samples lacking one of them.
balanced: half, by the objective `pairs`, in which a pair that is met more rarely counts for more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from multimodal_ssl.config import parse_config
from multimodal_ssl.pipeline import bench, fit
from multimodal_ssl.report import Direction, device_name

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "binding"


def glyphs(steps: int, _: Path | None) -> dict[str, dict[str, Any]]:
    """Return the configs of glyphs."""
    base = yaml.safe_load((ROOT / "plugins/mmssl_glyphs/quickstart.yaml").read_text())
    base["train"] |= {"steps": steps}
    whole = {"name": "glyphs"}
    half = {**whole, "corrupt": {"dropout": 0.5, "item": "outline"}}
    return {
        "star": base,
        "direct": {
            **base,
            "sources": [{"name": "glyphs", "use": ["text", "outline"]}],
            "evaluation": [{**base["evaluation"][0], "use": ["text", "outline"]}],
            "encoders": {name: base["encoders"][name] for name in ("text", "outline")},
        },
        "whole": {**base, "sources": [whole]},
        "half": {**base, "sources": [half]},
        "balanced": {**base, "sources": [half], "objective": "pairs"},
    }


def digits(steps: int, data: Path | None) -> dict[str, dict[str, Any]]:
    """Return the configs of digits; whole and half are not there, since no sample has all three."""
    assert data, "give --data"
    read = {name: yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text()) for name in ("digits", "digits-colabel")}
    for one in read.values():
        text = json.dumps(one).replace('"data/', f'"{data}/')
        one.clear()
        one.update(json.loads(text))
        one["train"] |= {"steps": steps}
    return {"star": read["digits"], "direct": read["digits-colabel"]}


def run(name: str, values: dict[str, Any], seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train a config and return what each direction of its evaluation tells."""
    run = folder / f"{name}-{seed}"
    config = parse_config({**values, "run": str(run), "seed": seed})
    fit(config)
    return [told(one) for one in bench(run)]


def told(one: Direction) -> dict[str, Any]:
    """Return R@1 of a direction with its interval and chance."""
    result = one.result
    return {
        "query": one.query, "gallery": one.gallery, "trained": one.trained, "n": result.n,
        "R@1": result.recall[1], "interval": result.interval[1], "chance": result.chance[1],
    }  # fmt: skip


def main() -> None:
    """Train all ways with all seeds, print and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["glyphs", "digits"])
    parser.add_argument("--data", type=Path, help="folder that holds digits/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--ways", nargs="+", help="some of star, direct, whole, half, balanced")
    arguments = parser.parse_args()
    make = {"glyphs": glyphs, "digits": digits}[arguments.what]
    configs = make(arguments.steps, arguments.data and arguments.data.resolve())
    for seed in arguments.seeds:
        for way in arguments.ways or configs:
            with tempfile.TemporaryDirectory() as folder:
                figures = run(way, configs[way], seed, Path(folder))
            cell = {"way": way, "seed": seed, "steps": arguments.steps, "device": device_name(), "figures": figures}
            print(json.dumps(cell), flush=True)
            record(RESULTS / f"{arguments.what}.json", cell)


def record(path: Path, cell: dict[str, Any]) -> None:
    """Put a cell among those of a file."""
    cells = json.loads(path.read_text()) if path.exists() else []
    same = ("way", "seed", "steps")
    cells = [one for one in cells if any(one[name] != cell[name] for name in same)] + [cell]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cells, indent=1) + "\n")


if __name__ == "__main__":
    main()
