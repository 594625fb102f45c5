"""Embed whole sources: every item becomes a vector, with its key, group and what a person sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from multimodal_ssl.binder import Binder, evaluating, to_device
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
        previews: [N]; empty if not asked for.
        traits, metadata: [N]; empty if not asked for.
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
    encoders = {name: binder.encoder(name) for supply in supplies for name in supply.names}
    feed = Feed(supplies, encoders, binder.modalities, previews=previews, traits=traits)
    device = next(binder.parameters()).device
    found = {name: Embedded(np.empty((0, binder.dim), np.float32)) for name in encoders}
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in encoders}
    unreadable: list[tuple[str, str]] = []
    lengths = [len(supply.source) if isinstance(supply.source, MapSource) else None for supply in supplies]
    total = None if None in lengths else sum(length for length in lengths if length is not None)
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with torch.inference_mode(), evaluating(binder), bar:
        task = bar.add_task("embedding", total=total)
        for one in batches(feed, ordered_tickets(supplies, batch=batch), workers=workers):
            unreadable += one.unreadable
            views = binder({name: to_device(inputs, device) for name, inputs in one.inputs.items()})
            for name, view in views.items():
                made = view.cpu().numpy()
                is_unit = np.abs(np.linalg.norm(made, axis=1) - 1) < 1e-3  # not so of NaN
                good = np.flatnonzero(is_unit)
                unreadable += [(one.keys[i], f"its {name} has no finite vector") for i in np.flatnonzero(~is_unit)]
                vectors[name].append(made[good])
                found[name].keys += [one.keys[i] for i in good]
                found[name].groups += [one.groups[i] for i in good]
                found[name].previews += [one.previews[name][i] for i in good if previews]
                found[name].traits += [one.traits[name][i] for i in good if traits]
                found[name].metadata += [one.metadata[i] for i in good if traits]
            bar.advance(task, len(one.keys) + len(one.unreadable))
    for position, supply in enumerate(supplies):
        unreadable += [(full_key(supplies, position, key), reason) for key, reason in supply.source.skipped]
    for name, parts in vectors.items():
        if not sum(map(len, parts)):
            raise InputError(f"no {name} could be read ({_first(unreadable) or 'the sources hold none'})")
        found[name].vectors = np.concatenate(parts)
    if unreadable:
        console.print(f"warning: {len(unreadable):,} could not be read, e.g. {_first(unreadable)}", markup=False)
    return found, unreadable


def _first(unreadable: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{key}: {reason}" for key, reason in unreadable[:3])
