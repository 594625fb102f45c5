"""mmssl fit"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--audit", type=click.Path(path_type=Path), help="An audit.parquet: leave out, or weigh, what it holds for wrong."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run, if there is one.")
def fit(config: Path, overrides: tuple[str, ...], audit: Path | None, resume: bool) -> None:
    """Train a run from a YAML config, or again from the config.yaml of a run.

    \b
    Example:
      mmssl fit configs/icons.yaml train.lr=5e-4 run=runs/icons-slow
      mmssl fit shop.yaml --audit runs/shop-audit/audit.parquet audit.use=weigh
      torchrun --nproc-per-node 2 -m multimodal_ssl fit configs/icons.yaml
    """
    from multimodal_ssl import pipeline
    from multimodal_ssl.cli.bench_tables import print_directions
    from multimodal_ssl.cli.tables import print_voices
    from multimodal_ssl.cli.training_tables import print_balance, print_guard
    from multimodal_ssl.guard import guard
    from multimodal_ssl.report import save_report, timed

    seconds: dict[str, float] = {}
    if audit:
        overrides = (f"audit.path={json.dumps(str(audit))}", *overrides)
    parsed = pipeline.open_config(config, overrides)
    with timed(seconds, "train"):
        binder = pipeline.fit(parsed, resume=resume)
    if pipeline.is_main_process():
        directions = []
        print_voices(parsed.run / "voices.json")
        print_balance(parsed)
        if parsed.evaluation:
            with timed(seconds, "evaluate"):
                directions = pipeline.bench(parsed.run, binder=binder)
            print_directions(directions)
        if parsed.guard:
            with timed(seconds, "guard"):
                print_guard(guard(parsed.run, binder=binder))
        save_report(parsed, binder.fingerprint(), directions, seconds)
        of = "" if parsed.evaluation else " --of sources"
        click.echo(f"trained: {parsed.run}\nnext:    mmssl index {parsed.run}{of}")
