"""Train and audit through planted mismatches, against an oracle that trains on the truly clean pairs alone.

python benchmarks/noise.py glyphs --quick
python benchmarks/noise.py icons --data DATA --noise 0 0.2 0.4 0.6 0.8 --seeds 0 1 2
python benchmarks/noise.py glyphs --cost

Beside the objectives: `acl-2` and `acl-3` are acl in so many rounds (trust.rounds), `oracle` is InfoNCE on the clean
pairs, `oracle-long` so for twice the epochs, `audit` judges all pairs, `audited` is InfoNCE on what that audit leaves.
What results/noise/NAME.json has is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from multimodal_ssl import Binder, Catalog, bench, fit
from multimodal_ssl.audit import audit
from multimodal_ssl.config import Config, TrustConfig, parse_config
from multimodal_ssl.corrupt import Corrupted
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import embed
from multimodal_ssl.metrics import auroc
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.report import device_name, timed
from multimodal_ssl.trust import Trust

HERE = Path(__file__).parent
OBJECTIVES = ("info-nce", "acl", "gce", "rcl", "rince", "label-smoothing", "siglip")
ROUNDS = {"acl-2": 2, "acl-3": 3}
ALL = (*OBJECTIVES, *ROUNDS, "oracle", "oracle-long", "audit", "audited")
BINS = 10


def config_of(values: dict[str, Any], what: str, noise: float, seed: int, folder: Path) -> Config:
    """Return the config of one cell."""
    values = copy.deepcopy(values)
    values["sources"][0]["corrupt"] = {"mismatch": noise, "seed": seed, "drop": what.startswith("oracle")}
    values |= {"run": str(folder / f"{what}-{noise}-{seed}"), "seed": seed}
    values["objective"] = what if what in OBJECTIVES else "acl" if what in ROUNDS else "info-nce"
    values["trust"] = {"rounds": ROUNDS.get(what, 1)}
    if what == "oracle-long":
        values["train"]["epochs"] *= 2
    return parse_config(values)


def measure(values: dict[str, Any], what: str, noise: float, seed: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one cell."""
    config = config_of(values, what, noise, seed, folder)
    seconds: dict[str, float] = {}
    with timed(seconds, "all"):
        if what == "audit":
            found = judge(config)
        else:
            if what == "audited":
                path = folder / f"audit-{noise}-{seed}" / "audit.parquet"
                config = parse_config({**config.model_dump(), "audit": {"path": str(path)}})
            binder = fit(config)
            found = score(config, binder, noisy=noise > 0, what=what)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    measured = {"seconds": round(seconds["all"], 1), "commit": commit, "device": device_name()}
    return {"what": what, "noise": noise, "seed": seed, **found, **measured}


def score(config: Config, binder: Binder, *, noisy: bool, what: str) -> dict[str, Any]:
    """Return R@1 of both directions, the time of a step, and how well trust and model tell the mismatched."""
    directions = bench(config.run, binder=binder)
    lines = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {
        "r1": {f"{one.query}-{one.gallery}": one.result.recall[1] for one in directions},
        "interval": {f"{one.query}-{one.gallery}": one.result.interval[1] for one in directions},
        "n": directions[0].result.n,
        "step_ms": round(1000 * float(np.median([one["seconds"] for one in lines])), 1),
    }
    if noisy:
        everything, source = noisy_source(config)
        truth = dict(zip((sample.key for sample in source), source.mismatched, strict=True))
        seen, _ = embed(binder, everything, workers=config.train.workers)
        first, second = (seen[name] for name in everything[0].names)
        wrong = np.array([truth[key] for key in first.keys])
        found["auroc_of_model"] = auroc(-(first.vectors * second.vectors).sum(1), wrong)
        if what in (*OBJECTIVES, *ROUNDS):
            believed = Trust.load(config.run / "trust.parquet", TrustConfig()).values(hash64(first.keys))
            visited = np.isfinite(believed)
            found["auroc_of_trust"] = auroc(-believed[visited], wrong[visited])
    return found


def judge(config: Config) -> dict[str, Any]:
    """Audit, and return how well it tells the mismatched: the rate, calibration, precision at the top, what drops."""
    found = audit(config, config.run)
    found.save(config.run)
    _, source = noisy_source(config)
    truth = dict(zip((sample.key for sample in source), source.mismatched, strict=True))
    rows = [row for row in found.table.to_pylist() if row["p_mismatch"] is not None]
    wrong = np.array([truth[row["key"]] for row in rows])
    p_mismatch = np.array([row["p_mismatch"] for row in rows])
    (rate,) = found.rates
    figures: dict[str, Any] = {
        "rate": rate.gross.value,
        "rate_interval": [rate.gross.low, rate.gross.high],
        "calibration_error": calibration_error(p_mismatch, wrong),
        "samples": len(rows),
    }
    if wrong.any():
        figures["auroc"] = auroc(np.array([row["p_value"] for row in rows]), wrong)
        figures["precision_at_top"] = float(wrong[: int(wrong.sum())].mean())  # the rows come worst first
        figures["dropped_of_wrong"] = float((p_mismatch >= 0.5)[wrong].mean())
    figures["dropped_of_clean"] = float((p_mismatch >= 0.5)[~wrong].mean())
    return figures


def noisy_source(config: Config) -> tuple[list[Any], Corrupted]:
    """Return the supplies with all pairs, right and wrong, and the source that knows which."""
    values = config.model_dump()
    values["sources"][0]["corrupt"]["drop"] = False
    supplies = open_supplies(parse_config(values).sources, Catalog.discover())
    assert isinstance(supplies[0].source, Corrupted)
    return supplies, supplies[0].source


def calibration_error(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(probability[bins == one].sum() - truth[bins == one].sum()) for one in range(BINS)]
    return float(sum(gaps) / len(truth))


def cost(values: dict[str, Any], folder: Path, *, rounds: int = 5, steps: int = 40) -> dict[str, Any]:
    """Return the time of a step of acl as a multiple of InfoNCE's, run in turns: the median, and all ratios."""
    values = copy.deepcopy(values)
    values["train"] |= {"steps": steps, "epochs": None, "log_every": 1}
    ratios = []
    for turn in range(rounds):
        times = []
        for what in ("info-nce", "acl"):
            config = config_of(values, what, 0.4, turn, folder)
            fit(config)
            lines = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
            times.append(median(one["seconds"] for one in lines[steps // 4 :]))
        ratios.append(round(times[1] / times[0], 3))
    return {"what": "cost", "noise": 0.4, "seed": 0, "ratios": ratios, "median": median(ratios)}


def main() -> None:
    """Fill the table, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the name of a file in benchmarks/noise/")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of train, e.g. threads=1")
    parser.add_argument("--data", type=Path, help="folder that holds icons/, omniglot/, ...")
    parser.add_argument("--what", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--quick", action="store_true", help="0 and 40 %%, InfoNCE, ACL, the oracle, 1 seed, half the epochs"
    )
    parser.add_argument("--cost", action="store_true", help="the time of a step, acl against InfoNCE")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/noise/NAME.json")
    arguments = parser.parse_intermixed_args()
    values = yaml.safe_load((HERE / "noise" / f"{arguments.name}.yaml").read_text())
    for override in arguments.overrides:
        key, _, text = override.partition("=")
        values["train"][key] = yaml.safe_load(text)
    for source in (*values["sources"], *values["evaluation"]):
        if arguments.data and "path" in source:
            source["path"] = str(arguments.data.resolve() / Path(source["path"]).relative_to("data"))
    out = arguments.out or HERE / "results" / "noise" / f"{arguments.name}{'-quick' if arguments.quick else ''}.json"
    if arguments.quick:
        arguments.what, arguments.noise, arguments.seeds = ["info-nce", "acl", "oracle"], [0, 0.4], [0]
        values["train"]["epochs"] //= 2
    with tempfile.TemporaryDirectory() as folder:
        if arguments.cost:
            keep(out, cost(values, Path(folder)))
            return
        for seed, noise, what in itertools.product(arguments.seeds, arguments.noise, arguments.what):
            is_there = any((one["what"], one["noise"], one["seed"]) == (what, noise, seed) for one in read(out))
            if is_there or (what == "oracle" and noise == 0):  # which is InfoNCE
                continue
            if what == "audited" and not (Path(folder) / f"audit-{noise}-{seed}" / "audit.parquet").exists():
                measure(values, "audit", noise, seed, Path(folder))
            keep(out, measure(values, what, noise, seed, Path(folder)))
            print(table(read(out)), flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the cells that were measured."""
    cells: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return cells


def keep(path: Path, cell: dict[str, Any]) -> None:
    """Add a cell; those of another process that writes the same file stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*read(path), cell], indent=1) + "\n")


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: R@1, the mean of directions and seeds, and how much of the oracle's it is."""
    noises = sorted({one["noise"] for one in cells})
    rows = ["| | seeds | " + " | ".join(f"{noise:.0%}" for noise in noises) + " |", "|---" * (len(noises) + 2) + "|"]
    for what in [one for one in ALL if any(cell["what"] == one and "r1" in cell for cell in cells)]:
        row = []
        for noise in noises:
            ours = recalls(cells, what, noise)
            best = recalls(cells, "oracle" if noise else "info-nce", noise)
            share = [ours[seed] / best[seed] for seed in ours.keys() & best.keys() if what != "oracle"]
            text = f"{np.mean(list(ours.values())):.3f}" if ours else ""
            row.append(text + (f" ({np.mean(share):.2f})" if share and (noise or what != "info-nce") else ""))
        counts = {len(recalls(cells, what, noise)) for noise in noises} - {0}
        rows.append(f"| {what} | {'-'.join(map(str, sorted(counts)))} | " + " | ".join(row) + " |")
    return "\n".join(rows)


def recalls(cells: Sequence[dict[str, Any]], what: str, noise: float) -> dict[int, float]:
    """Return R@1, the mean of both directions, by seed."""
    found = [one for one in cells if (one["what"], one["noise"]) == (what, noise) and "r1" in one]
    return {one["seed"]: float(np.mean(list(one["r1"].values()))) for one in found}


if __name__ == "__main__":
    main()
