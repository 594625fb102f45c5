"""The tables that `mmssl inspect` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from multimodal_ssl.facts import SourceFacts
    from multimodal_ssl.inspection import Inspection


def print_inspection(found: Inspection) -> None:
    """Print what to look at first, then each source, what training would read, leaks and speed."""
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for text in found.warnings:
        console.print(f"look: {text}", style="yellow", markup=False, highlight=False)
    for one in [*found.sources, *found.evaluation]:
        _print_source(console, one)
    plan = found.schedule
    if plan and not plan.refusal:
        epochs = ", ".join("stream" if one is None else f"{one:,}" for one in plan.per_epoch)
        console.print(
            f"batches of {plan.batch} in an epoch: {epochs}; steps: {plan.steps}; left out: {plan.left_out:,}"
        )
    if found.leaks:
        table = _table("evaluation shares with sources", numbers=("samples", "of"))
        for leak in found.leaks:
            table.add_row(escape(leak.what), f"{leak.count:,}", f"{leak.n:,}")
        console.print(table)
    if found.pace:
        table = _table("stage", "items", numbers=("samples/s, one process", "share of time"))
        for stage in found.pace.stages:
            table.add_row(stage.stage, escape(stage.name), f"{stage.per_second:,.0f}", f"{stage.share:.0%}")
        console.print(table)
        console.print(found.pace.sentence, markup=False, highlight=False)


def _print_source(console: Console, one: SourceFacts) -> None:
    total = "unknown number of (a stream)" if one.total is None else f"{one.total:,}"
    console.print(
        f"{one.label}: {total} samples; {one.tried:,} read and compared, {one.decoded:,} decoded",
        style="bold", markup=False, highlight=False,
    )  # fmt: skip
    kinds = "; ".join(f"{', '.join(names) or 'none'}: {count:,}" for names, count in one.combinations)
    console.print(f"items together: {kinds}", markup=False, highlight=False)
    if one.groups:
        console.print(
            f"groups: {one.groups.count:,}, the largest of {one.groups.largest[0]:,}; {one.groups.sharing:,} samples "
            f"share one; in a batch with their own: {'unknown' if one.groups.crowded is None else one.groups.crowded}",
            markup=False, highlight=False,
        )  # fmt: skip
    sizes = _table("items", "size", numbers=("n", "min", "median", "p95", "max"))
    for name, measures in one.sizes.items():
        for what, size in measures.items():
            figures = (size.least, size.median, size.p95, size.most)
            sizes.add_row(escape(name), what, f"{size.n:,}", *(f"{figure:,.6g}" for figure in figures))
    repeats = _table("items", numbers=("compared", "different", "with an equal", "of another group"))
    for name, same in [*one.repeats.items(), ("whole samples", one.samples_repeat)]:
        cells = (same.n, same.distinct, same.sharing, same.strangers)
        repeats.add_row(escape(name), *(f"{cell:,}" for cell in cells))
    fields = _table("metadata", numbers=("have it", "different"))
    fields.add_column("most common")
    for name, known in one.metadata.items():
        common = ", ".join(f"{value} ({count:,})" for value, count in known.most[:3])
        fields.add_row(escape(name), f"{known.count:,}", f"{known.distinct:,}", escape(common))
    for table in (sizes, repeats, fields):
        if table.row_count:
            console.print(table)


def _table(*left: str, numbers: tuple[str, ...]) -> Table:
    table = Table(*left, box=SIMPLE_HEAD)
    for column in numbers:
        table.add_column(column, justify="right")
    return table
