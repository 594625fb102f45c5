"""Everything a command does, as one call: fit, load, bench."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import PartialState
from torch import nn

from multimodal_ssl.audited import apply_audit
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import Config, SourceConfig, dump_config, load_config
from multimodal_ssl.corrupt import corrupted
from multimodal_ssl.data import Supply
from multimodal_ssl.decoys import plant
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.encoder_config import EncoderConfig
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.evaluation import Evaluation, evaluate
from multimodal_ssl.features.cache import cached, can_cache
from multimodal_ssl.files import write_text
from multimodal_ssl.metrics import summarise
from multimodal_ssl.plan import Plan
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import adapt, build_binder, load, read_recipe, save_binder, start_encoders
from multimodal_ssl.report import Direction, save_card
from multimodal_ssl.training import Learner, count_steps, train, weighs
from multimodal_ssl.trust import Trust
from multimodal_ssl.tuning import rates
from multimodal_ssl.types import MapSource, Objective
from multimodal_ssl.voting import Voice
from multimodal_ssl.voting import merge as vote

MARK = "# Written by mmssl: the config of the run in this folder, with every default.\n"
FREE_ON_RESUME = {"cache", "workers", "log_every", "checkpoint_every", "max_unreadable"}


def fit(config: Config, *, resume: bool = False, catalog: Catalog | None = None) -> Binder:
    """Train a run into its folder and return its Binder; with resume, go on from the last checkpoint if there is one.

    Under torchrun every process calls it with the same config.
    """
    process = _process()
    catalog = catalog or Catalog.discover()
    supplies, voices = open_training(config, catalog)
    if config.audit:
        supplies = apply_audit(supplies, config.audit)
    if config.decoys:
        supplies = plant(supplies, config.decoys, config.seed)
    objective = open_objective(config, supplies, catalog)
    plan = make_plan(config, supplies, objective)
    views = cached_views(config)
    if not all(
        views.keys() >= set(one.names) for one in supplies
    ):  # features have a length, if what they are of has none
        count_steps(plan, config.train)
    weighs(objective, config.trust)
    torch.manual_seed(config.seed)
    binder = build_binder(config, supplies, catalog)
    check_held_out(config, binder, catalog)
    start_encoders(binder, config)
    if process.is_main_process:
        _claim(config, resume=resume)
        if voices:
            write_text(config.run / "voices.json", json.dumps([asdict(one) for one in voices], indent=2))
    process.wait_for_everyone()
    adapt(binder, supplies, [name for name, one in config.encoders.items() if not one.start])
    trust = Trust(config.trust)
    learner = Learner(binder, objective)
    if views:
        with process.main_process_first():  # the others find everything in the cache
            taking, supplies = cached(
                binder,
                supplies,
                views,
                folder=config.cache,
                workers=config.train.workers,
                max_unreadable=config.train.max_unreadable,
            )
        learner, plan = Learner(taking, objective), make_plan(config, supplies, objective)
    encoders = {name: learner.binder.encoder(name) for name in binder.encoders}
    train(
        learner,
        plan,
        config.train,
        trust,
        run_dir=config.run,
        resume=resume,
        rates=rates(encoders, config.encoders),
    )
    binder.to(next(learner.parameters()).device)
    if process.is_main_process:
        trust.save(config.run / "trust.parquet")
        pairs = trained_pairs(supplies, config.encoders)
        save_binder(config.run, binder, pairs=[pair for pair in pairs if objective.terms(pair)])
        save_card(config.run)
    process.wait_for_everyone()
    return binder.eval()


def open_objective(config: Config, supplies: Sequence[Supply], catalog: Catalog) -> Objective:
    """Create the objective of a config; raise InputError where a source or a teacher would be of no use to it."""
    pairs = trained_pairs(supplies, config.encoders)
    objective: Objective = catalog.create("objectives", config.objective.name, pairs, options=config.objective.options)
    for position, supply in enumerate(supplies):
        if not objective.terms(supply.names):
            raise InputError(
                f"sources.{position}: the objective {config.objective.name!r} learns nothing from "
                f"{', '.join(supply.names)}: leave the source out, or take another objective"
            )
    for name, one in config.encoders.items():
        if one.head == "teacher" and name not in objective.taught_by:
            raise InputError(
                f"encoders.{name}: head: teacher, but the objective {config.objective.name!r} has no such teacher: "
                "take objective distil and name it in `teachers`"
            )
    for name in objective.taught_by:
        if name not in config.encoders or config.encoders[name].head != "teacher":
            raise InputError(f"objective: {name!r} is to teach: give encoders.{name} with head: teacher")
        if not any(name in supply.names for supply in supplies):
            raise InputError(f"objective: {name!r} is to teach, but no source gives it")
    return objective


def check_held_out(config: Config, binder: Binder, catalog: Catalog) -> None:
    """Open what is only measured: a mistake there is better told now than after training."""
    evaluation, guard = open_supplies(config.evaluation, catalog), open_supplies(config.guard, catalog)
    for place, supplies in (("evaluation", evaluation), ("guard", guard)):
        for name in (name for supply in supplies for name in supply.names):
            if name not in binder.encoders:
                raise InputError(f"{place}: no encoder for {name!r}: leave it out with `use: [...]`")
    if len(names := {name for supply in evaluation for name in supply.names}) == 1:
        raise InputError(
            f"evaluation: retrieval is between two modalities, and there is only {names.pop()!r}: leave it out, and "
            "classify its items after training with `mmssl bench RUN --zero-shot`"
        )
    if len(guard) == 1 and isinstance(source := guard[0].source, MapSource):
        group = source.manifest().group
        headless = [name for name in guard[0].names if isinstance(binder.heads[name], nn.Identity)]
        if len(headless) < 2 and (group is None or len(np.unique(group)) == len(group)):
            raise InputError(
                "guard: it would show no skill, as no two of its samples are of one group and no two modalities share "
                "a space before training (head: none): give sources with groups, such as classes"
            )


def make_plan(config: Config, supplies: Sequence[Supply], objective: Objective) -> Plan:
    """Plan what each step of a config reads of its opened sources."""
    return Plan(
        supplies,
        batch=config.train.batch,
        seed=config.seed,
        terms=objective.terms,
        apart=not objective.wants_groups,
        by_length=config.train.by_length,
        shuffle_buffer=config.train.shuffle_buffer,
    )


def cached_views(config: Config) -> dict[str, int]:
    """Return how many views the cache keeps of each encoder's features, of those that ask for it."""
    return {name: one.cache for name, one in config.encoders.items() if one.cache}


def open_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a config as `load_config` does; one in the folder of a run is of that run, wherever it was moved."""
    path = Path(path)
    if (path.parent / "checkpoints").exists() or (path.parent / "binder.json").exists():
        overrides = (f"run={path.parent}", *overrides)
    return load_config(path, overrides)


def bench(
    run: Path | str, overrides: Sequence[str] = (), *, binder: Binder | None = None, catalog: Catalog | None = None
) -> list[Direction]:
    """Measure retrieval between all modalities of a run's evaluation sources, in both directions.

    All items of one modality are one gallery, whichever source they come from; items of the query's group are hits.
    """
    return directions(run, evaluate_run(run, overrides, binder=binder, catalog=catalog))


def evaluate_run(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    binder: Binder | None = None,
    traits: bool = False,
    catalog: Catalog | None = None,
) -> Evaluation:
    """Embed a run's evaluation sources, and search the items of each modality by those of each other."""
    catalog = catalog or Catalog.discover()
    config = run_config(run, overrides)
    if not config.evaluation:
        raise InputError(f"the config of {run} has no `evaluation:` sources; give one, e.g. evaluation=[{{name: ...}}]")
    binder = binder or load(run, catalog=catalog)
    supplies = open_supplies(config.evaluation, catalog)
    views = dict.fromkeys(cached_views(config), 1)
    if views and not traits and all(can_cache(one, views) for one in supplies):  # traits are of what is prepared
        binder, supplies = cached(binder, supplies, views, folder=config.cache, workers=config.train.workers)
    return evaluate(embed(binder, supplies, workers=config.train.workers, traits=traits)[0])


def directions(run: Path | str, evaluation: Evaluation) -> list[Direction]:
    """Return what an evaluation of a run tells of each direction; raise InputError if there is none."""
    if not evaluation.answers:
        raise InputError(f"no two modalities of the evaluation share a group: {', '.join(evaluation.items)}")
    trained = pairs_of(run)
    return [Direction(*names, frozenset(names) in trained, summarise(one)) for names, one in evaluation.answers.items()]


def pairs_of(run: Path | str) -> set[frozenset[str]]:
    """Return the pairs of modalities that a run has trained together."""
    return {frozenset(pair) for pair in read_recipe(Path(run))["pairs"]}


def embed_training(
    run: Path | str, overrides: Sequence[str] = (), *, binder: Binder | None = None, catalog: Catalog | None = None
) -> dict[str, Embedded]:
    """Embed what a run was trained on, with its traits."""
    catalog = catalog or Catalog.discover()
    config = run_config(run, overrides)
    binder = binder or load(run, catalog=catalog)
    supplies, _ = open_training(config, catalog)
    return embed(binder, supplies, workers=config.train.workers, traits=True)[0]


def run_config(run: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read the config of a run; only what is read from it (sources, evaluation) may be overridden."""
    for override in overrides:
        if not override.startswith(("sources", "evaluation", "train.workers=")):
            raise InputError(f"{override!r}: a trained run is what it is; evaluation.* and sources.* can be overridden")
    return open_config(Path(run) / "config.yaml", overrides)


def open_supplies(configs: Sequence[SourceConfig], catalog: Catalog) -> list[Supply]:
    """Open the sources of a config; raise InputError for unknown names of items or an unregistered modality."""
    supplies = []
    for config in configs:
        source = catalog.create(
            "pairing_sources", config.name, options=config.options, beside=SourceConfig.model_fields
        )
        for name in config.use or ():
            if name not in source.modalities:
                raise InputError(f"source {config.name!r} has no {name!r}: {nearest(name, source.modalities)}")
        for modality in source.modalities.values():
            catalog.modality(modality)
        names = config.use or tuple(source.modalities)
        if config.corrupt:
            source = corrupted(source, config.corrupt, names)
        supplies.append(Supply(source, names, config.share))
    return supplies


def open_training(config: Config, catalog: Catalog) -> tuple[list[Supply], list[Voice]]:
    """Open the sources that a config trains on; those that vote become one, and each of them is told of."""
    supplies = open_supplies(config.sources, catalog)
    return vote(supplies) if config.vote else (supplies, [])


def trained_pairs(supplies: Sequence[Supply], encoders: Mapping[str, EncoderConfig]) -> list[tuple[str, str]]:
    """Return every pair of modalities that stand together in a supply, once; teachers are in none."""
    pairs: list[tuple[str, str]] = []
    for supply in supplies:
        names = [name for name in supply.names if name not in encoders or encoders[name].head != "teacher"]
        if len(names) < 2:
            raise InputError(f"a source trains on two modalities at least; one has only {', '.join(names)}")
        for a, b in itertools.combinations(names, 2):
            if (a, b) not in pairs and (b, a) not in pairs:
                pairs.append((a, b))
    return pairs


def is_main_process() -> bool:
    """Tell whether this process is the one that writes and prints."""
    return bool(_process().is_main_process)


def _process() -> PartialState:
    return PartialState(
        cpu=not torch.accelerator.is_available(),  # without a GPU it must be told, or it sees one only
        timeout=timedelta(days=7),  # while one process fills the cache the others wait
    )


def _claim(config: Config, *, resume: bool) -> None:
    """Make the folder of the run; raise InputError rather than touch another run's."""
    run, path = config.run, config.run / "config.yaml"
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run} can't be made a folder ({error.strerror}): give another with run=OTHER") from error
    if any((run / "checkpoints").glob("*")) or (run / "binder.json").exists():
        if not resume:
            raise InputError(
                f"{run} holds a run already: --resume goes on with it, run=OTHER trains into another folder"
            )
        if "blended" in (read_recipe(run) if (run / "binder.json").exists() else {}):
            raise InputError(f"{run} is a blend, which no training goes on from: give another folder with run=OTHER")
        check_same(config)
    elif any(run.iterdir()) and not (path.exists() and path.read_text().startswith(MARK)):
        raise InputError(
            f"{run} is not empty and holds no run: it is left as it is; give another folder with run=OTHER"
        )
    write_text(path, MARK + dump_config(config))


def check_same(config: Config) -> None:
    """Raise InputError if the run in the folder of a config was begun with another one."""
    path = config.run / "config.yaml"
    before, now = (dict(_flat(yaml.safe_load(dump_config(one)))) for one in (load_config(path), config))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    changed = [key for key in changed if key != "run" and key.removeprefix("train.") not in FREE_ON_RESUME]
    if changed:
        raise InputError(
            f"{config.run} was begun with another config ({', '.join(changed[:5])}): resume it with {path}, "
            "or train into another folder with run=OTHER"
        )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists by their dotted keys."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(one, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
