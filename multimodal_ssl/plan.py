"""Which samples each step reads: a function of the seed and the step alone, so that a run resumes without any state."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import Supply, Ticket
from multimodal_ssl.errors import InputError
from multimodal_ssl.types import MapSource, PairingSource, Sample

STREAM_BUFFER = 4096  # samples held to shuffle a source without random access


class Plan:
    """What every step of training reads: a function of the seed and the step.

    Supplies take turns by their shares: at each step the one that is furthest behind. Raises InputError if a supply
    can't fill a batch.

    Attributes:
        left_out: number of samples that no batch can hold, since too few others have two of their items.
    """

    def __init__(self, supplies: Sequence[Supply], *, batch: int, seed: int) -> None:
        self.supplies, self.batch, self.seed = supplies, batch, seed
        self._orders = {
            position: MapOrder(one.source, one.names, batch=batch, seed=(seed, position))
            for position, one in enumerate(supplies)
            if isinstance(one.source, MapSource)
        }
        self.left_out = sum(order.left_out for order in self._orders.values())
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
                if names:
                    pending[names].append(sample)
                if len(pending[names]) == batch:
                    yield Ticket(0, position, names, pending.pop(names), range(batch))
            for names, samples in pending.items():
                yield Ticket(0, position, names, samples, range(len(samples)))


class MapOrder:
    """The batches of a MapSource: the n-th is a function of the seed and n.

    Samples are grouped by the items that they have, and each epoch shuffles within these kinds and among the batches,
    which are all full: the remainder of a kind is another one in each epoch.
    """

    def __init__(self, source: MapSource, names: Sequence[str], *, batch: int, seed: Sequence[int]) -> None:
        found = {kind: rows for kind, rows in _kinds(source, names).items() if len(kind) >= 2}
        kinds, self.left_out = _fill(found, batch)
        if not kinds:
            raise InputError(
                f"a batch of {batch} is larger than the data: source {seed[-1]} has {len(source)} samples, "
                f"{sum(map(len, found.values()))} of them with two or more of {', '.join(names)}; "
                "lower train.batch or add data"
            )
        self.kinds, self.seed, self.batch = kinds, tuple(seed), batch
        self.batches = {kind: len(rows) // batch for kind, rows in kinds.items()}
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


def _fill(
    kinds: Mapping[tuple[str, ...], NDArray[np.int64]], batch: int
) -> tuple[dict[tuple[str, ...], NDArray[np.int64]], int]:
    """Return kinds of a batch or more, and how many samples are in none of them.

    A sample of a rarer kind gives up items: it joins the largest kind that it holds all of, or the commonest pair.
    """
    full = {kind: [rows] for kind, rows in kinds.items() if len(rows) >= batch}
    homeless: dict[tuple[str, ...], NDArray[np.int64]] = {}
    for kind, rows in kinds.items():
        if kind not in full:
            homes = [home for home in full if set(home) <= set(kind)]
            if homes:
                full[max(homes, key=lambda home: (len(home), len(kinds[home])))].append(rows)
            else:
                homeless[kind] = rows
    while homeless:
        pairs: Counter[tuple[str, ...]] = Counter()
        for kind, rows in homeless.items():
            pairs.update({pair: len(rows) for pair in itertools.combinations(kind, 2)})
        pair, count = max(pairs.items(), key=lambda one: (one[1], one[0]))
        if count < batch:
            break
        full[pair] = [homeless.pop(kind) for kind in list(homeless) if set(pair) <= set(kind)]
    left_out = sum(map(len, homeless.values()))
    return {kind: np.sort(np.concatenate(parts)) for kind, parts in sorted(full.items())}, left_out


def _stream(source: PairingSource, names: Sequence[str], *, batch: int, seed: Sequence[int]) -> Iterator[Any]:
    """Yield (names, samples) of a source without random access, shuffled through a buffer, epoch after epoch.

    A batch is full: samples of a rare kind wait for those of the next epochs.
    """
    pending: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for epoch in itertools.count():
        usable = 0
        for sample in _shuffled(source, np.random.default_rng((*seed, epoch))):
            kind = tuple(name for name in names if name in sample.items)
            if len(kind) < 2:
                continue
            usable += 1
            pending[kind].append(sample)
            if len(pending[kind]) == batch:
                yield kind, pending.pop(kind)
        if usable < batch:
            raise InputError(
                f"a batch of {batch} is larger than the data: source {seed[-1]} has {usable} samples with two or more "
                f"of {', '.join(names)}; lower train.batch or add data"
            )


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


def count_samples(supplies: Sequence[Supply]) -> int:
    """Return how many samples one pass over all supplies has; raise InputError if a source can't tell."""
    for supply in supplies:
        if not isinstance(supply.source, MapSource):
            raise InputError(f"{type(supply.source).__name__} does not know its length: give train.steps, not epochs")
    return sum(len(supply.source) for supply in supplies if isinstance(supply.source, MapSource))
