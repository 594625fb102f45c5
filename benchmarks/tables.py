"""Make docs/runs.md, and the table in README.md, from results/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from multimodal_ssl.report import retrieval_table

ROOT = Path(__file__).parents[1]


def describe(runs: list[dict[str, Any]]) -> str:
    """Return one line on seeds, time, memory and machine."""
    seconds = mean(run["seconds"]["whole command"] for run in runs)
    training = mean(run["seconds"]["steps"] for run in runs)
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
        parts += [f"## {name}\n", f"`{command}`: {describe(runs)}", retrieval_table([run["retrieval"] for run in runs])]
    (ROOT / "docs" / "runs.md").write_text("\n".join(parts))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition("<!-- quickstart -->\n")
    _, _, after = rest.partition("<!-- /quickstart -->\n")
    runs = results["quickstart"]
    inside = f"{retrieval_table([run['retrieval'] for run in runs])}\n{describe(runs)}"
    readme.write_text(f"{before}<!-- quickstart -->\n{inside}<!-- /quickstart -->\n{after}")


if __name__ == "__main__":
    main()
