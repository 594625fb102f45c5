"""mmssl index"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from multimodal_ssl.index import Kind


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--of", type=click.Choice(["evaluation", "sources"]), default="evaluation", show_default=True,
              help="Which sources of the config to index.")  # fmt: skip
@click.option("--kind", type=click.Choice(["flat", "hnsw"]), default="flat", show_default=True,
              help="flat is exact; hnsw is faster from about 50,000 items on.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the index.  [default: RUN/index]")
def index(
    run: Path, overrides: tuple[str, ...], of: Literal["evaluation", "sources"], kind: Kind, out: Path | None
) -> None:
    """Embed items with a run and index them for search.

    \b
    Example:
      mmssl index runs/icons
      mmssl index runs/icons evaluation.0.path=all.parquet --kind hnsw --out all.index
    """
    from multimodal_ssl import pipeline
    from multimodal_ssl.index import check_folder

    folder = out or run / "index"
    check_folder(folder)
    built = pipeline.build_index(run, overrides, of=of, kind=kind)
    built.save(folder)
    counts = ", ".join(f"{count:,} {name}" for name, count in built.counts.items())
    where = f" --index {out}" if out else ""
    click.echo(f'indexed {counts}: {folder}\nnext:    mmssl search {run} "some words"{where}')
