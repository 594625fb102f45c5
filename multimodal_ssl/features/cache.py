"""Frozen encoders run once: their features come from the cache, and what is missing there is computed into it.

A feature is kept by what its encoder is (its options, weights and learnt preparation), what the item holds, and which
view of it was taken: so runs, sources and samples share it, and nothing stale is ever read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import Dataset

from multimodal_ssl.binder import Binder, evaluating, fingerprint_of, to_device
from multimodal_ssl.data import Supply, Ticket, batches, read_sample
from multimodal_ssl.digests import digest, item_key
from multimodal_ssl.errors import InputError, UnreadableError
from multimodal_ssl.features.source import FeatureSource, Known
from multimodal_ssl.features.store import FeatureStore, default_folder
from multimodal_ssl.features.token_vectors import TOKENS, Tokens
from multimodal_ssl.features.vectors import VECTOR, Vectors
from multimodal_ssl.layers import TokenHead
from multimodal_ssl.plan import ordered_tickets
from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality

BATCH = 128  # views that are prepared and encoded at once


class Seen(NamedTuple):
    """A sample that could be read; `row` is its place in a source with random access, else -1."""

    key: str
    group: str
    weight: float
    row: int
    names: tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What a worker found of the samples of a ticket.

    Attributes:
        keys: name -> the keys of its views, for each sample that has it.
        missing: name and whether they are augmented -> keys of the views that the cache lacks.
        inputs: likewise these views, as the encoder takes them; a tensor for each item would need a file each.
        unreadable: key and reason.
    """

    samples: list[Seen]
    keys: dict[str, list[list[int]]]
    missing: dict[tuple[str, bool], list[int]]
    inputs: dict[tuple[str, bool], Inputs]
    unreadable: list[tuple[str, str]]


class Look(Dataset[Found]):
    """Reads the samples of a ticket and prepares what the cache lacks; runs in a worker."""

    def __init__(
        self,
        supplies: Sequence[Supply],
        encoders: Mapping[str, Encoder],
        modalities: Mapping[str, Modality],
        stores: Mapping[str, FeatureStore],
        views: Mapping[str, int],
    ) -> None:
        self.supplies, self.encoders, self.modalities = supplies, encoders, modalities
        self.stores, self.views = stores, views

    def __getitem__(self, ticket: Ticket) -> Found:
        names = [name for name in ticket.names if name in self.stores]
        found = Found([], {name: [] for name in names}, {}, {}, [])
        prepared: dict[tuple[str, bool], dict[int, Inputs]] = {}
        for row in ticket.rows:
            key = f"row {row}" if isinstance(row, int) else row.key
            sample = None
            try:
                sample = read_sample(self.supplies[ticket.supply], row)
                key = sample.key
                views = {name: self._views(name, sample.items[name]) for name in names}
            except UnreadableError as error:
                found.unreadable.append((key if sample else error.key, error.reason))
                continue
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is recorded and left out
                found.unreadable.append((key, f"{type(error).__name__}: {error}"))
                continue
            place = row if isinstance(row, int) else -1
            found.samples.append(Seen(key, sample.group, sample.weight, place, ticket.names))
            for name, (keys, new) in views.items():
                found.keys[name].append(keys)
                for one, inputs in new.items():  # an augmented view may have another shape
                    prepared.setdefault((name, one != keys[0]), {})[one] = inputs
        for kind, ready in prepared.items():
            found.missing[kind] = list(ready)
            found.inputs[kind] = self.encoders[kind[0]].collate(list(ready.values()))
        return found

    def _views(self, name: str, item: Any) -> tuple[list[int], dict[int, Inputs]]:
        """Return the keys of the views of an item, and those that are not in the cache, prepared."""
        encoder, modality = self.encoders[name], self.modalities[name]
        try:
            own = item_key(item, modality.name)
        except TypeError:  # a raw item of a kind that has no digest of its own: its prepared tensors have
            own = digest(encoder.prepare(modality.open(item))) or 1
        keys = [view_key(own, view) for view in range(self.views[name])]
        missing = np.flatnonzero(self.stores[name].find(np.array(keys, np.int64)) < 0).tolist()
        raw = modality.open(item) if missing else None
        return keys, {keys[view]: encoder.prepare(raw, view_rng(own, view)) for view in missing}


def view_key(key: int, view: int) -> int:
    """Return the key of a view of an item: 0 is the item as it is, the others are augmented."""
    return key if view == 0 else digest(f"{key} {view}") or 1


def view_rng(key: int, view: int) -> np.random.Generator | None:
    """Return what a view is augmented with, by the item and the view alone."""
    return None if view == 0 else np.random.default_rng((key % 2**64, view))


def can_cache(supply: Supply, views: Mapping[str, int]) -> bool:
    """Tell whether the features of a supply's items can be cached: of all of them, or it has random access."""
    return isinstance(supply.source, MapSource) or {name in views for name in supply.names} in ({True}, {False})


def cached(
    binder: Binder,
    supplies: Sequence[Supply],
    views: Mapping[str, int],
    *,
    folder: Path | None,
    workers: int = 0,
    max_unreadable: float = 1.0,
) -> tuple[Binder, list[Supply]]:
    """Return a Binder that takes the features of encoders, with the same heads, and supplies that give them.

    Features that the cache lacks are computed into it. Raises InputError where a source without random access has
    items that are not cached beside ones that are, or where too large a share of samples can't be read.

    Args:
        views: name of the items -> number of views, of each encoder whose features are to be cached.
        folder: of the cache; None is `default_folder`.
    """
    device = binder.device
    encoders = {name: binder.encoder(name) for name in views}
    stores = {name: open_store(binder, name, folder) for name in views}
    pooling = {name for name in views if isinstance(binder.heads[name], TokenHead)}
    modalities = {**binder.modalities, **{name: TOKENS if name in pooling else VECTOR for name in views}}
    taking: dict[str, Encoder] = {name: binder.encoder(name) for name in binder.encoders}
    taking |= {
        name: Tokens(encoder.token_width) if name in pooling else Vectors(encoder.width)
        for name, encoder in encoders.items()
    }
    made = []
    for position, supply in enumerate(supplies):
        names = tuple(name for name in supply.names if name in views)
        source = supply.source
        if not names:
            made.append(supply)
            continue
        if not can_cache(supply, views):
            others = [name for name in supply.names if name not in names]
            raise InputError(
                f"sources.{position} has no random access: the features of {', '.join(names)} can be cached only with "
                f"those of {', '.join(others)}; freeze and cache these too, or leave out cache"
            )
        known = compute(Look([supply], encoders, binder.modalities, stores, views), supply, workers, pooling)
        lost, total = len(known.unreadable), len(known.unreadable) + len(known.keys)
        if lost > max_unreadable * total:
            key, reason = known.unreadable[0]
            raise InputError(
                f"{lost} of {total} samples can't be read, train.max_unreadable is {max_unreadable}; e.g. {key}: "
                f"{reason}"
            )
        kinds = {name: source.modalities[name] for name in supply.names}
        features = FeatureSource(source, kinds, known, {name: stores[name] for name in names})
        made.append(replace(supply, source=features))
    binder.to(device)
    return binder.with_encoders(taking, modalities), made


def open_store(binder: Binder, name: str, folder: Path | None) -> FeatureStore:
    """Open what the cache has of an encoder."""
    encoder = binder.encoder(name)
    about = json.loads(binder.recipe)["encoders"][name]
    about = {what: about[what] for what in ("name", "options", "lora")}
    about["options"] = {option: _one_spelling(value) for option, value in about["options"].items()}
    about["preparation"] = binder.preparation.get(name)
    width = encoder.width
    if isinstance(binder.heads[name], TokenHead):
        about, width = about | {"tokens": True}, encoder.token_width
    fingerprint = fingerprint_of(json.dumps(about, sort_keys=True), encoder.state_dict())
    return FeatureStore((folder or default_folder()) / fingerprint[:32], width, about)


def _one_spelling(value: Any) -> Any:
    """Return an option of an encoder; of a path, however it is spelt, one form."""
    return str(Path(value).resolve()) if isinstance(value, str) and os.path.exists(value) else value


def compute(look: Look, supply: Supply, workers: int, pooling: Collection[str] = ()) -> Known:
    """Go through a supply once, compute into the cache what it lacks, and return what was seen.

    Args:
        pooling: names of the items of which tokens are kept, not features.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    done: dict[str, set[int]] = {name: set() for name in look.stores}
    samples: list[Seen] = []
    keys: dict[str, list[list[int]]] = {name: [] for name in look.stores}
    unreadable: list[tuple[str, str]] = []
    total = len(supply.source) if isinstance(supply.source, MapSource) else None
    console = Console(stderr=True)
    names = [name for name in supply.names if name in look.stores]
    batch = max(1, BATCH // max(look.views[name] for name in names))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar, torch.inference_mode():
        task = bar.add_task(f"features of {', '.join(names)}", total=total)
        for found in batches(look, ordered_tickets([supply], batch=batch), workers=workers):
            unreadable += found.unreadable
            samples += found.samples
            for name in keys:
                own = iter(found.keys.get(name, ()))
                keys[name] += [next(own) if name in one.names else [0] * look.views[name] for one in found.samples]
            for (name, augmented), inputs in found.inputs.items():
                missing = np.array(found.missing[name, augmented], np.int64)
                new = np.array([key not in done[name] for key in missing.tolist()])
                if new.any():
                    made = encode(look.encoders[name].to(device), to_device(inputs, device), tokens=name in pooling)
                    kept = [row for row, one in enumerate(made) if new[row] and len(one) and np.isfinite(one).all()]
                    if kept:
                        look.stores[name].append(missing[kept], [made[row] for row in kept])
                    done[name].update(missing.tolist())
            bar.advance(task, len(found.samples) + len(found.unreadable))
    kinds = {name: "tokens" if name in pooling else "vector" for name in names}
    return known_of(look, samples, keys, unreadable, kinds)


def encode(encoder: Encoder, inputs: Inputs, *, tokens: bool) -> list[NDArray[np.float32]]:
    """Return the features [1, F] of each item, or its real tokens [T, F]."""
    with evaluating(encoder):
        if not tokens:
            return list(encoder(inputs).float().cpu().numpy()[:, np.newaxis])
        found, mask = (one.cpu() for one in encoder.token_states(inputs))
    return [one[real].float().numpy() for one, real in zip(found, mask, strict=True)]


def known_of(
    look: Look,
    samples: Sequence[Seen],
    keys: Mapping[str, Sequence[Sequence[int]]],
    unreadable: Sequence[tuple[str, str]],
    kinds: Mapping[str, str],
) -> Known:
    """Return what was seen in the order of the source, without samples of which a feature is not finite."""
    lost: dict[int, str] = {}
    tables = {name: np.array(some, np.int64).reshape(len(samples), look.views[name]) for name, some in keys.items()}
    for name, table in tables.items():
        look.stores[name].refresh()
        absent = (look.stores[name].find(table.ravel()).reshape(table.shape) < 0).any(1) & (table[:, 0] != 0)
        lost |= {int(place): f"its {name} has no finite features" for place in np.flatnonzero(absent)}
    order = sorted((one for one in range(len(samples)) if one not in lost), key=lambda one: samples[one].row)
    return Known(
        keys=[samples[one].key for one in order],
        groups=[samples[one].group for one in order],
        weights=[samples[one].weight for one in order],
        rows=[samples[one].row for one in order],
        features={name: table[order] for name, table in tables.items()},
        kinds=kinds,
        present=[samples[one].names for one in order],
        unreadable=[*unreadable, *((samples[one].key, why) for one, why in lost.items())],
    )
