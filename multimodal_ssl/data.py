"""The data engine: samples are read, prepared and collated into batches, in workers.

What a batch holds is told by a Ticket (see plan.py). Augmentation is a function of the seed, the step and the place in
the batch alone, however many workers and processes there are.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multimodal_ssl.digests import digest
from multimodal_ssl.errors import UnreadableError
from multimodal_ssl.stream_order import Cursor
from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality, PairingSource, Preview, Sample

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Supply:
    """A source, the names of its items that are used, and its share of the batches."""

    source: PairingSource
    names: tuple[str, ...]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one batch is to hold.

    Attributes:
        step: the step of training; part of the seed of each augmentation.
        supply: position of the supply.
        names: the items that every sample of the batch has.
        rows: positions in a MapSource, or samples of any other source.
        slots: the place of each row in the batch of all processes; part of the seed of each augmentation.
        cursor: where a source without random access stands after it.
    """

    step: int
    supply: int
    names: tuple[str, ...]
    rows: Sequence[int | Sample]
    slots: Sequence[int]
    cursor: Cursor | None = None


@dataclass(slots=True)
class Batch:
    """Collated samples of one supply with one set of items.

    Attributes:
        supply: position of the supply.
        keys: of the samples; with several supplies a key begins with the position of its own, e.g. "1/cat.png".
        groups: of the samples; one without a group has one of its own.
        inputs: name -> what its encoder takes; empty if no sample could be read.
        unreadable: key and reason of the samples that could not be read.
        previews: name -> what a person sees of each sample; only if asked for.
        traits: name -> what is told of each item; only if asked for.
        metadata: of the samples.
        cursor: that of the ticket.
    """

    supply: int
    keys: list[str]
    groups: list[str]
    weight: Tensor
    inputs: dict[str, Inputs]
    unreadable: list[tuple[str, str]]
    previews: dict[str, list[Preview]]
    traits: dict[str, list[Traits]]
    metadata: list[Mapping[str, str | float | None]]
    cursor: Cursor | None

    @property
    def group(self) -> Tensor:
        """The groups as numbers [B] (int64), equal where the groups are."""
        return torch.from_numpy(hash64(self.groups))

    @property
    def kind(self) -> int:
        """A number that batches of the same supply and the same items have in common."""
        return int(hash64([f"{self.supply} {sorted(self.inputs)}"])[0])

    def pin_memory(self) -> Batch:
        """Return it in memory from which a GPU copies while training goes on; DataLoader asks for it, in a thread."""
        return replace(self, weight=self.weight.pin_memory(), inputs={k: _pin(one) for k, one in self.inputs.items()})


def hash64(names: Iterable[str]) -> NDArray[np.int64]:
    """Return 64-bit hashes of groups or keys: the same in every process and run."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(bytearray().join(digests), dtype=np.int64)


def number_groups(groups: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each group [N], equal where the groups are; "" is a group of its own."""
    numbers = hash64(groups).copy()
    alone = np.array([not group for group in groups], bool)
    numbers[alone] = -1 - np.flatnonzero(alone)
    return numbers


def draw(names: Iterable[str]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each name, as if drawn at random: the same in every process and run."""
    return (hash64(names).astype(np.uint64) >> np.uint64(11)).astype(np.float64) / (1 << 53)


class Traits(NamedTuple):
    """What is told of one item: the digest of what its encoder takes, and what its encoder counts of it."""

    digest: int
    tally: Mapping[str, int]


def attempt(source: MapSource) -> Iterator[tuple[int, Sample | UnreadableError]]:
    """Yield each row with its sample, or with why it can't be read, whatever the source raises."""
    for row in range(len(source)):
        try:
            yield row, source[row]
        except UnreadableError as error:
            yield row, error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is recorded and left out
            yield row, UnreadableError(f"row {row}", f"{type(error).__name__}: {error}")


def readable(source: PairingSource) -> Iterator[Sample]:
    """Yield the samples of a source that can be read."""
    if isinstance(source, MapSource):
        yield from (one for _, one in attempt(source) if isinstance(one, Sample))
    else:
        yield from source


class Feed(Dataset[Batch]):
    """Reads, prepares and collates the batch of a ticket; runs in a worker.

    Args:
        seed: of the augmentation; None prepares without any.
    """

    def __init__(
        self,
        supplies: Sequence[Supply],
        encoders: Mapping[str, Encoder],
        modalities: Mapping[str, Modality],
        *,
        seed: int | None = None,
        previews: bool = False,
        traits: bool = False,
    ) -> None:
        self.supplies, self.encoders, self.modalities = supplies, encoders, modalities
        self.seed, self.previews, self.traits = seed, previews, traits

    def __getitem__(self, ticket: Ticket) -> Batch:
        return self._at_once(ticket) or self._one_by_one(ticket)

    def _at_once(self, ticket: Ticket) -> Batch | None:
        """Return a batch whose items lie ready in arrays; None where they don't, or one of them is wrong."""
        source, rows = self.supplies[ticket.supply].source, [row for row in ticket.rows if isinstance(row, int)]
        if not isinstance(source, MapSource) or not rows or self.previews or self.traits:
            return None
        found = source.columns(rows, ticket.names)
        if not found or not all(0 < weight <= 1 for weight in found.weights):
            return None
        inputs: dict[str, Inputs] = {}
        for place, name in enumerate(ticket.names):
            rng = None if self.seed is None else np.random.default_rng((self.seed, ticket.step, place))
            inputs[name] = self.encoders[name].prepare_rows(found.items[name], ticket.slots, rng)
        if any(one is None for one in inputs.values()):
            return None
        keys = [full_key(self.supplies, ticket.supply, key) for key in found.keys]
        groups = [group or f"{ticket.supply}/{key}" for group, key in zip(found.groups, found.keys, strict=True)]
        weight = torch.tensor(found.weights, dtype=torch.float32)
        return Batch(ticket.supply, keys, groups, weight, inputs, [], {}, {}, list(found.metadata), ticket.cursor)

    def _one_by_one(self, ticket: Ticket) -> Batch:
        previews: dict[str, list[Preview]] = {name: [] for name in ticket.names if self.previews}
        traits: dict[str, list[Traits]] = {name: [] for name in ticket.names if self.traits}
        batch = Batch(ticket.supply, [], [], torch.empty(0), {}, [], previews, traits, [], ticket.cursor)
        prepared: dict[str, list[Inputs]] = {name: [] for name in ticket.names}
        weights: list[float] = []
        for slot, row in zip(ticket.slots, ticket.rows, strict=True):
            key = f"row {row}" if isinstance(row, int) else row.key
            sample: Sample | None = None
            try:
                sample = read_sample(self.supplies[ticket.supply], row)
                key = sample.key
                items = {name: self.modalities[name].open(sample.items[name]) for name in ticket.names}
                rng = None if self.seed is None else np.random.default_rng((self.seed, ticket.step, slot))
                ready = {name: self.encoders[name].prepare(item, rng) for name, item in items.items()}
                seen = previews_of(sample, items, self.modalities) if self.previews else {}
                known = {name: self._traits(name, one) for name, one in ready.items()} if self.traits else {}
            except UnreadableError as error:  # if it is an item of the sample, its key may be that of a part
                told = key if sample else error.key
                batch.unreadable.append((full_key(self.supplies, ticket.supply, told), error.reason))
                continue
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is recorded and left out
                batch.unreadable.append(
                    (full_key(self.supplies, ticket.supply, key), f"{type(error).__name__}: {error}")
                )
                continue
            batch.keys.append(full_key(self.supplies, ticket.supply, key))
            batch.groups.append(sample.group or f"{ticket.supply}/{key}")
            weights.append(sample.weight)
            for name in ticket.names:
                prepared[name].append(ready[name])
            for name, preview in seen.items():
                previews[name].append(preview)
            for name, trait in known.items():
                traits[name].append(trait)
            batch.metadata.append(sample.metadata)
        if batch.keys:
            batch.inputs = {name: self.encoders[name].collate(items) for name, items in prepared.items()}
        batch.weight = torch.tensor(weights, dtype=torch.float32)
        return batch

    def _traits(self, name: str, ready: Inputs) -> Traits:
        return Traits(digest(ready), self.encoders[name].tally(self.encoders[name].collate([ready])))


def read_sample(supply: Supply, row: int | Sample) -> Sample:
    """Return the sample of a row; one of a stream is given itself. Raises UnreadableError for a weight that is none."""
    if isinstance(row, Sample):
        sample = row
    else:
        assert isinstance(supply.source, MapSource)
        sample = supply.source[row]
    if not 0 < sample.weight <= 1:
        raise UnreadableError(sample.key, f"its weight is {sample.weight}, not in (0, 1]")
    return sample


def full_key(supplies: Sequence[Supply], supply: int, key: str) -> str:
    """Return the key of a sample as all supplies together know it."""
    return f"{supply}/{key}" if len(supplies) > 1 else key


def previews_of(sample: Sample, items: Mapping[str, Any], modalities: Mapping[str, Modality]) -> dict[str, Preview]:
    """Return what a person sees of the raw items of a sample, by name."""
    seen = {name: modalities[name].preview(item) for name, item in items.items()}
    for name, preview in seen.items():
        path = sample.items[name]
        texts = [other.text for key, other in seen.items() if key != name and other.text]
        seen[name] = replace(
            preview, path=str(path) if isinstance(path, Path) else None, caption=", ".join(texts) or None
        )
    return seen


class _Once(Iterable[Ticket]):
    """An iterable of tickets for a DataLoader's sampler."""

    def __init__(self, tickets: Iterator[Ticket]) -> None:
        self.tickets = tickets

    def __iter__(self) -> Iterator[Ticket]:
        return self.tickets


def _pin(inputs: Inputs) -> Inputs:
    if isinstance(inputs, dict):
        return {name: tensor.pin_memory() for name, tensor in inputs.items()}
    return inputs.pin_memory() if isinstance(inputs, Tensor) else inputs  # not what an encoder takes: left as it is


def _same(value: Any) -> Any:
    return value


def _end_with_reader(_: int) -> None:
    """Let a worker end with the process that it works for, however that ends.

    Torch watches the parent, which is a fork server where that is how processes are started (Python 3.14): it stays.
    """
    reader = multiprocessing.parent_process()
    assert reader, "a worker was started by another process"

    def watch() -> None:
        wait([reader.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def batches(feed: Dataset[Read], tickets: Iterator[Ticket], *, workers: int) -> Iterator[Read]:
    """Yield what a feed, or its like, makes of tickets in their order, in so many worker processes (0: in this one)."""
    loader = DataLoader(
        feed,
        sampler=_Once(tickets),
        batch_size=None,
        num_workers=workers,
        collate_fn=_same,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_end_with_reader,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def raw_items(supplies: Sequence[Supply], names: Sequence[str], modality: Modality, limit: int) -> Iterator[Any]:
    """Yield up to limit raw items of these names, evenly from all supplies and spread over a MapSource."""
    users = [supply for supply in supplies if set(names) & set(supply.names)]
    for supply in users:
        share = limit // len(users)
        source = supply.source
        if isinstance(source, MapSource):
            rows = np.unique(np.linspace(0, len(source) - 1, num=min(share, len(source)), dtype=np.int64))
            reads = (functools.partial(source.__getitem__, int(row)) for row in rows)
        else:
            reads = (functools.partial(_same, sample) for sample in itertools.islice(source, share))
        for read in reads:
            try:
                sample = read()
                items = [modality.open(sample.items[name]) for name in names if name in sample.items]
            except Exception:  # noqa: BLE001 - training records it when it comes to it
                continue
            yield from items
