"""mmssl search"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("query")
@click.option("--by", default="text", show_default=True, help="Modality of the query; a file unless it is text.")
@click.option("--among", help="Modality to search.  [default: the first other one]")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="How many answers.")
@click.option("--index", "index_dir", type=click.Path(path_type=Path), help="The index.  [default: RUN/index]")
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Draw the answers into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def search(
    run: Path, query: str, by: str, among: str | None, k: int, index_dir: Path | None, sheet: Path | None, as_json: bool
) -> None:
    """Search an index by words or by a file.

    \b
    Example:
      mmssl search runs/icons "red apple"
      mmssl search runs/icons apple.png --by image --among text --sheet answers.png
    """
    from multimodal_ssl import pipeline, retrieval
    from multimodal_ssl.cli.tables import print_hits
    from multimodal_ssl.index import Index

    if by == "text" and Path(query).is_file():
        click.echo(f"note: {query} is searched for as words; --by MODALITY searches by what is in the file", err=True)
    opened = Index(index_dir or run / "index")
    among = among or next((name for name in opened.counts if name != by), by)
    binder = pipeline.load(run)
    hits = retrieval.search(binder, opened, [query], by=by, among=among, k=k)[0]
    if as_json:
        answers = [
            {
                "key": hit.item.key, "score": hit.score, "modality": hit.item.modality, "group": hit.item.group,
                "text": hit.item.preview.text, "caption": hit.item.preview.caption, "path": hit.item.preview.path,
                "metadata": hit.item.metadata,
            }
            for hit in hits
        ]  # fmt: skip
        click.echo(json.dumps(answers, ensure_ascii=False))
    else:
        print_hits(hits)
    if sheet:
        modality = binder.modalities[by]
        retrieval.contact_sheet(sheet, [(modality.preview(modality.load(query)), hits)])
        click.echo(f"drawn: {sheet}", err=True)
