"""mmssl blend"""

from __future__ import annotations

from pathlib import Path

import click

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--alpha", "alphas", type=click.FloatRange(0, 1), multiple=True,
    help="How far from before training (0) to after (1); several are compared.  [default: 0, 0.25, 0.5, 0.75, 1]",
)  # fmt: skip
@click.option("--into", type=click.Path(path_type=Path), help="Write the blend of one --alpha as a run of its own.")
def blend(run: Path, alphas: tuple[float, ...], into: Path | None) -> None:
    """Blend the weights of a run's encoders before and after training (WiSE-FT): new skill against old.

    New skill is retrieval on the run's evaluation sources, old skill that on its `guard:` sources.

    \b
    Example:
      mmssl blend runs/shop
      mmssl blend runs/shop --alpha 0.6 --into runs/shop-60
    """
    from multimodal_ssl import blending
    from multimodal_ssl.cli.training_tables import print_blends
    from multimodal_ssl.errors import InputError
    from multimodal_ssl.guard import mean_recall, old_skill, open_guard
    from multimodal_ssl.pipeline import evaluate_run, run_config
    from multimodal_ssl.plugins import Catalog

    if into:
        if len(alphas) != 1:
            raise InputError("--into writes one blend: give one --alpha")
        blending.save_blend(run, alphas[0], into)
        click.echo(f"blended: {into}")
        return
    catalog, config = Catalog.discover(), run_config(run)
    supplies = open_guard(run, catalog) if config.guard else []
    if not config.evaluation and not supplies:
        raise InputError(f"the config of {run} has neither `evaluation:` nor `guard:` sources: nothing to compare by")
    rows = []
    for alpha in alphas or ALPHAS:
        binder = blending.blend(run, alpha, catalog=catalog)
        new = evaluate_run(run, binder=binder, catalog=catalog).answers if config.evaluation else {}
        old = old_skill(binder, supplies, workers=config.train.workers).answers if supplies else {}
        rows.append((alpha, mean_recall(new) if new else None, mean_recall(old) if old else None))
    print_blends(rows)
