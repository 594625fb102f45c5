"""mmssl index"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from multimodal_ssl.ann import Kind

KINDS = ["flat", "hnsw", "hnsw-sq8", "ivf-pq", "ivf-rabitq", "sq8", "binary"]
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}


class Bytes(click.ParamType[Any, float]):
    """A number of bytes such as 400MB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9.]+)\s*([kmg]?)i?b?", str(value).lower())
        try:
            return float(found[1]) * UNITS[found[2]] if found else self.fail(f"{value!r} is no size such as 400MB")
        except ValueError:
            self.fail(f"{value!r} is no size such as 400MB", param, ctx)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--of", type=click.Choice(["evaluation", "sources"]), default="evaluation", show_default=True,
              help="Which sources of the config to index.")  # fmt: skip
@click.option("--kind", type=click.Choice(KINDS),
              help="The search structure.  [default: flat (exact) to 20,000 items, then the fastest]")  # fmt: skip
@click.option("--recall", default=0.95, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="Share of the ten nearest that a structure has to find.")  # fmt: skip
@click.option("--memory", type=Bytes(), help="What a structure may take, e.g. 400MB.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the index.  [default: RUN/index]")
def index(
    run: Path, overrides: tuple[str, ...], of: Literal["evaluation", "sources"], kind: Kind | None, recall: float,
    memory: float | None, out: Path | None,
) -> None:  # fmt: skip
    """Embed items with a run and index them for search. What was stopped goes on where it was.

    \b
    Example:
      mmssl index runs/icons
      mmssl index runs/icons evaluation.0.path=all.parquet --recall 0.97 --memory 400MB --out all.index
    """
    from multimodal_ssl.cli.tables import print_index
    from multimodal_ssl.indexing import build_index

    built = build_index(run, overrides, folder=out, of=of, kind=kind, recall=recall, memory=memory)
    print_index(built.describe())
    where = f" --index {out}" if out else ""
    click.echo(f'index:   {built.store.folder}\nnext:    mmssl search {run} "some words"{where}')
