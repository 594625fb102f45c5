"""mmssl quickstart: from nothing to cross-modal search, on glyphs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

QUERIES = ("leftwards arrow with hook", "playing card jack of spades", "circled latin capital letter r")


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def quickstart(overrides: tuple[str, ...]) -> None:
    """Draw glyphs, learn one space for their pictures, names and outlines, and search it: five minutes on two cores.

    Trained are image-text and image-outline; text-outline stands in no batch and emerges. It leaves a run folder with
    report.json and a contact sheet. Stopped, it goes on where it was.

    \b
    Example:
      mmssl quickstart
      mmssl quickstart seed=1 run=runs/quickstart-1
    """
    from multimodal_ssl import pipeline, retrieval
    from multimodal_ssl.cli.bench_tables import print_directions
    from multimodal_ssl.config import load_config
    from multimodal_ssl.contact_sheet import contact_sheet
    from multimodal_ssl.indexing import build_index
    from multimodal_ssl.report import save_report, timed

    seconds: dict[str, float] = {}
    config = load_config(Path(str(files("mmssl_glyphs") / "quickstart.yaml")), overrides)
    with timed(seconds, "draw"):
        from mmssl_glyphs.drawing import load_drawings

        load_drawings()
    with timed(seconds, "train"):
        binder = pipeline.fit(config, resume=True)
    with timed(seconds, "evaluate"):
        directions = pipeline.bench(config.run, binder=binder)
    with timed(seconds, "index"):
        index = build_index(config.run, binder=binder)
    with timed(seconds, "search"):
        answers = retrieval.search(binder, index, QUERIES, by="text", among="image", k=8)
        sheet = config.run / "search.png"
        contact_sheet(sheet, list(zip(QUERIES, answers, strict=True)))

    report = save_report(config, binder.fingerprint(), directions, seconds)
    print_directions(directions)
    stages = ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())
    click.echo(
        f"{sum(seconds.values()):.0f} s in all ({stages}), "
        f"peak memory {report['peak_memory_gb']} GB\n\n"
        f"report:  {config.run / 'report.json'}\n"
        f"picture: {sheet}\n"
        f'next:    mmssl search {config.run} "snowman"\n'
        f'         mmssl search {config.run} "snowman" --among outline --sheet answers.png\n'
        f'         your own data: see "Your own data" in the README'
    )
