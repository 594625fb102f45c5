"""mmssl bench"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

File = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--measures", is_flag=True, help="Print MRR, mAP, nDCG@10 and R-precision, too.")
@click.option("--against", type=click.Path(path_type=Path), help="Compare with this other run on the same items.")
@click.option(
    "--direct", type=click.Path(path_type=Path),
    help="Tell how far what emerged came, against this other run that was trained on it.",
)  # fmt: skip
@click.option("--leaks", is_flag=True, help="Look for items of the evaluation among those that were trained on.")
@click.option("--zero-shot", metavar="NAME", help="Classify the items of this name by the names of classes.")
@click.option("--by", help="For --zero-shot: what the names of classes are.  [default: text]")
@click.option("--classes", type=File, help="JSON: class -> name or list of prompts.  [default: the labels]")
@click.option("--templates", type=File, help="Text, one a line: what names are put into, such as `a photo of a {}`.")
@click.option("--label", metavar="COLUMN", help="Metadata that is an item's class.  [default: its group]")
@click.option("--verify", is_flag=True, help="Measure how well a threshold tells right pairs from wrong ones.")
@click.option(
    "--far", "fars", type=click.FloatRange(0, 1, min_open=True), multiple=True,
    help="For --verify: share of wrong pairs accepted.  [default: 0.1, 0.01, 0.001, as far as pairs suffice]",
)  # fmt: skip
@click.option("--plot", type=File, help="For --verify: draw the ROC into this PNG.")
@click.option("--space", is_flag=True, help="Measure the geometry: uniformity, rank, alignment, modality gap, hubs.")
@click.option(
    "--map", "map_path", type=File, help="Draw the space into this PNG: one dot an item, lines within samples."
)
@click.option(
    "--map-by", type=click.Choice(["pca", "umap"]),
    help="For --map: how the plane is found; umap needs the package umap-learn.  [default: pca]",
)  # fmt: skip
@click.option("--json", "json_path", type=File, help="Write all figures to this file as well.")
def bench(
    run: Path,
    overrides: tuple[str, ...],
    measures: bool,
    against: Path | None,
    direct: Path | None,
    leaks: bool,
    zero_shot: str | None,
    by: str | None,
    classes: Path | None,
    templates: Path | None,
    label: str | None,
    verify: bool,
    fars: tuple[float, ...],
    plot: Path | None,
    space: bool,
    map_path: Path | None,
    map_by: str | None,
    json_path: Path | None,
) -> None:
    """Measure retrieval on a run's evaluation sources: every pair of modalities, trained or emerged, both directions.

    \b
    Example:
      mmssl bench runs/icons evaluation.0.path=other.parquet --json figures.json
      mmssl bench runs/icons --measures --against runs/icons-slow
      mmssl bench runs/quickstart --direct runs/names-and-outlines
      mmssl bench runs/icons --leaks --verify --plot roc.png
      mmssl bench runs/icons --space --map space.png
      mmssl bench runs/icons --zero-shot image --classes classes.json --label category
    """
    from multimodal_ssl import comparison, geometry, pipeline, recipe, space_map, verification
    from multimodal_ssl import leaks as leaking
    from multimodal_ssl import zero_shot as zero
    from multimodal_ssl.cli import bench_tables as tables
    from multimodal_ssl.errors import InputError
    from multimodal_ssl.files import write_text
    from multimodal_ssl.report import figures

    for name, given in (("--by", by), ("--classes", classes), ("--templates", templates), ("--label", label)):
        if given and not zero_shot:
            raise InputError(f"{name} is for --zero-shot NAME: say which items to classify")
    for name, asked in (("--far", fars), ("--plot", plot)):
        if asked and not verify:
            raise InputError(f"{name} is for --verify: give that, too")
    if map_by and not map_path:
        raise InputError("--map-by is for --map PNG: say where to draw it")
    project = space_map.projection(map_by or "pca")
    named = zero.read_classes(classes) if classes else None
    put_into = zero.read_templates(templates) if templates else None
    binder = recipe.load(run)
    other = recipe.load(against) if against else None
    trained_directly = recipe.load(direct) if direct else None
    evaluation = pipeline.evaluate_run(run, overrides, binder=binder, traits=leaks or label is not None)
    only_classes = zero_shot is not None and not evaluation.answers
    directions = [] if only_classes else pipeline.directions(run, evaluation)
    found = figures(pipeline.run_config(run, overrides), binder.fingerprint(), directions)
    reached = []
    if direct and trained_directly:
        reached = comparison.compare_with_direct(
            evaluation, pipeline.evaluate_run(direct, overrides, binder=trained_directly),
            trained=pipeline.pairs_of(run), directly=pipeline.pairs_of(direct),
        )  # fmt: skip
        told = {"run": str(direct), "fingerprint": trained_directly.fingerprint()}
        found["direct"] = {**told, "directions": [asdict(one) for one in reached]}
    if directions:
        tables.print_directions(directions, reached)
    if measures and directions:
        tables.print_measures(directions)
    if against and other:
        compared = comparison.compare(evaluation, pipeline.evaluate_run(against, overrides, binder=other))
        tables.print_comparisons(compared, measures=measures)
        told = {"run": str(against), "fingerprint": other.fingerprint()}
        found["against"] = {**told, "directions": [asdict(one) for one in compared]}
    if leaks:
        leaked = leaking.find_leaks(evaluation, pipeline.embed_training(run, overrides, binder=binder))
        tables.print_leaks(leaked)
        found["leaks"] = asdict(leaked)
    if zero_shot:
        classified = zero.classify(
            binder, evaluation.items, zero_shot, by=by or "text", label=label, classes=named, templates=put_into
        )
        tables.print_zero_shot(classified)
        found["zero_shot"] = asdict(classified)
    if verify:
        verified = verification.verify_items(evaluation.items, fars=fars or None)
        tables.print_verifications(verified)
        found["verification"] = [{"items": names, **asdict(one)} for names, one in verified.items()]
        if plot:
            verification.draw_roc(plot, verified)
            click.echo(f"drawn: {plot}", err=True)
    if space:
        measured = geometry.measure_space(evaluation.items)
        tables.print_space(measured)
        found["space"] = asdict(measured)
    if map_path:
        space_map.draw_map(map_path, evaluation.items, project)
        click.echo(f"drawn: {map_path}", err=True)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_path, json.dumps(found, indent=2))
