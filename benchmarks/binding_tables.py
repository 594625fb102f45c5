"""Make docs/binding-results.md from results/binding, cached, exclusive-or and parity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Cell = dict[str, Any]  # one way with one seed
Seeds = dict[int, float]


def recalls(cells: Sequence[Cell], way: str, steps: int) -> dict[str, Seeds]:
    """Return R@1 of each pair, the mean of both directions, by seed; "mean" is that of all pairs."""
    found: dict[str, Seeds] = {}
    for cell in cells:
        if (cell["way"], cell["steps"]) != (way, steps):
            continue
        pairs: dict[str, list[float]] = {}
        for one in cell["figures"]:
            pairs.setdefault("-".join(sorted((one["query"], one["gallery"]))), []).append(one["R@1"])
        for pair, values in (*pairs.items(), ("mean", [mean(values) for values in pairs.values()])):
            found.setdefault(pair, {})[cell["seed"]] = mean(values)
    return found


def told(values: Sequence[float]) -> str:
    """Return a mean, with its range if there are several."""
    middle = f"{mean(values):.3f}"
    return f"{middle} ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else middle


def against(found: Seeds, reference: Seeds) -> str:
    """Return the mean and the range of the ratio, seed by seed."""
    return told([found[seed] / reference[seed] for seed in found.keys() & reference.keys()])


def chance(cells: Sequence[Cell], pair: str) -> float:
    """Return R@1 of guessing a pair, the mean of both directions."""
    figures = (one for cell in cells for one in cell["figures"])
    return mean(one["chance"] for one in figures if "-".join(sorted((one["query"], one["gallery"]))) == pair)


def emerged(results: dict[str, list[Cell]]) -> str:
    """Return the table of what was never trained, against training it."""
    lines = ["| data | pair | steps | seeds | trained directly | emerged | of direct | x chance |", "|---" * 8 + "|"]
    for name, cells in results.items():
        for steps in sorted({cell["steps"] for cell in cells}):
            star, direct = (recalls(cells, way, steps) for way in ("star", "direct"))
            for pair in sorted(star.keys() & direct.keys() - {"mean"}):
                one, other = star[pair], direct[pair]
                lines.append(
                    f"| {name} | {pair} | {steps} | {len(one)} | {told([*other.values()])} | {told([*one.values()])} | "
                    f"{against(one, other)} | {mean(one.values()) / chance(cells, pair):.0f} |"
                )
    return "\n".join(lines) + "\n"


def missing(results: dict[str, list[Cell]]) -> str:
    """Return the table of what it costs that half of the samples lack an item."""
    lines = ["| objective | pair | steps | seeds | whole | half lack an outline | kept |", "|---" * 7 + "|"]
    objectives = {"half": "info-nce", "balanced": "pairs"}
    cells = results["glyphs"]
    for steps in sorted({cell["steps"] for cell in cells}):
        whole = recalls(cells, "whole", steps)
        for way, objective in objectives.items():
            half = recalls(cells, way, steps)
            lines += [
                f"| {objective} | {pair} | {steps} | {len(half[pair])} | {told([*whole[pair].values()])} | "
                f"{told([*half[pair].values()])} | {against(half[pair], whole[pair])} |"
                for pair in whole
                if pair in half
            ]
    return "\n".join(lines) + "\n"


def heads(quality: dict[str, Any]) -> str:
    """Return the table of heads from the cache and of fine-tuning."""
    lines = ["| way | head | learning rate | batch | epochs | seeds | s | R@1 on val | R@1 on test |", "|---" * 9 + "|"]
    for one in quality["ways"]:
        seconds, recall = [run["seconds"] for run in one["runs"]], [run["recall"] for run in one["runs"]]
        lines.append(
            f"| {one['way']} | {one['binder']['head']} | {one.get('lr', '')} | {one.get('batch', '')} | "
            f"{one.get('epochs', '')} | {len(seconds)} | {median(seconds):.0f} | "
            f"{told([each['val'] for each in recall])} | {told([each['test'] for each in recall])} |"
        )
    return "\n".join(lines) + (
        "\n\nThe first run with the cache in a call fills it, and takes longer. "
        f"Best of each by the mean on val: {quality['ratio']:.3f} of fine-tuning's R@1 on test.\n"
    )


def speed(found: dict[str, Any]) -> str:
    """Return a paragraph on the time that heads take with and without the cache."""
    low, middle, high = found["ratio"]
    cached, uncached = sorted(found["cached"]), sorted(found["uncached"])
    ends = [losses[-1] / losses[-2] for losses in found["loss"]]
    return (
        f"{found['steps']} steps of 256 of 10,000 icons and their names, through a frozen ViT-B-32 and a frozen text "
        f"model of 22 million weights, with MLP heads: {median(cached):.0f} s from the cache "
        f"({cached[0]:.0f}-{cached[-1]:.0f}), {median(uncached) / 3600:.1f} h without it (extrapolated from 3 steps "
        f"each), {middle:.0f} times as long ({low:.0f}-{high:.0f}). The cache is filled once, in "
        f"{found['fill'] / 60:.0f} minutes. In the last epoch the loss falls by {1 - mean(ends):.1%}.\n"
    )


def exclusive_or() -> str:
    """Return the table of what is answered where any two modalities are independent."""
    found = json.loads((RESULTS / "exclusive-or" / "objectives.json").read_text())
    lines = [f"| {name} | {len(values)} | {told(values)} |" for name, values in found["accuracy"].items()]
    return "\n".join(["| objective | seeds | right |", "|---|---|---|", *lines]) + "\n"


def main() -> None:
    """Write the page."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / "binding").glob("*.json"))}
    devices = sorted({cell["device"] for cells in results.values() for cell in cells})
    cached = {path.stem: json.loads(path.read_text()) for path in (RESULTS / "cached").glob("*.json")}
    parts = [
        "# Binding and pretrained encoders, measured\n",
        "Made by `benchmarks/binding_tables.py` from what `binding.py`, `cached.py`, `exclusive_or.py` and `parity/` "
        "of `benchmarks` measured.\n",
        "## What emerges\n",
        "Of glyphs, image-text and image-outline are trained; of digits, image-text and audio-text. R@1 is the mean of "
        "both directions, and of seeds with its range. Direct training sees nothing but the pair, for as many "
        f"steps. Measured on: {'; '.join(devices)}.\n",
        emerged(results),
        "## What missing items cost\n",
        "All three items of a glyph are trained together; then half of the glyphs lack their outline, and the others "
        "come three times as often as they (see concepts.md). As many steps are then five sixths of the pairs. `pairs` "
        "weighs a pair that is met more rarely more.\n",
        missing(results),
        "## Heads from the cache\n",
        speed(cached["speed"]) + "\nOn two cores. Alt texts and captions of openstax, through the same text model:\n",
        heads(cached["quality"]),
        "## What no pair tells\n",
        "c = a xor b of 6 bits each: the share of queries b and c whose a is found among all 64, by the product of "
        "their vectors (see `mmssl search --product`); chance is 0.016.\n",
        exclusive_or(),
        "## Parity\n",
        "Largest differences from the authors' code (of GRAM, from its formula without label smoothing), in float64 "
        "over ten batches: `benchmarks/parity/objectives.py`. Of the six towers of ImageBind: "
        "`benchmarks/results/parity/imagebind.txt`.\n",
        (RESULTS / "parity" / "objectives.txt").read_text(),
    ]
    (ROOT / "docs" / "binding-results.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
