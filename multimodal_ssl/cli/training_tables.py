"""The tables of what training gave and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal_ssl.cli.tables import console, numbers

if TYPE_CHECKING:
    from multimodal_ssl.comparison import Comparison
    from multimodal_ssl.config import Config


def print_balance(config: Config) -> None:
    """Print what each of several sources gave to training, as metrics.jsonl tells."""
    if len(config.sources) < 2 or config.vote:
        return
    lines = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    table = numbers(
        "source", "items", numbers=["share", "batches", "of all", "loss first", "last"],
        caption="share: sources.N.share sets it; loss: the mean over the first and the last lines of metrics.jsonl",
    )  # fmt: skip
    total = sum(value for name, value in lines[-1].items() if name.endswith("/batches"))
    for position, source in enumerate(config.sources):
        losses = [line[name] for line in lines if (name := f"loss of sources.{position}") in line]
        batches = lines[-1].get(f"sources.{position}/batches", 0)
        first, last = (f"{losses[at]:.3f}" if losses else "" for at in (0, -1))
        table.add_row(
            f"{position} {source.name}", ", ".join(source.use or ()) or "all", f"{source.share:g}", f"{batches:,}",
            f"{batches / max(1, total):.2f}", first, last,
        )  # fmt: skip
    console().print(table)


def print_guard(comparisons: Sequence[Comparison]) -> None:
    """Print the old skill before and after training."""
    table = numbers(
        "old skill", numbers=["R@1 before", "after", "change (95 %)", "p", "n", "groups"],
        caption="what the encoders can do without their heads, on the guard's sources",
    )  # fmt: skip
    for one in comparisons:
        found = one.differences["R@1"]
        what = f"{one.query} among its own kind" if one.query == one.gallery else f"{one.query} to {one.gallery}"
        table.add_row(
            what, f"{found.other:.3f}", f"{found.this:.3f}",
            f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})", f"{found.p_value:.4f}",
            f"{one.n:,}", f"{one.groups:,}",
        )  # fmt: skip
    console().print(table)


def print_blends(rows: Sequence[tuple[float, float | None, float | None]]) -> None:
    """Print new and old skill of each blend."""
    table = numbers(
        numbers=["alpha", "R@1, evaluation", "R@1, guard"],
        caption="alpha: 0 is before training, 1 after; R@1: mean over all directions",
    )  # fmt: skip
    for alpha, new, old in rows:
        table.add_row(f"{alpha:g}", *("" if one is None else f"{one:.3f}" for one in (new, old)))
    console().print(table)
