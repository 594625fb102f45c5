"""The tables that commands print."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.plugins import KINDS, Catalog, options_of

if TYPE_CHECKING:
    from multimodal_ssl.audit import Audit
    from multimodal_ssl.index import Hit
    from multimodal_ssl.migration import Overlap
    from multimodal_ssl.retrieval import Witness


def console() -> Console:
    """Return a console that doesn't fold tables when the output goes to a file."""
    found = Console()
    return found if found.is_terminal else Console(width=160)


def numbers(*left: str, numbers: Sequence[str], caption: str | None = None, title: str | None = None) -> Table:
    """Return a table with columns of text and, to the right, of numbers."""
    table = Table(*left, title=title, title_justify="left", caption=caption, box=SIMPLE_HEAD)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def print_hits(hits: Sequence[Hit]) -> None:
    """Print answers with what they were ranked by and how probably they are matches."""
    table = Table("score", "p(match)", "key", "modality", "what it is", "file")
    for hit in hits:
        item = hit.item
        probability = "" if hit.probability is None else f"{hit.probability:.3f}"
        what = item.preview.text or item.preview.caption or ""
        cells = (item.key, item.modality, what, item.preview.path or "")
        table.add_row(f"{hit.score:.3f}", probability, *map(escape, cells))
    console().print(table)


def print_witnesses(witnesses: Sequence[Witness]) -> None:
    """Print the training samples that lie nearest to a query and its best answer."""
    table = Table(
        "with query", "with answer", "key", "what it is", title="nearest in training to query and best answer"
    )
    for one in witnesses:
        previews = [item.preview for item in one.items.values()]
        what = " | ".join(preview.text or preview.caption or preview.path or "" for preview in previews)
        key = next(iter(one.items.values())).key
        table.add_row(f"{one.with_query:.3f}", f"{one.with_hit:.3f}", escape(key), escape(what))
    console().print(table)


def print_index(described: Mapping[str, Any]) -> None:
    """Print what an index holds and how it searches each modality."""
    table = Table(
        caption="recall: share of the ten nearest that are found, of the worst sort of queries", box=SIMPLE_HEAD
    )
    for column in ("modality", "items", "vectors", "structure", "recall", "queries/s", "exact q/s", "MB", "s"):
        table.add_column(column, justify="left" if column in ("modality", "structure") else "right")
    for name, one in described["modalities"].items():
        figures = ["1", "", "", "", ""]
        if measured := one["structure"].get("measured"):
            figures = [
                f"{min(measured['recall'].values()):.3f}", f"{measured['queries_per_second']:,.0f}",
                f"{measured['exact_queries_per_second']:,.0f}", f"{measured['bytes'] / 1e6:.1f}",
                f"{measured['seconds']:.0f}",
            ]  # fmt: skip
        table.add_row(escape(name), f"{one['items']:,}", f"{one['vectors']:,}", one["structure"]["kind"], *figures)
    console().print(table)


def print_overlaps(overlaps: Sequence[Overlap]) -> None:
    """Print how far two indices answer alike."""
    table = Table(caption="of the first ten answers; found: queries with an item of their group there", box=SIMPLE_HEAD)
    for column in ("from", "to", "queries", "in both", "found before", "found after"):
        table.add_column(column, justify="left" if column in ("from", "to") else "right")
    for one in overlaps:
        shares = [f"{share:.3f}" for share in (one.shared, one.found_before, one.found_after)]
        table.add_row(escape(one.query), escape(one.gallery), f"{one.queries:,}", *shares)
    console().print(table)


def print_audit(audit: Audit, *, top: int) -> None:
    """Print the rates of wrong pairs and the worst suspects."""
    rates = Table(caption="gross: an item might be anybody's; by trust: with what is merely hard")
    for column in ("items", "samples", "gross (95 %)", "by trust", "above .5", "wrong of these"):
        rates.add_column(column, justify="left" if column == "items" else "right")
    for one in audit.rates:
        above, wrong = one.expected["0.5"]
        rates.add_row(
            ", ".join(one.items), f"{one.samples:,}",
            f"{one.gross.value:.3f} ({one.gross.low:.3f}-{one.gross.high:.3f})",
            f"{one.by_trust.value:.3f}", f"{above:,}", f"{wrong:,.0f}",
        )  # fmt: skip
    console().print(rates)
    for one in audit.rates:
        items = ", ".join(one.items)
        kinds = Table("what is wrong", "samples", title=items)
        for kind, count in one.reasons.items():
            kinds.add_row(escape(kind), f"{count:,}")
        if one.reasons:
            console().print(kinds)
        where = Table("where", "samples", "gross (95 %)", title=items)
        for part in sorted(one.parts, key=lambda part: -part.gross.value)[:top]:
            span = f"{part.gross.value:.3f} ({part.gross.low:.3f}-{part.gross.high:.3f})"
            where.add_row(escape(f"{part.column} {part.value}"), f"{part.samples:,}", span)
        if one.parts:
            console().print(where)
        for note in one.notes:
            console().print(f"{items}: {note}", style="yellow", markup=False, highlight=False)
    suspects = Table("p(mismatch)", "key", "items", "would fit better")
    for one in audit.table.slice(0, top).to_pylist():
        if one["p_mismatch"] is not None:
            suspects.add_row(f"{one['p_mismatch']:.3f}", escape(one["key"]), one["items"], escape(one["suggestion"]))
    console().print(suspects)


def print_voices(path: Path) -> None:
    """Print what is told of the sources that voted, if they did."""
    if not path.exists():
        return
    table = Table("source", "samples", "coverage", "overlap", "conflict", "accuracy, estimated")
    for one in json.loads(path.read_text()):
        shares = [f"{one[name]:.3f}" for name in ("coverage", "overlap", "conflict", "accuracy")]
        table.add_row(str(one["source"]), f"{one['samples']:,}", *shares)
    console().print(table)


def print_plugins(catalog: Catalog, taken: Sequence[str]) -> None:
    """Print every registered name with its plugin, and the plugins that are broken; `taken` commands are our own."""
    table = Table("kind", "name", "plugin", "what it is")
    for kind in KINDS:
        for name in catalog.names(kind):
            try:
                plugin, factory, _ = catalog.get(kind, name)
            except InputError as error:
                table.add_row(kind, escape(name), "[red]claimed twice[/]", escape(str(error)))
                continue
            what = (inspect.getdoc(factory) or "").partition("\n")[0]
            if kind == "commands" and name in taken:
                what = "never called: mmssl has a command of this name"
            table.add_row(kind.replace("_", " "), escape(name), escape(plugin), escape(what))
    console().print(table)
    for plugin, why in catalog.broken.items():
        console().print(f"[red]broken[/] {escape(plugin)}: {escape(why)}", highlight=False)


def print_options(catalog: Catalog, name: str) -> None:
    """Print the options of every factory of this name."""
    kinds = [kind for kind in KINDS if name in catalog.names(kind)]
    if not kinds:
        raise InputError(
            f"nothing is named {name!r}: {nearest(name, [one for kind in KINDS for one in catalog.names(kind)])}"
        )
    for kind in kinds:
        plugin, factory, _ = catalog.get(kind, name)
        table = Table("option", "type", "default", title=escape(f"{name} ({kind.replace('_', ' ')}, plugin {plugin})"))
        for option, parameter in options_of(factory).items():
            default = "required" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
            table.add_row(option, escape(str(parameter.annotation)), escape(default))
        console().print(table)
        console().print(inspect.getdoc(factory) or "", markup=False)
