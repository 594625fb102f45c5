"""Embed whole sources: every item becomes a vector, with its key, group and what a person sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from multimodal_ssl.binder import Binder, to_device
from multimodal_ssl.data import Feed, Supply, batches
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
    """

    vectors: NDArray[np.float32]
    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)


def embed(
    binder: Binder, supplies: Sequence[Supply], *, batch: int = 256, workers: int = 0, previews: bool = False
) -> tuple[dict[str, Embedded], list[tuple[str, str]]]:
    """Return what the supplies hold, by name of the items, and key and reason of each sample that can't be read.

    With several supplies a key begins with the position of its own, e.g. "1/cat.png".
    """
    encoders = {name: binder.encoder(name) for supply in supplies for name in supply.names}
    feed = Feed(supplies, encoders, binder.modalities, previews=previews)
    device = next(binder.parameters()).device
    found = {name: Embedded(np.empty((0, binder.dim), np.float32)) for name in encoders}
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in encoders}
    unreadable: list[tuple[str, str]] = []
    was_training = binder.training
    binder.eval()
    lengths = [len(supply.source) if isinstance(supply.source, MapSource) else None for supply in supplies]
    total = None if None in lengths else sum(length for length in lengths if length is not None)
    console = Console(stderr=True)
    with torch.inference_mode(), Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=total)
        for one in batches(feed, ordered_tickets(supplies, batch=batch), workers=workers):
            unreadable += one.unreadable
            prefix = f"{one.supply}/" if len(supplies) > 1 else ""
            if one.keys:
                views = binder({name: to_device(inputs, device) for name, inputs in one.inputs.items()})
                for name, view in views.items():
                    vectors[name].append(view.cpu().numpy())
                    found[name].keys += [prefix + key for key in one.keys]
                    found[name].groups += one.groups
                    found[name].previews += one.previews.get(name, [])
            bar.advance(task, len(one.keys) + len(one.unreadable))
    binder.train(was_training)
    for name, parts in vectors.items():
        if not parts:
            raise InputError(f"no {name} could be read: {unreadable[:1] or 'the sources hold none'}")
        found[name].vectors = np.concatenate(parts)
    return found, unreadable
