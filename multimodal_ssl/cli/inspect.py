"""mmssl inspect"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("what", metavar="SOURCE|CONFIG")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--limit", default=2000, show_default=True, type=click.IntRange(1),
              help="Samples of each source to decode, evenly spread.")  # fmt: skip
@click.option("--scan", default=100_000, show_default=True, type=click.IntRange(0),
              help="Samples to read and compare without decoding them, evenly spread.")  # fmt: skip
@click.option("--show", default=12, show_default=True, type=click.IntRange(0), help="Samples of each source to draw.")
@click.option("--workers", type=click.IntRange(0), help="Of the feed.  [default: train.workers, or 1]")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write inspect.html and inspect.json here."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def inspect(
    what: str, overrides: tuple[str, ...], limit: int, scan: int, show: int, workers: int | None, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what is in data before anything is trained: what to look at first, counts, groups, sizes, duplicates,
    what can't be read, leaks into the evaluation, and what limits the speed.

    CONFIG is a YAML file, or the folder of a run. SOURCE is the name of a source, with its options as KEY=VALUE; of a
    file or folder it says how to write that.

    \b
    Example:
      mmssl inspect configs/icons-small.yaml
      mmssl inspect table path=pairs.csv columns.image=file columns.text=caption --out look
      mmssl inspect folder path=photos items.image=.jpg items.text=.txt --limit 500
    """
    from multimodal_ssl import inspection as engine
    from multimodal_ssl.cli.inspect_tables import print_inspection
    from multimodal_ssl.inline import parse_source
    from multimodal_ssl.inspect_page import write_page
    from multimodal_ssl.pipeline import open_config, open_supplies
    from multimodal_ssl.plugins import Catalog

    catalog = Catalog.discover()
    path, sources = Path(what), catalog.names("pairing_sources")
    if what not in sources and (path / "config.yaml").is_file():
        path = path / "config.yaml"
    if what not in sources and path.suffix.lower() in (".yaml", ".yml"):
        config = open_config(path, overrides)
        found = engine.inspect_config(config, limit=limit, scan=scan, shown=show, workers=workers, catalog=catalog)
    else:
        source = parse_source(what, overrides, sources)
        found = engine.inspect_sources(
            open_supplies([source], catalog), catalog, labels=[engine.label_of(source)], title=engine.label_of(source),
            limit=limit, scan=scan, shown=show, workers=1 if workers is None else workers,
        )  # fmt: skip
    if out:
        found.save(out)
        write_page(out / "inspect.html", found)
    if as_json:
        click.echo(json.dumps(found.figures(), indent=2))
    else:
        print_inspection(found)
        click.echo(f"look at:   {out / 'inspect.html'}" if out else "a page with samples: add --out FOLDER")
