"""mmssl bench"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the figures to this file as well.",
)
def bench(run: Path, overrides: tuple[str, ...], json_path: Path | None) -> None:
    """Measure retrieval on a run's evaluation sources: every pair of modalities, trained or emerged, both directions.

    \b
    Example:
      mmssl bench runs/icons evaluation.0.path=other.parquet --json figures.json
    """
    from multimodal_ssl import pipeline
    from multimodal_ssl.cli.tables import print_directions
    from multimodal_ssl.files import write_text
    from multimodal_ssl.report import figures

    binder = pipeline.load(run)
    directions = pipeline.bench(run, overrides, binder=binder)
    print_directions(directions)
    if json_path:
        found = figures(pipeline.run_config(run, overrides), binder.fingerprint(), directions)
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_path, json.dumps(found, indent=2))
