"""Embed whole sources: every item becomes a vector, with its key, group and what a person sees of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from multimodal_ssl.binder import Binder, evaluating, on_gpu, to_device
from multimodal_ssl.data import Feed, Supply, Traits, batches, full_key
from multimodal_ssl.errors import InputError
from multimodal_ssl.plan import ordered_tickets
from multimodal_ssl.types import MapSource, Preview


@dataclass(slots=True)
class Embedded:
    """The items of one modality.

    Attributes:
        vectors: unit vectors [N, D].
        keys, groups: [N].
        previews, traits: [N]; empty if not asked for.
        metadata: [N]; may be empty.
    """

    vectors: NDArray[np.float32]
    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)
    traits: list[Traits] = field(default_factory=list)
    metadata: list[Mapping[str, str | float | None]] = field(default_factory=list)


def embed(
    binder: Binder,
    supplies: Sequence[Supply],
    *,
    batch: int = 256,
    workers: int = 0,
    previews: bool = False,
    traits: bool = False,
) -> tuple[dict[str, Embedded], list[tuple[str, str]]]:
    """Return what the supplies hold, by name of the items, and key and reason of each item that can't be embedded.

    With several supplies a key begins with the position of its own, e.g. "1/cat.png".
    """
    names = dict.fromkeys(name for supply in supplies for name in supply.names if name not in binder.teachers)
    parts: dict[str, list[Embedded]] = {name: [] for name in names}
    unreadable: list[tuple[str, str]] = []
    for made, lost in embedded(binder, supplies, batch=batch, workers=workers, previews=previews, traits=traits):
        unreadable += lost
        for name, items in made.items():
            parts[name].append(items)
    found = {name: joined(some) for name, some in parts.items() if some}
    for name in parts:
        if not found.get(name) or not found[name].keys:
            raise InputError(f"no {name} could be read ({_first(unreadable) or 'the sources hold none'})")
    return found, unreadable


def embedded(
    binder: Binder,
    supplies: Sequence[Supply],
    *,
    start: int = 0,
    batch: int = 256,
    workers: int = 0,
    previews: bool = False,
    traits: bool = False,
) -> Iterator[tuple[dict[str, Embedded], list[tuple[str, str]]]]:
    """Yield for each batch from the `start`-th on what `embed` returns of all; the last one holds no items.

    Equal supplies give equal batches, so that what was stopped can go on.
    """
    supplies = [
        replace(one, names=tuple(name for name in one.names if name not in binder.teachers)) for one in supplies
    ]
    encoders = {name: binder.encoder(name) for supply in supplies for name in supply.names}
    feed = Feed(supplies, encoders, binder.modalities, previews=previews, traits=traits)
    lengths = [len(supply.source) if isinstance(supply.source, MapSource) else None for supply in supplies]
    total = None if None in lengths else sum(length for length in lengths if length is not None)
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    every: list[tuple[str, str]] = []
    tickets = itertools.islice(ordered_tickets(supplies, batch=batch), start, None)
    with torch.inference_mode(), evaluating(binder), on_gpu(binder) as device, bar:
        task = bar.add_task("embedding", total=total, completed=start * batch)
        for one in batches(feed, tickets, workers=workers):
            unreadable = list(one.unreadable)
            views = binder({name: to_device(inputs, device) for name, inputs in one.inputs.items()})
            found = {}
            for name, view in views.items():
                made = view.cpu().numpy()
                is_unit = np.abs(np.linalg.norm(made, axis=1) - 1) < 1e-3  # not so of NaN
                good = np.flatnonzero(is_unit)
                unreadable += [(one.keys[i], f"its {name} has no finite vector") for i in np.flatnonzero(~is_unit)]
                found[name] = Embedded(
                    made[good],
                    [one.keys[i] for i in good],
                    [one.groups[i] for i in good],
                    [one.previews[name][i] for i in good if previews],
                    [one.traits[name][i] for i in good if traits],
                    [one.metadata[i] for i in good],
                )
            every += unreadable
            yield found, unreadable
            bar.advance(task, len(one.keys) + len(one.unreadable))
    skipped = [
        (full_key(supplies, position, key), reason)
        for position, supply in enumerate(supplies)
        for key, reason in supply.source.skipped
    ]
    if every or skipped:
        some = _first(every + skipped)
        console.print(f"warning: {len(every + skipped):,} could not be read, e.g. {some}", markup=False)
    yield {}, skipped


def joined(parts: Sequence[Embedded]) -> Embedded:
    """Return several Embedded, one at least, as one."""
    lists = (
        [one for part in parts for one in getattr(part, name)]
        for name in ("keys", "groups", "previews", "traits", "metadata")
    )
    return Embedded(np.concatenate([part.vectors for part in parts]), *lists)


def _first(unreadable: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{key}: {reason}" for key, reason in unreadable[:3])
