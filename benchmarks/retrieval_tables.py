"""Make docs/retrieval-results.md from results/retrieval/index.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def ratio(value: Mapping[str, Any]) -> str:
    """Return a median ratio with the least and the greatest of the turns."""
    return f"{value['ratio']:.2f} ({min(value['ratios']):.2f}-{max(value['ratios']):.2f})"


def large(row: Row) -> str:
    """Return what the structure of a million vectors took."""
    measured = row["structure"]["measured"]
    return (
        f"{measured['bytes'] / 1e6:.0f} (the process: {row['before'] / 1e6:.0f} before, {row['after'] / 1e6:.0f} after)"
    )


TABLES: dict[str, tuple[str, dict[str, Callable[[Row], str]]]] = {
    "structures": (
        "100,000 vectors of 128 numbers, recall@10 of .97 wanted; `chosen` compared the kinds and took one. Recall is "
        "of 2,000 queries that neither building nor tuning saw; `faster` is against comparing all, in turns.",
        {
            "kind": lambda row: f"{row['kind']} ({row['is']})" if row["kind"] == "chosen" else row["kind"],
            "recall": lambda row: f"{row['unseen']:.3f}",
            "MB": lambda row: f"{row['bytes'] / 1e6:.1f}",
            "queries/s": lambda row: f"{row['queries_per_second']:,.0f}",
            "faster": lambda row: ratio(row["faster_than_exact"]),
            "s to build and tune": lambda row: f"{row['seconds']:.0f}",
        },
    ),
    "peers": (
        "HNSW with the same M and efConstruction, each at the least effort of one ladder that reaches .97.",
        {
            "": lambda row: row["name"],
            "recall": lambda row: f"{row['recall']:.3f}",
            "queries/s": lambda row: f"{row['queries_per_second']:,.0f}",
            "ours is faster": lambda row: ratio(row["ours_faster"]),
            "s to build": lambda row: f"{row['build_seconds']:.0f}",
        },
    ),
    "overhead": (
        "The time of a search through the index, as a multiple of FAISS bare at the same effort.",
        {
            "structure": lambda row: row["kind"],
            "queries in a batch": lambda row: f"{row['batch']:,}",
            "takes": lambda row: ratio(row["ours_takes"]),
        },
    ),
    "filters": (
        "Recall@10 among a share of 100,000 items, 500 queries.",
        {
            "structure": lambda row: row["kind"],
            "share": lambda row: f"{row['share']:.1%}",
            "recall": lambda row: f"{row['recall']:.3f}",
            "queries/s": lambda row: f"{row['queries_per_second']:,.0f}",
        },
    ),
    "binary": (
        "50,000 vectors kept in 1 bit or in 8 bits a number; among `candidates` for each answer exact cosines decide.",
        {
            "D": lambda row: str(row["dim"]),
            "kept in": lambda row: {"binary": "1 bit", "sq8": "8 bits"}[row["kind"]],
            "of float32's memory": lambda row: f"{row['share_of_memory']:.3f}",
            "candidates": lambda row: str(row["widen"]),
            "recall": lambda row: f"{row['recall']:.3f}",
        },
    ),
    "large": (
        "A million vectors of 128 numbers within 400 MB, recall@10 of .95 wanted.",
        {
            "structure": lambda row: row["structure"]["kind"],
            "recall": lambda row: f"{row['unseen']:.3f}",
            "MB": large,
            "s to add": lambda row: f"{row['seconds_to_add']:.0f}",
            "s to build and tune": lambda row: f"{row['seconds_to_build']:.0f}",
            "queries/s": lambda row: f"{row['structure']['measured']['queries_per_second']:,.0f}",
        },
    ),
    "mixed": (
        "nDCG@10 of searching one modality of the quickstart's index or two at once by names: by the cosine, with the "
        "mean of each modality taken off, and with hubs corrected for.",
        {
            "among": lambda row: " and ".join(row["among"]),
            "queries": lambda row: f"{row['queries']:,}",
            "ranked by": lambda row: row["way"],
            "nDCG@10": lambda row: f"{row['ndcg']:.3f}",
            "gain (95 %)": lambda row: f"{row['gain']:+.4f} ± {row['plus_minus']:.4f}",
        },
    ),
    "evaluation": (
        "All measures of 100,000 queries among 100,000 items, five a group.",
        {
            "s": lambda row: f"{row['seconds']:.0f}",
            "s of the matrix product alone": lambda row: f"{row['of_it_product']:.0f}",
            "peak memory, GB": lambda row: f"{row['peak_rss'] / 1e9:.1f}",
        },
    ),
}


def main() -> None:
    """Write the page."""
    found = json.loads((ROOT / "benchmarks" / "results" / "retrieval" / "index.json").read_text())
    parts = [
        "# Index and search, measured\n",
        "Made by `benchmarks/retrieval_tables.py` from what `benchmarks/retrieval.py` measured. Vectors are clusters "
        "of unequal size in 24 dimensions, lifted to D with noise. Ratios are medians of five turns.\n",
    ]
    for name, (text, columns) in TABLES.items():
        if name in found:
            measured = found[name]
            lines = [[get(row) for get in columns.values()] for row in measured["rows"]]
            parts += [f"## {name}\n", text + "\n"]
            rows = [list(columns), ["---"] * len(columns), *lines]
            parts += ["\n".join("| " + " | ".join(row) + " |" for row in rows)]
            parts += [f"\n{measured['device']}, {measured['threads']} threads, commit {measured['commit'][:10]}.\n"]
    (ROOT / "docs" / "retrieval-results.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
