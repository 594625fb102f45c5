"""What is in the data before anything is trained: counts, sizes, repeats, leaks, what can't be read, and how fast."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from multimodal_ssl.audited import apply_audit
from multimodal_ssl.config import Config, SourceConfig, TrainConfig
from multimodal_ssl.data import Supply, hash64
from multimodal_ssl.errors import InputError
from multimodal_ssl.facts import EXAMPLES, Schedule, Shared, SourceFacts, tell
from multimodal_ssl.files import write_text
from multimodal_ssl.pace import Pace, measure_pace
from multimodal_ssl.pipeline import open_supplies, open_training, trained_pairs
from multimodal_ssl.plan import Plan
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import adapt, build_binder
from multimodal_ssl.remarks import remark
from multimodal_ssl.report import peak_memory
from multimodal_ssl.spread import Spread
from multimodal_ssl.stream_order import Terms, count_pairs
from multimodal_ssl.survey import Shown, Survey, survey
from multimodal_ssl.training import count_steps
from multimodal_ssl.types import Encoder, MapSource, Modality, Preview

LIMIT, SCAN, SHOWN = 2000, 100_000, 12


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in the data.

    Attributes:
        title: the name of the run, or of the source.
        warnings: what a person should look at; what matters most first.
        sources, evaluation: what is told of each.
        leaks: what both share; empty without an evaluation.
        encoders: name of the items -> name of their encoder; empty without a config.
        tokens: name of the texts -> how many tokens its encoder takes of them.
        batch_bytes: of the collated inputs of a sample, measured; None without encoders.
        peak_memory_gb: of this process and its largest worker, measured; None where the system can't tell.
        seconds: what each part of the inspection took.
        sheets: samples of each source, drawn at random.
        pictures: (position of the source, name, key) -> the most common items as a person sees them.
    """

    title: str
    limit: int
    scan: int
    warnings: list[str]
    sources: list[SourceFacts]
    evaluation: list[SourceFacts]
    leaks: list[Shared]
    schedule: Schedule | None
    pace: Pace | None
    encoders: dict[str, str]
    tokens: dict[str, Spread]
    batch_bytes: float | None
    peak_memory_gb: float | None
    seconds: dict[str, float]
    sheets: list[list[Shown]] = field(default_factory=list)
    pictures: dict[tuple[int, str, str], Preview] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, of the sheets the keys alone."""
        found = {name: _plain(getattr(self, name)) for name in self.__slots__ if name not in ("sheets", "pictures")}
        return {**found, "sheets": [[one.key for one in sheet] for sheet in self.sheets]}

    def save(self, folder: Path) -> None:
        """Write inspect.json."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "inspect.json", json.dumps(self.figures(), indent=2))


def inspect_config(
    config: Config,
    *,
    limit: int = LIMIT,
    scan: int = SCAN,
    shown: int = SHOWN,
    workers: int | None = None,
    catalog: Catalog | None = None,
) -> Inspection:
    """Inspect what a config trains on and is evaluated on, with its encoders untrained."""
    catalog = catalog or Catalog.discover()
    supplies, voices = open_training(config, catalog)
    if config.audit:
        supplies = apply_audit(supplies, config.audit)
    objective = catalog.create(
        "objectives", config.objective.name, trained_pairs(supplies, config.encoders), options=config.objective.options
    )
    binder = build_binder(config, supplies, catalog)
    began = time.perf_counter()
    adapt(binder, supplies)
    adapted = time.perf_counter() - began
    labels = [label_of(one) for one in config.sources]
    found = inspect_sources(
        supplies,
        catalog,
        labels=[", ".join(labels)] if voices else labels,
        title=config.run.name or str(config.run),
        evaluation=open_supplies(config.evaluation, catalog),
        evaluation_labels=[label_of(one) for one in config.evaluation],
        encoders={name: binder.encoder(name) for name in binder.encoders},
        encoder_names={name: one.name for name, one in config.encoders.items()},
        train=config.train,
        apart=not objective.wants_groups,
        terms=objective.terms,
        seed=config.seed,
        limit=limit,
        scan=scan,
        shown=shown,
        workers=config.train.workers if workers is None else workers,
    )
    found.seconds["adapt"] = round(adapted, 2)
    return found


def label_of(config: SourceConfig) -> str:
    """Return what a source is called: its name, and its path if it has one."""
    path = config.options.get("path")
    return config.name if path is None else f"{config.name} {path}"


def inspect_sources(
    supplies: Sequence[Supply],
    catalog: Catalog,
    *,
    labels: Sequence[str],
    title: str,
    evaluation: Sequence[Supply] = (),
    evaluation_labels: Sequence[str] = (),
    encoders: Mapping[str, Encoder] | None = None,
    encoder_names: Mapping[str, str] | None = None,
    train: TrainConfig | None = None,
    apart: bool = True,
    terms: Terms = count_pairs,
    seed: int = 0,
    limit: int = LIMIT,
    scan: int = SCAN,
    shown: int = SHOWN,
    workers: int = 1,
) -> Inspection:
    """Tell what is in sources.

    Args:
        encoders: as training would begin with them; none: nothing is prepared.
        train: how they would be trained on; None: nothing is told of that but how groups meet in a usual batch.
        apart: whether training keeps samples of one group in different batches.
        terms: of its objective (see `Objective.terms`).
        limit: samples of each source to decode.
        scan: samples of each source to read; all of them are compared.
        shown: samples of each source to draw.
    """
    seconds: dict[str, float] = {}
    encoders = encoders or {}
    batch = train.batch if train else TrainConfig.model_fields["batch"].default
    every = [*supplies, *evaluation]
    kinds = [{name: catalog.modality(one.source.modalities[name]) for name in one.names} for one in every]
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    surveys: list[Survey] = []
    began = time.perf_counter()
    with bar:
        for position, (supply, modalities) in enumerate(zip(every, kinds, strict=True)):
            length = min(len(supply.source), max(scan, limit)) if isinstance(supply.source, MapSource) else limit
            task = bar.add_task([*labels, *evaluation_labels][position], total=length)
            used = encoders if position < len(supplies) else {}
            surveys.append(
                survey(
                    supply, modalities, used, limit=limit, scan=scan, batch=batch, seed=seed, shown=shown,
                    advance=lambda task=task: bar.advance(task),  # type: ignore[misc]  # mypy sees no default there
                )
            )  # fmt: skip
    seconds["read"] = round(time.perf_counter() - began, 2)
    began = time.perf_counter()
    plan, schedule = _schedule(supplies, train, batch=batch, seed=seed, apart=apart, terms=terms)
    orders = [plan.orders.get(position) if plan else None for position in range(len(supplies))]
    facts = [tell(*one, apart=apart) for one in zip(labels, supplies, surveys[: len(supplies)], orders, strict=True)]
    held = surveys[len(supplies) :]
    others = [tell(*one, None, apart=apart) for one in zip(evaluation_labels, evaluation, held, strict=True)]
    leaks = _leaks(surveys[: len(supplies)], held)
    pictures = {
        key: one
        for position, some in enumerate(zip(supplies, kinds, facts, surveys, strict=False))
        for key, one in _pictures(position, *some).items()
    }
    seconds["compare"] = round(time.perf_counter() - began, 2)
    began = time.perf_counter()
    merged = {name: one for each in kinds[: len(supplies)] for name, one in each.items()}
    pace = measure_pace(
        supplies, merged, encoders, surveys[: len(supplies)], limit=limit, batch=batch, workers=workers, seed=seed
    )
    seconds["feed"] = round(time.perf_counter() - began, 2)
    decoded = sum(one.decoded - one.bad_decoded for one in surveys[: len(supplies)])
    collated = sum(one.collated for one in surveys[: len(supplies)])
    memory = peak_memory()
    return Inspection(
        title=title,
        limit=limit,
        scan=scan,
        warnings=remark(facts, others, leaks, schedule, train, encoder_names or {}),
        sources=facts,
        evaluation=others,
        leaks=leaks,
        schedule=schedule,
        pace=pace,
        encoders=dict(encoder_names or {}),
        tokens={name: one["tokens"] for each in facts for name, one in each.sizes.items() if "tokens" in one},
        batch_bytes=collated / decoded if encoders and decoded else None,
        peak_memory_gb=memory and round(memory, 3),
        seconds=seconds,
        sheets=[one.shown for one in surveys],
        pictures=pictures,
    )


def _schedule(
    supplies: Sequence[Supply], train: TrainConfig | None, *, batch: int, seed: int, apart: bool, terms: Terms
) -> tuple[Plan | None, Schedule | None]:
    try:
        by_length = train.by_length if train else None
        plan = Plan(supplies, batch=batch, seed=seed, terms=terms, apart=apart, by_length=by_length)
        steps = count_steps(plan, train) if train else None
    except InputError as error:
        nothing = [None for _ in supplies]
        return None, Schedule(batch, [*nothing], None, [*nothing], 0, str(error)) if train else None
    orders = [plan.orders.get(position) for position in range(len(supplies))]
    per_epoch = [one.per_epoch if one else None for one in orders]
    shares = np.array([one.share for one in supplies]) / sum(one.share for one in supplies)
    visits = [
        float(steps * share / one) if steps and one else None for share, one in zip(shares, per_epoch, strict=True)
    ]
    return plan, Schedule(batch, per_epoch, steps, visits, plan.left_out, "") if train else None


def _leaks(sources: Sequence[Survey], held: Sequence[Survey]) -> list[Shared]:
    if not held:
        return []
    names = dict.fromkeys(name for one in held for name in one.columns)
    found = [_share(name, _items(held, name), _items(sources, name)) for name in names]
    found += [_share(what, _whole(held, what), _whole(sources, what)) for what in ("samples", "keys", "groups")]
    return [one for one in found if one.n]


def _items(surveys: Sequence[Survey], name: str) -> tuple[NDArray[np.int64], list[str]]:
    columns = [(one, one.columns[name]) for one in surveys if name in one.columns]
    digests = [np.array(column.digests, np.int64) for _, column in columns]
    return np.concatenate([*digests, np.array([], np.int64)]), [
        one.keys[place] for one, column in columns for place in column.places
    ]


def _whole(surveys: Sequence[Survey], what: str) -> tuple[NDArray[np.int64], list[str]]:
    keys = [key for one in surveys for key in one.keys]
    if what == "keys":
        return hash64(keys), keys
    numbers = np.array([each for one in surveys for each in (one.whole if what == "samples" else one.groups)], np.int64)
    has = numbers != 0
    return numbers[has], [key for key, one in zip(keys, has.tolist(), strict=True) if one]


def _share(what: str, held: tuple[NDArray[np.int64], list[str]], known: tuple[NDArray[np.int64], list[str]]) -> Shared:
    (numbers, keys), (others, other_keys) = held, known
    shared = np.flatnonzero(np.isin(numbers, others))
    first = dict(zip(others[::-1].tolist(), reversed(other_keys), strict=True)) if len(shared) else {}
    some = [(keys[place], first[int(numbers[place])]) for place in shared[:EXAMPLES].tolist()]
    return Shared(what, len(shared), len(numbers), some)


def _pictures(
    position: int, supply: Supply, modalities: Mapping[str, Modality], facts: SourceFacts, found: Survey
) -> dict[tuple[int, str, str], Preview]:
    """Return the most common items as a person sees them, of a source with random access."""
    seen: dict[tuple[int, str, str], Preview] = {}
    wanted = {one.key for repeats in facts.repeats.values() for one in repeats.most}
    rows = {key: row for key, row in zip(found.keys, found.rows, strict=True) if key in wanted and row >= 0}
    for name, repeats in facts.repeats.items():
        for one in repeats.most:
            if one.text or one.key not in rows:
                continue
            assert isinstance(supply.source, MapSource)
            try:
                item = modalities[name].open(supply.source[rows[one.key]].items[name])
                seen[position, name, one.key] = modalities[name].preview(item)
            except Exception:  # noqa: BLE001 - it was read but not decoded before; the page then shows its key
                continue
    return seen


def _plain(value: Any) -> Any:
    """Return what JSON has types for."""
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value
