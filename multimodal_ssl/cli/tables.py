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
    from multimodal_ssl.comparison import Comparison
    from multimodal_ssl.config import Config
    from multimodal_ssl.index import Hit
    from multimodal_ssl.leaks import Leaks, Share
    from multimodal_ssl.metrics import Estimate
    from multimodal_ssl.migration import Overlap
    from multimodal_ssl.report import Direction
    from multimodal_ssl.retrieval import Witness
    from multimodal_ssl.verification import Verification
    from multimodal_ssl.zero_shot import ZeroShot


def _console() -> Console:
    """Return a console that doesn't fold tables when the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_directions(directions: Sequence[Direction]) -> None:
    """Print a row for each direction of retrieval."""
    table = Table(caption="R@k: share of queries with an item of their group among the first k", box=SIMPLE_HEAD)
    for column in ("from", "to", "trained"):
        table.add_column(column)
    for column in ("R@1", "R@5", "R@10 (95 %)", "chance\nR@10", "median\nrank", "n"):
        table.add_column(column, justify="right")
    for one in sorted(directions, key=lambda one: not one.trained):
        result = one.result
        low, high = result.interval[10]
        table.add_row(
            one.query, one.gallery, "yes" if one.trained else "emerged", f"{result.recall[1]:.3f}",
            f"{result.recall[5]:.3f}", f"{result.recall[10]:.3f} ({low:.3f}-{high:.3f})",
            f"{result.chance[10]:.3f}", f"{result.median_rank:g}", f"{result.n:,}",
        )  # fmt: skip
    _console().print(table)


def print_measures(directions: Sequence[Direction]) -> None:
    """Print what else is measured of each direction."""
    names = list(directions[0].result.measures)
    table = _numbers("from", "to", numbers=[part for name in names for part in (f"{name} (95 %)", "chance")])
    for one in sorted(directions, key=lambda one: not one.trained):
        cells = [part for name in names for part in _with_chance(one.result.measures[name])]
        table.add_row(one.query, one.gallery, *cells)
    _console().print(table)


def print_comparisons(comparisons: Sequence[Comparison], *, measures: bool) -> None:
    """Print how this run differs from the other one, in R@k alone or in all measures."""
    table = _numbers(
        "from", "to", "measure", numbers=["this run", "the other", "difference (95 %)", "p", "n", "groups"],
        caption="p: how often chance alone makes so large a difference; no correction for the number of rows",
    )  # fmt: skip
    for one in comparisons:
        for name, found in one.differences.items():
            if measures or name.startswith("R@"):
                table.add_row(
                    one.query, one.gallery, name, f"{found.this:.3f}", f"{found.other:.3f}",
                    f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})", f"{found.p_value:.4f}",
                    f"{one.n:,}", f"{one.groups:,}",
                )  # fmt: skip
    _console().print(table)


def print_balance(config: Config) -> None:
    """Print what each of several sources gave to training, as metrics.jsonl tells."""
    if len(config.sources) < 2 or config.vote:
        return
    lines = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    table = _numbers(
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
    _console().print(table)


def print_guard(comparisons: Sequence[Comparison]) -> None:
    """Print the old skill before and after training."""
    table = _numbers(
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
    _console().print(table)


def print_blends(rows: Sequence[tuple[float, float | None, float | None]]) -> None:
    """Print new and old skill of each blend."""
    table = _numbers(
        numbers=["alpha", "R@1, evaluation", "R@1, guard"],
        caption="alpha: 0 is before training, 1 after; R@1: mean over all directions",
    )  # fmt: skip
    for alpha, new, old in rows:
        table.add_row(f"{alpha:g}", *("" if one is None else f"{one:.3f}" for one in (new, old)))
    _console().print(table)


def print_leaks(leaks: Leaks, *, top: int = 3) -> None:
    """Print how many items have a twin in training, the worst of them, and R@1 without them."""
    kinds = ["equal twin in training", "near twin in training", "near twin in the evaluation itself"]
    caption = f"equal: encoders can't tell them apart; near: a cosine of {leaks.near} by this run's own vectors"
    counts = _numbers("items", numbers=["samples", *kinds], caption=caption)
    worst = Table("items", "key", "twin in training", "cosine", box=SIMPLE_HEAD)
    for one in leaks.overlaps:
        equal = sum(twin.equal for twin in one.twins)
        counts.add_row(
            ", ".join(one.items), f"{one.n:,}", f"{equal:,}", f"{len(one.twins) - equal:,}", f"{one.crowded:,}"
        )
        for twin in one.twins[:top]:
            cosine = "equal" if twin.equal else f"{twin.cosine:.4f}"
            worst.add_row(", ".join(one.items), escape(twin.key), escape(twin.twin), cosine)
    recall = _numbers(
        "from", "to", numbers=["R@1 (95 %)", "n", "without leaked pairs", "n", "without leaked items", "n"],
        caption="left out are queries whose pair, or whose own item, has an equal or near twin in training",
    )  # fmt: skip
    for row in leaks.recall:
        cells = [part for share in (row.all, row.new_pair, row.new_item) for part in _share(share)]
        recall.add_row(row.query, row.gallery, *cells)
    for table in (counts, worst, recall):
        if table.row_count:
            _console().print(table)


def print_zero_shot(found: ZeroShot) -> None:
    """Print how often items are nearest to the name of their class."""
    left_out = f", {found.left_out:,} without one left out" if found.left_out else ""
    table = _numbers(
        f"{found.items} by class", numbers=["accuracy (95 %)", "chance"],
        caption=f"{found.n:,} items of {found.classes:,} classes{left_out}",
    )  # fmt: skip
    for what, one in (("top 1", found.top_1), ("top 5", found.top_5), ("top 1, mean per class", found.mean_per_class)):
        table.add_row(what, *_with_chance(one))
    _console().print(table)


def print_verifications(found: Mapping[tuple[str, str], Verification]) -> None:
    """Print how well a threshold tells right pairs from wrong ones."""
    fars = list(dict.fromkeys(far for one in found.values() for far in one.tar))
    table = _numbers(
        "pairs of", numbers=["AUROC (95 %)", "EER (95 %)", *(f"TAR at FAR {far:g}" for far in fars), "right", "wrong"],
        caption="FAR: share of wrong pairs accepted, TAR: of right ones; chance is AUROC 0.5, EER 0.5, TAR = FAR",
    )  # fmt: skip
    for names, one in found.items():
        rates = [_with_chance(one.tar[far])[0] if far in one.tar else "too few pairs" for far in fars]
        figures = [_with_chance(one.auroc)[0], _with_chance(one.eer)[0], *rates]
        table.add_row(", ".join(names), *figures, f"{one.right:,}", f"{one.wrong:,}")
    _console().print(table)


def _numbers(*left: str, numbers: Sequence[str], caption: str | None = None) -> Table:
    """Return a table with columns of text and, to the right, of numbers."""
    table = Table(*left, caption=caption, box=SIMPLE_HEAD)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _with_chance(one: Estimate) -> tuple[str, str]:
    return f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})", f"{one.chance:.3f}"


def _share(one: Share | None) -> tuple[str, str]:
    return ("none left", "0") if one is None else (f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})", f"{one.n:,}")


def print_hits(hits: Sequence[Hit]) -> None:
    """Print answers with what they were ranked by and how probably they are matches."""
    table = Table("score", "p(match)", "key", "modality", "what it is", "file")
    for hit in hits:
        item = hit.item
        probability = "" if hit.probability is None else f"{hit.probability:.3f}"
        what = item.preview.text or item.preview.caption or ""
        cells = (item.key, item.modality, what, item.preview.path or "")
        table.add_row(f"{hit.score:.3f}", probability, *map(escape, cells))
    _console().print(table)


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
    _console().print(table)


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
    _console().print(table)


def print_overlaps(overlaps: Sequence[Overlap]) -> None:
    """Print how far two indices answer alike."""
    table = Table(caption="of the first ten answers; found: queries with an item of their group there", box=SIMPLE_HEAD)
    for column in ("from", "to", "queries", "in both", "found before", "found after"):
        table.add_column(column, justify="left" if column in ("from", "to") else "right")
    for one in overlaps:
        shares = [f"{share:.3f}" for share in (one.shared, one.found_before, one.found_after)]
        table.add_row(escape(one.query), escape(one.gallery), f"{one.queries:,}", *shares)
    _console().print(table)


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
    _console().print(rates)
    for one in audit.rates:
        items = ", ".join(one.items)
        kinds = Table("what is wrong", "samples", title=items)
        for kind, count in one.reasons.items():
            kinds.add_row(escape(kind), f"{count:,}")
        if one.reasons:
            _console().print(kinds)
        where = Table("where", "samples", "gross (95 %)", title=items)
        for part in sorted(one.parts, key=lambda part: -part.gross.value)[:top]:
            span = f"{part.gross.value:.3f} ({part.gross.low:.3f}-{part.gross.high:.3f})"
            where.add_row(escape(f"{part.column} {part.value}"), f"{part.samples:,}", span)
        if one.parts:
            _console().print(where)
        for note in one.notes:
            _console().print(f"{items}: {note}", style="yellow", markup=False, highlight=False)
    suspects = Table("p(mismatch)", "key", "items", "would fit better")
    for one in audit.table.slice(0, top).to_pylist():
        if one["p_mismatch"] is not None:
            suspects.add_row(f"{one['p_mismatch']:.3f}", escape(one["key"]), one["items"], escape(one["suggestion"]))
    _console().print(suspects)


def print_voices(path: Path) -> None:
    """Print what is told of the sources that voted, if they did."""
    if not path.exists():
        return
    table = Table("source", "samples", "coverage", "overlap", "conflict", "accuracy, estimated")
    for one in json.loads(path.read_text()):
        shares = [f"{one[name]:.3f}" for name in ("coverage", "overlap", "conflict", "accuracy")]
        table.add_row(str(one["source"]), f"{one['samples']:,}", *shares)
    _console().print(table)


def print_plugins(catalog: Catalog, taken: Sequence[str]) -> None:
    """Print every registered name with its plugin, and the plugins that are broken; `taken` commands are our own."""
    table = Table("kind", "name", "plugin", "what it is")
    for kind in KINDS:
        for name in catalog.names(kind):
            try:
                plugin, factory = catalog.get(kind, name)
            except InputError as error:
                table.add_row(kind, escape(name), "[red]claimed twice[/]", escape(str(error)))
                continue
            what = (inspect.getdoc(factory) or "").partition("\n")[0]
            if kind == "commands" and name in taken:
                what = "never called: mmssl has a command of this name"
            table.add_row(kind.replace("_", " "), escape(name), escape(plugin), escape(what))
    _console().print(table)
    for plugin, why in catalog.broken.items():
        _console().print(f"[red]broken[/] {escape(plugin)}: {escape(why)}", highlight=False)


def print_options(catalog: Catalog, name: str) -> None:
    """Print the options of every factory of this name."""
    kinds = [kind for kind in KINDS if name in catalog.names(kind)]
    if not kinds:
        raise InputError(
            f"nothing is named {name!r}: {nearest(name, [one for kind in KINDS for one in catalog.names(kind)])}"
        )
    for kind in kinds:
        plugin, factory = catalog.get(kind, name)
        table = Table("option", "type", "default", title=escape(f"{name} ({kind.replace('_', ' ')}, plugin {plugin})"))
        for option, parameter in options_of(factory).items():
            default = "required" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
            table.add_row(option, escape(str(parameter.annotation)), escape(default))
        _console().print(table)
        _console().print(inspect.getdoc(factory) or "", markup=False)
