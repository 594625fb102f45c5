"""Train through planted mismatches with several objectives, against an oracle that trains on the clean pairs alone.

python benchmarks/noise.py glyphs --quick
python benchmarks/noise.py icons --data DATA --noise 0 0.2 0.4 0.6 0.8 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml

from multimodal_ssl import Catalog, bench, fit
from multimodal_ssl.config import TrustConfig, parse_config
from multimodal_ssl.corrupt import Corrupted
from multimodal_ssl.data import hash64
from multimodal_ssl.metrics import auroc
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.report import timed
from multimodal_ssl.trust import Trust

HERE = Path(__file__).parent
OBJECTIVES = ("info-nce", "acl", "gce", "rcl", "rince", "label-smoothing", "siglip")
ORACLE = "oracle"


def cell(config: dict[str, Any], objective: str, noise: float, seed: int, folder: Path) -> dict[str, Any]:
    """Train once and return R@1 by direction, how well trust tells the mismatched, and the time of a step."""
    values = copy.deepcopy(config)
    corrupt = {"mismatch": noise, "seed": seed, "drop": objective == ORACLE}
    values["sources"][0]["corrupt"] = corrupt
    values |= {"run": str(folder / f"{objective}-{noise}-{seed}"), "seed": seed}
    values["objective"] = "info-nce" if objective == ORACLE else objective
    parsed = parse_config(values)
    seconds: dict[str, float] = {}
    with timed(seconds, "train"):
        binder = fit(parsed)
    directions = bench(parsed.run, binder=binder)
    lines = [json.loads(line) for line in (parsed.run / "metrics.jsonl").read_text().splitlines()]
    found = {
        "objective": objective, "noise": noise, "seed": seed,
        "r1": {f"{one.query}-{one.gallery}": one.result.recall[1] for one in directions},
        "interval": {f"{one.query}-{one.gallery}": one.result.interval[1] for one in directions},
        "n": directions[0].result.n,
        "seconds": round(seconds["train"], 1),
        "step_ms": round(1000 * float(np.median([one["seconds"] for one in lines])), 1),
    }  # fmt: skip
    if noise and objective != ORACLE:
        source = open_supplies(parsed.sources, Catalog.discover())[0].source
        assert isinstance(source, Corrupted)
        trust = Trust.load(parsed.run / "trust.parquet", TrustConfig())
        believed = trust.values(hash64(sample.key for sample in source))
        seen = np.isfinite(believed)
        found["auroc"] = auroc(-believed[seen], source.mismatched[seen])
    return found


def table(cells: list[dict[str, Any]]) -> str:
    """Return a Markdown table: R@1, the mean of both directions, and how much of the oracle's that is."""
    noises = sorted({one["noise"] for one in cells})
    at = {(one["objective"], one["noise"]): [] for one in cells}
    for one in cells:
        at[one["objective"], one["noise"]].append(one)
    lines = ["| objective | " + " | ".join(f"{noise:.0%}" for noise in noises) + " |", "|---" * (len(noises) + 1) + "|"]
    for objective in dict.fromkeys(one["objective"] for one in cells):
        row = []
        for noise in noises:
            runs, oracle = at.get((objective, noise), []), at.get((ORACLE, noise), [])
            text = f"{mean(map(r1, runs)):.3f}" if runs else ""
            if runs and oracle and objective != ORACLE:
                text += f" ({mean(map(r1, runs)) / mean(map(r1, oracle)):.2f})"
            if runs and "auroc" in runs[0]:
                text += f" AUROC {mean(one['auroc'] for one in runs):.3f}"
            row.append(text)
        lines.append(f"| {objective} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def r1(one: dict[str, Any]) -> float:
    """Return the mean R@1 of both directions."""
    return mean(one["r1"].values())


def main() -> None:
    """Fill the table, cell by cell; what is recorded already is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the name of a file in benchmarks/noise/")
    parser.add_argument("--data", type=Path, help="folder that holds icons/, omniglot/, ...")
    parser.add_argument("--objectives", nargs="+", default=[*OBJECTIVES, ORACLE])
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="0 and 40 %%, InfoNCE, ACL and the oracle, one seed")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/noise-NAME.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.objectives, arguments.noise, arguments.seeds = ["info-nce", "acl", ORACLE], [0, 0.4], [0]
    config = yaml.safe_load((HERE / "noise" / f"{arguments.name}.yaml").read_text())
    for source in (*config["sources"], *config["evaluation"]):
        if arguments.data and "path" in source:
            source["path"] = str(arguments.data.resolve() / Path(source["path"]).relative_to("data"))
    out = arguments.out or HERE / "results" / f"noise-{arguments.name}{'-quick' if arguments.quick else ''}.json"
    cells = json.loads(out.read_text()) if out.exists() else []
    done = {(one["objective"], one["noise"], one["seed"]) for one in cells}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for noise in arguments.noise:
                for objective in arguments.objectives:
                    if (objective, noise, seed) not in done and not (objective == ORACLE and noise == 0):
                        cells.append(cell(config, objective, noise, seed, Path(folder)))
                        out.write_text(json.dumps(cells, indent=1) + "\n")
                        print(table(cells), flush=True)


if __name__ == "__main__":
    main()
