"""Everything a command does, as one call: fit, load, bench, build_index."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from accelerate import PartialState

import multimodal_ssl
from multimodal_ssl.binder import Binder
from multimodal_ssl.checkpoint import load_tensors, save_tensors
from multimodal_ssl.config import Config, SourceConfig, dump_config, load_config
from multimodal_ssl.data import Supply, group_ids, raw_items
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.index import Index, Kind
from multimodal_ssl.metrics import retrieval
from multimodal_ssl.plan import Plan
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.report import Direction, save_card
from multimodal_ssl.training import Learner, train

FORMAT = 1  # of a run folder
ADAPT_ITEMS = 100_000  # raw items at most from which an encoder learns its preparation
FREE_ON_RESUME = {"workers", "threads", "log_every", "checkpoint_every", "max_unreadable"}


def fit(config: Config, *, resume: bool = False, catalog: Catalog | None = None) -> Binder:
    """Train a run into its folder and return its Binder; with resume, go on from the last checkpoint if there is one.

    Under torchrun every process calls it with the same config.
    """
    process = _process()
    catalog = catalog or Catalog.discover()
    supplies = open_supplies(config.sources, catalog)
    pairs = trained_pairs(supplies)
    plan = Plan(supplies, batch=config.train.batch, seed=config.seed)
    torch.manual_seed(config.seed)
    binder = build_binder(config, supplies, catalog)
    objective = catalog.create("objectives", config.objective.name, pairs, options=config.objective.options)
    open_supplies(config.evaluation, catalog)  # a mistake there is better told now than after training
    if process.is_main_process:
        _claim(config, resume=resume)
    process.wait_for_everyone()
    for name in binder.encoders:
        binder.encoder(name).adapt(raw_items(supplies, [name], binder.modalities[name], ADAPT_ITEMS))
    train(Learner(binder, objective), plan, config.train, run_dir=config.run, resume=resume)
    if process.is_main_process:
        _save(config.run, binder)
        save_card(config.run)
    process.wait_for_everyone()
    return binder.eval()


def load(run: Path | str, *, catalog: Catalog | None = None) -> Binder:
    """Open the Binder of a run, in eval mode."""
    run = Path(run)
    try:
        recipe = json.loads((run / "binder.json").read_text())
    except FileNotFoundError as error:
        raise InputError(f"{run} holds no trained run (no binder.json); train one with `mmssl fit`") from error
    except ValueError as error:
        raise InputError(f"{run / 'binder.json'} is damaged: {error}") from error
    if recipe.get("format") != FORMAT:
        raise InputError(
            f"{run} was written by version {recipe.get('version')} in format {recipe.get('format')}; "
            f"this version reads format {FORMAT}: use that version, or train again from its config.yaml"
        )
    binder = _from_recipe(recipe["recipe"], catalog or Catalog.discover())
    try:
        binder.load_state_dict(load_tensors(run / "model.safetensors"))
    except RuntimeError as error:
        raise InputError(f"{run / 'model.safetensors'} does not fit its binder.json: {error}") from error
    if binder.fingerprint() != recipe["fingerprint"]:
        raise InputError(f"{run / 'model.safetensors'} is not the file that was trained: its fingerprint differs")
    return binder.eval()


def bench(
    run: Path | str, overrides: Sequence[str] = (), *, binder: Binder | None = None, catalog: Catalog | None = None
) -> list[Direction]:
    """Measure retrieval between all modalities of a run's evaluation sources, in both directions.

    All items of one modality are one gallery, whichever source they come from; items of the query's group are hits.
    """
    catalog = catalog or Catalog.discover()
    config = load_config(Path(run) / "config.yaml", overrides)
    if not config.evaluation:
        raise InputError(f"the config of {run} has no `evaluation:` sources; give one, e.g. evaluation=[{{name: ...}}]")
    binder = binder or load(run, catalog=catalog)
    found, _ = embed(binder, open_supplies(config.evaluation, catalog), workers=config.train.workers)
    trained = {frozenset(pair) for pair in trained_pairs(open_supplies(config.sources, catalog))}
    directions = []
    for query, gallery in itertools.permutations(found, 2):
        if set(found[query].groups) & set(found[gallery].groups):
            directions.append(_direction(query, found[query], gallery, found[gallery], trained))
    if not directions:
        raise InputError(f"no two modalities of the evaluation share a group: {', '.join(found)}")
    return directions


def build_index(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    of: Literal["evaluation", "sources"] = "evaluation",
    kind: Kind = "flat",
    binder: Binder | None = None,
    catalog: Catalog | None = None,
) -> Index:
    """Embed the items of a run's evaluation (or training) sources and return them as an Index."""
    catalog = catalog or Catalog.discover()
    config = load_config(Path(run) / "config.yaml", overrides)
    supplies = open_supplies(getattr(config, of), catalog)
    if not supplies:
        raise InputError(f"the config of {run} has no `{of}:` sources to index")
    binder = binder or load(run, catalog=catalog)
    found, _ = embed(binder, supplies, workers=config.train.workers, previews=True)
    index = Index(binder.fingerprint(), binder.dim, kind=kind)
    for name, items in found.items():
        index.add(name, items)
    return index


def open_supplies(configs: Sequence[SourceConfig], catalog: Catalog) -> list[Supply]:
    """Open the sources of a config; raise InputError for unknown names of items or an unregistered modality."""
    supplies = []
    for config in configs:
        source = catalog.create("pairing_sources", config.name, options=config.options)
        for name in config.use or ():
            if name not in source.modalities:
                raise InputError(f"source {config.name!r} has no {name!r}: {nearest(name, source.modalities)}")
        for modality in source.modalities.values():
            catalog.modality(modality)
        supplies.append(Supply(source, config.use or tuple(source.modalities), config.share))
    return supplies


def trained_pairs(supplies: Sequence[Supply]) -> list[tuple[str, str]]:
    """Return every pair of modalities that stand together in a supply, once."""
    pairs: list[tuple[str, str]] = []
    for supply in supplies:
        if len(supply.names) < 2:
            raise InputError(f"a source trains on two modalities at least; one has only {', '.join(supply.names)}")
        for a, b in itertools.combinations(supply.names, 2):
            if (a, b) not in pairs and (b, a) not in pairs:
                pairs.append((a, b))
    return pairs


def build_binder(config: Config, supplies: Sequence[Supply], catalog: Catalog) -> Binder:
    """Build an untrained Binder with an encoder for each modality that the supplies use."""
    kinds = {name: supply.source.modalities[name] for supply in supplies for name in supply.names}
    for name in kinds:
        if name not in config.encoders:
            raise InputError(f"no encoder for {name!r}: add encoders.{name}, or leave {name!r} out with `use:`")
    for name in config.encoders:
        if name not in kinds:
            raise InputError(f"encoders.{name}: no source gives {name!r}; {nearest(name, kinds)}")
    encoders = {
        name: {"name": one.name, "options": catalog.complete("encoders", one.name, one.options)}
        for name, one in config.encoders.items()
    }
    recipe = {"modalities": kinds, "encoders": encoders, **config.binder.model_dump()}
    return _from_recipe(recipe, catalog)


def is_main_process() -> bool:
    """Tell whether this process is the one that writes and prints."""
    return bool(_process().is_main_process)


def _process() -> PartialState:
    return PartialState(cpu=not torch.accelerator.is_available())  # without a GPU it must be told, or it sees one only


def _direction(query: str, a: Embedded, gallery: str, b: Embedded, trained: set[frozenset[str]]) -> Direction:
    result = retrieval(a.vectors, b.vectors, group_ids(a.groups), group_ids(b.groups))
    return Direction(query, gallery, frozenset((query, gallery)) in trained, result)


def _from_recipe(recipe: Mapping[str, Any], catalog: Catalog) -> Binder:
    encoders = {
        name: catalog.create("encoders", one["name"], options=one["options"])
        for name, one in recipe["encoders"].items()
    }
    for name, encoder in encoders.items():
        if encoder.modality != recipe["modalities"][name]:
            raise InputError(
                f"encoders.{name}: {recipe['encoders'][name]['name']!r} takes {encoder.modality!r}, "
                f"but {name!r} is {recipe['modalities'][name]!r}"
            )
    modalities = {name: catalog.modality(kind) for name, kind in recipe["modalities"].items()}
    text = json.dumps(recipe, sort_keys=True, default=str)
    return Binder(encoders, modalities, dim=recipe["dim"], head=recipe["head"], recipe=text)


def _claim(config: Config, *, resume: bool) -> None:
    """Make the folder of the run; raise InputError rather than touch another run's."""
    run, path = config.run, config.run / "config.yaml"
    if path.exists():
        if not resume:
            raise InputError(
                f"{run} holds a run already: --resume goes on with it, run=OTHER trains into another folder"
            )
        before, now = (dict(_flat(yaml.safe_load(dump_config(one)))) for one in (load_config(path), config))
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        changed = [key for key in changed if key != "run" and key.removeprefix("train.") not in FREE_ON_RESUME]
        if changed:
            raise InputError(
                f"{run} was begun with another config ({', '.join(changed[:5])}): resume it with {path}, "
                "or train into another folder with run=OTHER"
            )
    elif run.exists() and any(run.iterdir()):
        raise InputError(
            f"{run} is not empty and holds no run: it is left as it is; give another folder with run=OTHER"
        )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_config(config))


def _save(run: Path, binder: Binder) -> None:
    save_tensors(run / "model.safetensors", binder.state_dict())
    recipe = {
        "format": FORMAT,
        "version": multimodal_ssl.__version__,
        "fingerprint": binder.fingerprint(),
        "recipe": json.loads(binder.recipe),
    }
    (run / "binder.json").write_text(json.dumps(recipe, indent=2))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists by their dotted keys."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(one, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
