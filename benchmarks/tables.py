"""Make docs/runs.md, docs/noise-results.md with its plots, and tables in README.md and docs/sources.md."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from noise import OBJECTIVES, ROUNDS, recalls, table

from multimodal_ssl.report import retrieval_table

ROOT = Path(__file__).parents[1]
SHOWN = ("info-nce", "acl", "acl-2", "acl-3", "audited", "oracle", "oracle-long")  # in README.md


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


def noise() -> None:
    """Write docs/noise-results.md with its two plots, and a table of README.md."""
    results = {
        path.stem: json.loads(path.read_text())
        for path in sorted((ROOT / "benchmarks" / "results" / "noise").glob("*.json"))
    }
    parts = [
        "# Through planted mismatches\n",
        "Made by `benchmarks/tables.py` from what `benchmarks/noise.py` measured: R@1 on unseen items, the mean of "
        "both directions and of the seeds, and beside it the share of the oracle's, which trains by InfoNCE on the "
        "truly clean pairs alone, for as many epochs. `acl-2` and `acl-3` train in so many rounds, `oracle-long` "
        "for twice the epochs; `audited` is InfoNCE on what the audit leaves.\n",
        "![R@1 against noise](noise-recall.png) ![estimated against true rate](noise-rate.png)\n",
    ]
    for name, cells in results.items():
        parts += [f"## {name}\n", table(cells) + "\n", kept(cells), detection(cells), origin(cells)]
        parts += [
            f"A step of acl takes {cell['median']} of InfoNCE's (in turns: {cell['ratios']}).\n"
            for cell in costs(cells)
        ]
    (ROOT / "docs" / "noise-results.md").write_text("\n".join(parts))
    plot(results)
    insert("noise", table([cell for cell in results["glyphs-all"] if cell["what"] in SHOWN]) + "\n")


def sources() -> None:
    """Write the tables of docs/sources.md."""
    found = json.loads((ROOT / "benchmarks" / "results" / "sources" / "sources.json").read_text())
    lines = [
        "Pairs of openstax a second, as tars, with the transform and the tokenizer of ViT-B-32; the ratio is the "
        "median of turns in one process, and its range.\n",
        "| workers | webdataset | open_clip's loader | ratio |",
        "|---|---|---|---|",
    ]
    for name, row in found["loader"].items():
        if name != "device":
            low, high = row["ratios"]
            ratio = f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})"
            lines.append(f"| {name.split()[0]} | {row['samples a second']} | {row['open_clip']} | {ratio} |")
    lines += [
        "\nA table of 1,000,000 rows: path, text, key and group.\n",
        "| | opens in s | MB more | first batch in s | resumed at row 700,000 in s |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["table"].items():
        if name != "device":
            lines.append(f"| {name} | {' | '.join(f'{value:,.3g}' for value in row.values())} |")
    share, memory = found["waiting"], found["memory"]["MB"]
    lines += [
        f"\nOne epoch of 1,000,000 rows with two workers holds {memory[0]} MB in all processes after a twentieth of it "
        f"and {memory[-1]} MB at the end. A step of configs/openstax-small.yaml waits {share['share']:.1%} of its time "
        f"for data ({share['shares'][0]:.1%} to {share['shares'][1]:.1%}). {found['loader']['device']}, 2 cores.\n",
    ]
    insert("speed", "\n".join(lines), ROOT / "docs" / "sources.md")


def insert(name: str, text: str, path: Path = ROOT / "README.md") -> None:
    """Put a text between two marks of a page."""
    before, _, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, _, after = rest.partition(f"<!-- /{name} -->\n")
    path.write_text(f"{before}<!-- {name} -->\n{text}<!-- /{name} -->\n{after}")


def kept(cells: list[dict[str, Any]]) -> str:
    """Return a line on what noise leaves of R@1 without any, by the same seeds; acl in rounds is compared with acl."""
    parts = []
    for what in (*OBJECTIVES, *ROUNDS):
        clean = recalls(cells, "acl" if what in ROUNDS else what, 0)
        shares = []
        for noise in sorted({cell["noise"] for cell in cells if cell["what"] == what and cell["noise"]}):
            noisy = recalls(cells, what, noise)
            if seeds := clean.keys() & noisy.keys():
                shares.append(f"{mean(noisy[seed] / clean[seed] for seed in seeds):.2f} at {noise:.0%}")
        parts += [f"{what} {', '.join(shares)}"] if shares else []
    return f"Of R@1 without noise are kept: {'; '.join(parts)}.\n"


def origin(cells: list[dict[str, Any]]) -> str:
    """Return one line on what was measured at which commit, for not all of a table is of one."""
    places: dict[str, set[str]] = {}
    for cell in cells:
        if "commit" in cell:
            places.setdefault(cell["commit"][:10], set()).add(cell["what"])
    lines = [f"{commit} ({', '.join(sorted(whats))})" for commit, whats in sorted(places.items())]
    return f"Measured at {'; '.join(lines)}.\n"


def costs(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was measured of the time of a step."""
    return [cell for cell in cells if cell["what"] == "cost"]


def detection(cells: list[dict[str, Any]]) -> str:
    """Return a table of how well mismatches are told: AUROC of trust, of the oracle's cosine, and of the audit."""
    rows = [
        "| what | true rate | seeds | AUROC | estimated rate | calibration error | precision at the top |\n"
        + "|---" * 7
        + "|"
    ]
    for what in (*OBJECTIVES, *ROUNDS, "audit", "oracle"):
        for rate in sorted({cell["noise"] for cell in cells if cell["what"] == what}):
            some = [cell for cell in cells if (cell["what"], cell["noise"]) == (what, rate)]
            field = {"audit": "auroc", "oracle": "auroc_of_model"}.get(what, "auroc_of_trust")
            figures = [
                f"{mean(cell[name] for cell in some):.3f}" if all(name in cell for cell in some) else ""
                for name in (field, "rate", "calibration_error", "precision_at_top")
            ]
            if any(figures):
                rows.append(f"| {what} | {rate:.0%} | {len(some)} | " + " | ".join(figures) + " |")
    return "\n".join(rows) + "\n"


def plot(results: dict[str, list[dict[str, Any]]]) -> None:
    """Draw R@1 against noise for each data set, and the estimated rate against the true one."""
    curves = {name: cells for name, cells in results.items() if len({cell["noise"] for cell in cells}) > 1}
    figure = Figure(figsize=(4.5 * len(curves), 3.6), layout="constrained")
    for axes, (name, cells) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for number, what in enumerate(("oracle", "acl-3", "acl-2", "acl", "gce", "info-nce")):
            points = {cell["noise"]: recalls(cells, what, cell["noise"]) for cell in cells if cell["what"] == what}
            if what == "oracle":  # without noise it is InfoNCE
                points[0] = recalls(cells, "info-nce", 0)
            noises = sorted(noise for noise, found in points.items() if found)
            if not noises:
                continue
            heights = [mean(points[noise].values()) for noise in noises]
            axes.plot(noises, heights, marker="o", label=what, color=f"C{number}")
        axes.set(title=name, xlabel="share of mismatched pairs", ylabel="R@1", ylim=(0, None))
        axes.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "noise-recall.png", dpi=100)
    figure = Figure(figsize=(3.8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 0.8], [0, 0.8], color="gray", linewidth=1)
    for name, cells in results.items():
        audits = [cell for cell in cells if cell["what"] == "audit"]
        if audits:
            axes.scatter([cell["noise"] for cell in audits], [cell["rate"] for cell in audits], label=name)
    axes.set(xlabel="true rate", ylabel="estimated rate", title="the audit")
    axes.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "noise-rate.png", dpi=100)


def every_config(size: str) -> str:
    """Return a table of what `benchmarks/every_config.py` recorded: R@1 is the mean of all directions."""
    found = json.loads((ROOT / "benchmarks" / "results" / "configs" / f"{size}.json").read_text())
    heads = ("config", "steps", "s", "R@1 of trained pairs", "x chance", "R@1 of what emerged", "x chance")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        figures = [one["name"], f"{one['steps']:,}", f"{one['seconds']['whole command']:.0f}"]
        for kind in ("trained", "emerged"):
            of = one.get(kind)
            figures += [f"{of['R@1']:.3f}", f"{of['R@1'] / of['chance']:.0f}"] if of else ["", ""]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join([f"The whole command takes so long on {found[0]['device']}, 2 cores.\n", *lines]) + "\n"


def main() -> None:
    """Write the tables."""
    noise()
    sources()
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
    parts += ["## Every small config\n", "One run each, to see that it learns.\n", every_config("small")]
    about = (
        "One run each, cut short after so many steps, to see that it runs. Those for GPUs need shards of one's own: "
    )
    parts += ["## Every other config\n", about + "tests run them on tiny ones.\n", every_config("large")]
    (ROOT / "docs" / "runs.md").write_text("\n".join(parts))
    runs = results["quickstart"]
    insert("quickstart", f"{retrieval_table([run['retrieval'] for run in runs])}\n{describe(runs)}")


if __name__ == "__main__":
    main()
