"""Make docs/runs.md, and the table in README.md, from results/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parents[1]
HEADER = """| from | to | trained together | R@1 | R@10 | chance R@10 | median rank | queries |
|---|---|---|---|---|---|---|---|
"""


def spread(values: list[float]) -> str:
    """Return the mean, and the range if there are several."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a row for each direction, over the seeds."""
    rows = []
    for directions in zip(*(run["retrieval"] for run in runs), strict=True):
        first, results = directions[0], [one["result"] for one in directions]
        rows.append(
            f"| {first['query']} | {first['gallery']} | {'yes' if first['trained'] else '**never**'} "
            f"| {spread([one['recall']['1'] for one in results])} | {spread([one['recall']['10'] for one in results])} "
            f"| {results[0]['chance']['10']:.3f} | {mean(one['median_rank'] for one in results):.3g} "
            f"| {results[0]['n']:,} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def describe(runs: list[dict[str, Any]]) -> str:
    """Return one line on seeds, time, memory and machine."""
    seconds = mean(run["seconds"]["whole command"] for run in runs)
    training = mean(run["seconds"]["training"] for run in runs)
    origin = runs[0]["provenance"]
    return (
        f"{len(runs)} seed{'s' if len(runs) > 1 else ''} (mean, and range); {seconds:.0f} s for the whole command, "
        f"{training:.0f} s of it training; peak memory {max(run['peak_memory_gb'] for run in runs):.1f} GB; "
        f"{origin['device']}, {origin['threads']} threads, torch {origin['torch']}; commit {runs[0]['commit'][:10]}.\n"
    )


def main() -> None:
    """Write the tables."""
    results = {
        path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    }
    parts = [
        "# Recorded runs\n",
        "Made by `benchmarks/tables.py` from what `benchmarks/record.py` measured.\n",
    ]
    for name, runs in results.items():
        command = "mmssl quickstart" if name == "quickstart" else f"mmssl fit configs/{name}.yaml"
        parts += [f"## {name}\n", f"`{command}`: {describe(runs)}", table(runs)]
    (ROOT / "docs" / "runs.md").write_text("\n".join(parts))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition("<!-- quickstart -->\n")
    _, _, after = rest.partition("<!-- /quickstart -->\n")
    inside = f"{table(results['quickstart'])}\n{describe(results['quickstart'])}"
    readme.write_text(f"{before}<!-- quickstart -->\n{inside}<!-- /quickstart -->\n{after}")


if __name__ == "__main__":
    main()
