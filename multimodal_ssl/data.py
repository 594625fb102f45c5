"""The data engine: which samples, in which order, read, prepared and collated.

The order and every augmentation are functions of the seed and the step alone, however many workers and processes there
are. So a run resumes at any step without any state of the data.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multimodal_ssl.errors import InputError, UnreadableError
from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality, PairingSource, Preview, Sample

STREAM_BUFFER = 4096  # samples held to shuffle a source without random access


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
    """

    step: int
    supply: int
    names: tuple[str, ...]
    rows: Sequence[int | Sample]
    slots: Sequence[int]


@dataclass(slots=True)
class Batch:
    """Collated samples of one supply with one set of items.

    Attributes:
        supply: position of the supply.
        inputs: name -> what its encoder takes; empty if no sample could be read.
        unreadable: key and reason of the samples that could not be read.
        previews: name -> what a person sees of each sample; only if asked for.
    """

    supply: int
    keys: list[str]
    groups: list[str]
    weight: Tensor
    inputs: dict[str, Inputs]
    unreadable: list[tuple[str, str]]
    previews: dict[str, list[Preview]]

    @property
    def group(self) -> Tensor:
        """The groups as numbers [B] (int64), equal where the groups are."""
        return torch.from_numpy(group_ids(self.groups))


def group_ids(groups: Iterable[str]) -> NDArray[np.int64]:
    """Return 64-bit hashes of groups: the same in every process and run."""
    digests = (hashlib.blake2b(group.encode(), digest_size=8).digest() for group in groups)
    return np.frombuffer(bytearray().join(digests), dtype=np.int64)


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
    ) -> None:
        self.supplies, self.encoders, self.modalities = supplies, encoders, modalities
        self.seed, self.previews = seed, previews

    def __getitem__(self, ticket: Ticket) -> Batch:
        previews: dict[str, list[Preview]] = {name: [] for name in ticket.names if self.previews}
        batch = Batch(ticket.supply, [], [], torch.empty(0), {}, [], previews)
        prepared: dict[str, list[Inputs]] = {name: [] for name in ticket.names}
        weights: list[float] = []
        for slot, row in zip(ticket.slots, ticket.rows, strict=True):
            key = f"row {row}" if isinstance(row, int) else row.key
            try:
                sample = self._read(ticket.supply, row)
                key = sample.key
                items = {name: self.modalities[name].load(sample.items[name]) for name in ticket.names}
                rng = None if self.seed is None else np.random.default_rng((self.seed, ticket.step, slot))
                ready = {name: self.encoders[name].prepare(item, rng) for name, item in items.items()}
                seen = {name: self.modalities[name].preview(item) for name, item in items.items() if self.previews}
            except UnreadableError as error:
                batch.unreadable.append((error.key, error.reason))
                continue
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is recorded and left out
                batch.unreadable.append((key, f"{type(error).__name__}: {error}"))
                continue
            batch.keys.append(key)
            batch.groups.append(sample.group or f"{ticket.supply}/{key}")
            weights.append(sample.weight)
            for name in ticket.names:
                prepared[name].append(ready[name])
            for name, preview in seen.items():
                previews[name].append(preview)
        if batch.keys:
            batch.inputs = {name: self.encoders[name].collate(items) for name, items in prepared.items()}
        batch.weight = torch.tensor(weights, dtype=torch.float32)
        return batch

    def _read(self, supply: int, row: int | Sample) -> Sample:
        source = self.supplies[supply].source
        if isinstance(row, Sample):
            return row
        assert isinstance(source, MapSource)
        return source[row]


class MapOrder:
    """The batches of a MapSource: the n-th is a function of the seed and n.

    Samples are grouped by the items that they have, and each epoch shuffles within these kinds and among the batches.
    The remainder of a kind that fills no batch is another one in each epoch.
    """

    def __init__(self, source: MapSource, names: Sequence[str], *, batch: int, seed: Sequence[int]) -> None:
        kinds = {kind: rows for kind, rows in _kinds(source, names).items() if len(kind) >= 2}
        usable = sum(map(len, kinds.values()))
        if usable < batch:
            raise InputError(
                f"a batch of {batch} is larger than the data: the source has {len(source)} samples, "
                f"{usable} of them with two or more of {', '.join(names)}; lower train.batch or add data"
            )
        self.kinds, self.seed, self.batch = kinds, tuple(seed), batch
        self.batches = {kind: max(1, len(rows) // batch) for kind, rows in kinds.items()}
        self.per_epoch = sum(self.batches.values())
        self._epoch = -1
        self._plan: list[tuple[tuple[str, ...], list[int]]] = []

    def __getitem__(self, n: int) -> tuple[tuple[str, ...], list[int]]:
        epoch, position = divmod(n, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._shuffle(np.random.default_rng((*self.seed, epoch)))
        return self._plan[position]

    def _shuffle(self, rng: np.random.Generator) -> list[tuple[tuple[str, ...], list[int]]]:
        plan: list[tuple[tuple[str, ...], list[int]]] = []
        for kind, count in self.batches.items():
            rows = rng.permutation(self.kinds[kind])
            plan += [(kind, rows[i * self.batch : (i + 1) * self.batch].tolist()) for i in range(count)]
        return [plan[i] for i in rng.permutation(len(plan))]


def _kinds(source: MapSource, names: Sequence[str]) -> dict[tuple[str, ...], NDArray[np.int64]]:
    """Return the positions of the samples by the items that they have."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in range(len(source)):
        present = source.present(index)
        found[tuple(name for name in names if name in present)].append(index)
    return {kind: np.array(found[kind], np.int64) for kind in sorted(found) if kind}


def _stream(source: PairingSource, names: Sequence[str], *, batch: int, seed: Sequence[int]) -> Iterator[Any]:
    """Yield (names, samples) of a source without random access, shuffled through a buffer, epoch after epoch."""
    for epoch in itertools.count():
        pending: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
        empty = True
        for sample in _shuffled(source, np.random.default_rng((*seed, epoch))):
            kind = tuple(name for name in names if name in sample.items)
            pending[kind].append(sample)
            if len(kind) >= 2 and len(pending[kind]) == batch:
                yield kind, pending.pop(kind)
                empty = False
        if empty:
            raise InputError(f"a batch of {batch} is larger than the data of a source; lower train.batch or add data")


def _shuffled(source: PairingSource, rng: np.random.Generator) -> Iterator[Sample]:
    held: list[Sample] = []
    for sample in source:
        if len(held) < STREAM_BUFFER:
            held.append(sample)
        else:
            place = int(rng.integers(STREAM_BUFFER))
            yield held[place]
            held[place] = sample
    yield from (held[i] for i in rng.permutation(len(held)))


class Plan:
    """What every step of training reads: a function of the seed and the step.

    Supplies take turns by their shares: at each step the one that is furthest behind. Raises InputError if a supply
    can't fill a batch.
    """

    def __init__(self, supplies: Sequence[Supply], *, batch: int, seed: int) -> None:
        self.supplies, self.batch, self.seed = supplies, batch, seed
        self._orders = {
            position: MapOrder(one.source, one.names, batch=batch, seed=(seed, position))
            for position, one in enumerate(supplies)
            if isinstance(one.source, MapSource)
        }
        self._shares = np.array([one.share for one in supplies]) / sum(one.share for one in supplies)

    def tickets(self, *, start: int, stop: int, rank: int = 0, world: int = 1) -> Iterator[Ticket]:
        """Yield the tickets of the steps from start to stop, each process its part of each batch."""
        streams = {
            position: _stream(one.source, one.names, batch=self.batch, seed=(self.seed, position))
            for position, one in enumerate(self.supplies)
            if position not in self._orders
        }
        drawn = np.zeros(len(self.supplies), np.int64)
        for step in range(stop):
            turn = int(np.argmax(self._shares * (step + 1) - drawn))
            if turn in streams:
                names, rows = next(streams[turn])  # a stream can't be entered in the middle
            elif step >= start:
                names, rows = self._orders[turn][int(drawn[turn])]
            drawn[turn] += 1
            if step >= start:
                yield Ticket(step, turn, names, rows[rank::world], range(rank, len(rows), world))


def ordered_tickets(supplies: Sequence[Supply], *, batch: int) -> Iterator[Ticket]:
    """Yield tickets that go once through every sample with at least one of the items."""
    for position, supply in enumerate(supplies):
        if isinstance(supply.source, MapSource):
            for names, rows in _kinds(supply.source, supply.names).items():
                for start in range(0, len(rows), batch):
                    part = rows[start : start + batch].tolist()
                    yield Ticket(0, position, names, part, range(len(part)))
        else:
            pending: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
            for sample in supply.source:
                names = tuple(name for name in supply.names if name in sample.items)
                pending[names].append(sample)
                if len(pending[names]) == batch:
                    yield Ticket(0, position, names, pending.pop(names), range(batch))
            for names, samples in pending.items():
                if names:
                    yield Ticket(0, position, names, samples, range(len(samples)))


class _Once(Iterable[Ticket]):
    """An iterable of tickets for a DataLoader's sampler."""

    def __init__(self, tickets: Iterator[Ticket]) -> None:
        self.tickets = tickets

    def __iter__(self) -> Iterator[Ticket]:
        return self.tickets


def _as_it_is(batch: Any) -> Any:
    return batch


def batches(feed: Feed, tickets: Iterator[Ticket], *, workers: int) -> Iterator[Batch]:
    """Yield the batches of tickets in their order, read by so many worker processes (0: by this one)."""
    loader = DataLoader(
        feed,
        sampler=_Once(tickets),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def count_samples(supplies: Sequence[Supply]) -> int:
    """Return how many samples one pass over all supplies has; raise InputError if a source can't tell."""
    for supply in supplies:
        if not isinstance(supply.source, MapSource):
            raise InputError(f"{type(supply.source).__name__} does not know its length: give train.steps, not epochs")
    return sum(len(supply.source) for supply in supplies if isinstance(supply.source, MapSource))


def raw_items(supplies: Sequence[Supply], names: Sequence[str], modality: Modality, limit: int) -> Iterator[Any]:
    """Yield up to limit raw items of these names, evenly from all supplies and spread over a MapSource."""
    users = [supply for supply in supplies if set(names) & set(supply.names)]
    for supply in users:
        share = limit // len(users)
        source = supply.source
        if isinstance(source, MapSource):
            rows = np.unique(np.linspace(0, len(source) - 1, num=min(share, len(source)), dtype=np.int64))
            samples = _readable(source, rows)
        else:
            samples = itertools.islice(source, share)
        for sample in samples:
            for name in names:
                if name in sample.items:
                    try:
                        yield modality.load(sample.items[name])
                    except (OSError, ValueError):
                        continue  # training records it when it comes to it


def _readable(source: MapSource, rows: Iterable[int]) -> Iterator[Sample]:
    for row in rows:
        try:
            yield source[int(row)]
        except UnreadableError:
            continue
