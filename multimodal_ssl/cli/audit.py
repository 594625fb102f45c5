"""mmssl audit"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the audit.  [default: RUN-audit]")
@click.option("--judges", default=2, show_default=True, type=click.IntRange(1), help="Number of runs; 1: see above.")
@click.option("--top", default=200, show_default=True, type=click.IntRange(0), help="Suspects on the page.")
def audit(config: Path, overrides: tuple[str, ...], out: Path | None, judges: int, top: int) -> None:
    """Tell which pairs of a config's sources do not belong together, and how many there are.

    Each judge trains on all samples, a tenth of which (of few, up to a quarter) it mismatches on purpose, and what it
    believes of the others is compared with what it believes of these. audit.parquet has the probability that each is a
    mismatch, the partner that would fit best and what else is wrong, audit.json the rates, audit.html the worst as
    people see them. Stopped, it goes on where it was.

    CONFIG may be the folder of a run. With --judges 1 the run itself judges what it was trained on: nothing more is
    trained, but it believes what it memorised, so that the rate is too low.

    \b
    Example:
      mmssl audit configs/icons-small.yaml
      mmssl audit shop.yaml train.epochs=30 --out shop-audit
      mmssl audit runs/shop --judges 1
    """
    from multimodal_ssl import audit as engine
    from multimodal_ssl.audit_page import write_page
    from multimodal_ssl.cli.tables import print_audit
    from multimodal_ssl.pipeline import open_config

    parsed = open_config(config / "config.yaml" if config.is_dir() else config, overrides)
    run = parsed.run if parsed.run.name.strip(".") else parsed.run.resolve()  # "." has no name
    folder = out or run.with_name(f"{run.name}-audit")
    found = engine.audit(parsed, folder, judges=judges)
    found.save(folder)
    write_page(folder / "audit.html", found, parsed, top=top)
    print_audit(found, top=10)
    click.echo(
        f"look at:   {folder / 'audit.html'}\nall pairs: {folder / 'audit.parquet'}\nrates:     {folder / 'audit.json'}"
    )
