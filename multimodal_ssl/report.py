"""What a run has to show: report.json (figures, time, memory, provenance) and README.md, its model card."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from multimodal_ssl.config import Config, dump_config
from multimodal_ssl.files import write_text
from multimodal_ssl.metrics import Retrieval

HEADER = """| from | to | trained together | R@1 | x chance | R@10 | chance R@10 | median rank | queries |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Direction:
    """Retrieval from one modality to another; `trained` tells whether a batch ever held both."""

    query: str
    gallery: str
    trained: bool
    result: Retrieval


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Keep how long a stage takes."""
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began


def peak_memory() -> float | None:
    """Return the largest resident memory of this process plus that of its largest worker, in GB; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1e-9 if sys.platform == "darwin" else 1024e-9
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def device_name() -> str:
    """Return what this machine computes on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {platform.machine()}"


def figures(config: Config, fingerprint: str, directions: Sequence[Direction]) -> dict[str, Any]:
    """Return figures as plain values, with what they were measured with."""
    provenance = {
        "fingerprint": fingerprint,
        "config": yaml.safe_load(dump_config(config)),
        "version": version("multimodal-ssl"),
        "torch": torch.__version__,
        "device": device_name(),
        "threads": torch.get_num_threads(),
    }
    retrieval = [{**asdict(one), "times_chance": one.result.times_chance} for one in directions]
    return {"provenance": provenance, "retrieval": retrieval}


def save_report(
    config: Config, fingerprint: str, directions: Sequence[Direction], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Write report.json of a run, and its model card anew; return the report."""
    memory = peak_memory()
    report = {
        **figures(config, fingerprint, directions),
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "peak_memory_gb": memory and round(memory, 2),
    }
    write_text(config.run / "report.json", json.dumps(report, indent=2))
    save_card(config.run)
    return report


def save_card(run: Path) -> None:
    """Write README.md, the model card, from the other files of a run."""
    binder = json.loads((run / "binder.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    recipe, names = binder["recipe"], list(binder["recipe"]["encoders"])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    lost = pq.read_metadata(run / "rows.parquet").num_rows
    parts = [
        f"# {run.name}\n",
        f"One space of {recipe['dim']} dimensions for {', '.join(names)}; unit vectors, compared by cosine.\n",
        "| items | modality | encoder | options |\n|---|---|---|---|",
        *(
            f"| {name} | {recipe['modalities'][name]} | {one['name']} | {_inline(one['options'])} |"
            for name, one in recipe["encoders"].items()
        ),
        "\n## Trained on\n",
        *(f"- {_inline(source)}" for source in config["sources"]),
        f"\n{last['step']:,} steps of {config['train']['batch']} samples by {config['objective']['name']}; in the end "
        f"loss {last['loss']:.3f}, agreement {last['agreement']:.3f}."
        + (f" {lost:,} samples were unreadable." if lost else ""),
    ]
    if (run / "report.json").exists():
        directions = json.loads((run / "report.json").read_text())["retrieval"]
        parts += ["\n## Retrieval\n", *(f"- {_inline(source)}" for source in config["evaluation"])]
        parts += ["", retrieval_table([directions]).rstrip()]
    parts += [
        f"""
## Use

```python
from multimodal_ssl import load

binder = load("{run}")
vectors = binder.encode("{names[0]}", [...])  # [N, {recipe["dim"]}]
```

multimodal_ssl {binder["version"]}, format {binder["format"]}, fingerprint `{binder["fingerprint"]}`.
"""
    ]
    write_text(run / "README.md", "\n".join(parts))


def retrieval_table(runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return a Markdown table with a row for each direction; of several runs the mean and the range."""
    rows = []
    for directions in zip(*runs, strict=True):
        first, results = directions[0], [one["result"] for one in directions]
        rows.append(
            f"| {first['query']} | {first['gallery']} | {'yes' if first['trained'] else '**never**'} "
            f"| {_spread([one['recall']['1'] for one in results])} "
            f"| {mean(one['recall']['1'] / one['chance']['1'] for one in results):,.1f} "
            f"| {_spread([one['recall']['10'] for one in results])} "
            f"| {results[0]['chance']['10']:.3f} | {mean(one['median_rank'] for one in results):.3g} "
            f"| {results[0]['n']:,} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _inline(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in options.items() if value is not None)
