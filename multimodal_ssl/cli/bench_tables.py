"""The tables that `mmssl bench` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from multimodal_ssl.cli.tables import console, numbers

if TYPE_CHECKING:
    from multimodal_ssl.comparison import Comparison, Reached
    from multimodal_ssl.geometry import Space
    from multimodal_ssl.leaks import Leaks, Share
    from multimodal_ssl.metrics import Estimate
    from multimodal_ssl.report import Direction
    from multimodal_ssl.verification import Verification
    from multimodal_ssl.zero_shot import ZeroShot


def print_directions(directions: Sequence[Direction], reached: Sequence[Reached] = ()) -> None:
    """Print what was trained together, and what emerged, in tables apart.

    Of what emerged, `reached` tells the share of a run that was trained on it.
    """
    shares = {(one.query, one.gallery): _of_direct(one.of_direct) for one in reached}
    if trained := [one for one in directions if one.trained]:
        console().print(_directions("trained together", trained, {}))
    if emerged := [one for one in directions if not one.trained]:
        console().print(_directions("emerged: never trained together", emerged, shares))
    console().print(
        "R@k: share of queries with an item of their group among the first k; x chance: R@1 / R@1 of a random order\n",
        style="dim italic",
    )


def _directions(title: str, directions: Sequence[Direction], shares: Mapping[tuple[str, str], str]) -> Table:
    of_direct = ["of direct (95 %)"] if shares else []
    columns = ["R@1", "x chance", *of_direct, "R@5", "R@10 (95 %)", "chance\nR@10", "median\nrank", "n"]
    table = numbers("from", "to", numbers=columns, title=title)
    for one in directions:
        result, share = one.result, shares.get((one.query, one.gallery), "")
        low, high = result.interval[10]
        table.add_row(
            one.query, one.gallery, f"{result.recall[1]:.3f}", f"{result.times_chance:,.1f}",
            *(share for _ in of_direct), f"{result.recall[5]:.3f}", f"{result.recall[10]:.3f} ({low:.3f}-{high:.3f})",
            f"{result.chance[10]:.3f}", f"{result.median_rank:g}", f"{result.n:,}",
        )  # fmt: skip
    return table


def print_measures(directions: Sequence[Direction]) -> None:
    """Print what else is measured of each direction."""
    names = list(directions[0].result.measures)
    table = numbers("from", "to", numbers=[part for name in names for part in (f"{name} (95 %)", "chance")])
    for one in sorted(directions, key=lambda one: not one.trained):
        cells = [part for name in names for part in _with_chance(one.result.measures[name])]
        table.add_row(one.query, one.gallery, *cells)
    console().print(table)


def print_comparisons(comparisons: Sequence[Comparison], *, measures: bool) -> None:
    """Print how this run differs from the other one, in R@k alone or in all measures."""
    table = numbers(
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
    console().print(table)


def print_leaks(leaks: Leaks, *, top: int = 3) -> None:
    """Print how many items have a twin in training, the worst of them, and R@1 without them."""
    kinds = ["equal twin in training", "near twin in training", "near twin in the evaluation itself"]
    caption = f"equal: encoders can't tell them apart; near: a cosine of {leaks.near} by this run's own vectors"
    counts = numbers("items", numbers=["samples", *kinds], caption=caption)
    worst = Table("items", "key", "twin in training", "cosine", box=SIMPLE_HEAD)
    for one in leaks.overlaps:
        equal = sum(twin.equal for twin in one.twins)
        counts.add_row(
            ", ".join(one.items), f"{one.n:,}", f"{equal:,}", f"{len(one.twins) - equal:,}", f"{one.crowded:,}"
        )
        for twin in one.twins[:top]:
            cosine = "equal" if twin.equal else f"{twin.cosine:.4f}"
            worst.add_row(", ".join(one.items), escape(twin.key), escape(twin.twin), cosine)
    recall = numbers(
        "from", "to", numbers=["R@1 (95 %)", "n", "without leaked pairs", "n", "without leaked items", "n"],
        caption="left out are queries whose pair, or whose own item, has an equal or near twin in training",
    )  # fmt: skip
    for row in leaks.recall:
        cells = [part for share in (row.all, row.new_pair, row.new_item) for part in _share(share)]
        recall.add_row(row.query, row.gallery, *cells)
    for table in (counts, worst, recall):
        if table.row_count:
            console().print(table)


def print_zero_shot(found: ZeroShot) -> None:
    """Print how often items are nearest to the name of their class."""
    left_out = f", {found.left_out:,} without one left out" if found.left_out else ""
    table = numbers(
        f"{found.items} by class", numbers=["accuracy (95 %)", "chance"],
        caption=f"{found.n:,} items of {found.classes:,} classes{left_out}",
    )  # fmt: skip
    for what, one in (("top 1", found.top_1), ("top 5", found.top_5), ("top 1, mean per class", found.mean_per_class)):
        table.add_row(what, *_with_chance(one))
    console().print(table)


def print_verifications(found: Mapping[tuple[str, str], Verification]) -> None:
    """Print how well a threshold tells right pairs from wrong ones."""
    fars = list(dict.fromkeys(far for one in found.values() for far in one.tar))
    table = numbers(
        "pairs of", numbers=["AUROC (95 %)", "EER (95 %)", *(f"TAR at FAR {far:g}" for far in fars), "right", "wrong"],
        caption="FAR: share of wrong pairs accepted, TAR: of right ones; chance is AUROC 0.5, EER 0.5, TAR = FAR",
    )  # fmt: skip
    for names, one in found.items():
        rates = [_with_chance(one.tar[far])[0] if far in one.tar else "too few pairs" for far in fars]
        figures = [_with_chance(one.auroc)[0], _with_chance(one.eer)[0], *rates]
        table.add_row(", ".join(names), *figures, f"{one.right:,}", f"{one.wrong:,}")
    console().print(table)


def print_space(found: Space) -> None:
    """Print how the items of each modality are spread, how modalities lie to each other, and how uneven answers are."""
    shapes = numbers("items", numbers=["uniformity", "spread evenly", "effective rank", "of", "n"], title="spread")
    for name, shape in found.shapes.items():
        value = "" if shape.uniformity is None else f"{shape.uniformity:.3f}"
        of = "" if shape.looked_at == shape.n else f" (uniformity: {shape.looked_at:,} drawn)"
        shapes.add_row(
            name, value, f"{shape.evenly:.3f}", f"{shape.effective_rank:.1f}", str(shape.dim), f"{shape.n:,}{of}"
        )
    distances = numbers(
        "items", title="distances", numbers=["alignment (95 %)", "all pairs", "gap", "gap by chance", "pairs", "groups"]
    )
    for pair in found.distances:
        near = ("", "") if pair.alignment is None else _with_chance(pair.alignment)
        distances.add_row(
            ", ".join(pair.items), *near, f"{pair.gap:.3f}", f"{pair.gap_by_chance:.3f}", f"{pair.pairs:,}",
            f"{pair.groups:,}",
        )  # fmt: skip
    hubs = numbers("from", "to", title="hubs", numbers=["skewness", "by chance", "queries", "gallery"])
    for one in found.hubs:
        hubs.add_row(
            one.query, one.gallery, f"{one.skewness:.2f}", f"{one.chance:.2f}", f"{one.n:,}", f"{one.gallery_size:,}"
        )
    for table in (shapes, distances, hubs):
        if table.row_count:
            console().print(table)


def _of_direct(share: Estimate | None) -> str:
    return "direct finds none" if share is None else _with_chance(share)[0]


def _with_chance(one: Estimate) -> tuple[str, str]:
    return f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})", f"{one.chance:.3f}"


def _share(one: Share | None) -> tuple[str, str]:
    return ("none left", "0") if one is None else (f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})", f"{one.n:,}")
