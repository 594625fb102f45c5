"""The order of a source without random access: shuffled through blocks, and entered in the middle by a cursor."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from multimodal_ssl.errors import InputError
from multimodal_ssl.types import PairingSource, Sample

OPEN = 8  # shards that are read in turns, so that a block holds samples of several

Terms = Callable[[Collection[str]], int]
Place = tuple[int, int]  # a shard, and the position of a sample in it
Found = tuple[Place, Sample]


class Cursor(NamedTuple):
    """Where a stream stands: all that it takes to go on, but the seed. Small, and plain enough for JSON.

    Attributes:
        epoch: from 0.
        opened: how many shards of the epoch were opened before the block began.
        places: the next sample of each shard that was open then.
        pending: the samples that waited then for others with the same items.
        block: number of the block in its epoch.
        emitted: batches that came since the block began.
    """

    epoch: int
    opened: int
    places: tuple[Place, ...]
    pending: tuple[Place, ...]
    block: int
    emitted: int

    @classmethod
    def parse(cls, values: Sequence[Any]) -> Cursor:
        """Return the cursor that was written as JSON."""
        epoch, opened, places, pending, block, emitted = values
        return cls(epoch, opened, tuple(map(tuple, places)), tuple(map(tuple, pending)), block, emitted)


START = Cursor(0, 0, (), (), 0, 0)


def count_pairs(names: Collection[str]) -> int:
    """Return how many pairs a sample with these items has."""
    return math.comb(len(names), 2)


def stream_batches(
    source: PairingSource,
    names: Sequence[str],
    *,
    batch: int,
    seed: Sequence[int],
    buffer: int,
    terms: Terms = count_pairs,
    cursor: Cursor = START,
) -> Iterator[tuple[tuple[str, ...], list[Sample], Cursor]]:
    """Yield names and samples of each batch, and the cursor that comes after it, epoch after epoch.

    Each epoch opens the shards in another order and shuffles block by block, a buffer of samples each. A batch is full:
    samples of a rare kind wait for those of the next blocks and epochs. Samples whose items teach nothing are left out.
    Raises InputError if an epoch has too few for a batch.
    """
    pending: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for place, sample in _fetch(source, cursor.pending):
        pending[_kind(sample, names)].append((place, sample))
    skip = cursor.emitted
    while True:
        whole, usable = cursor.opened == 0, 0
        shards = _Shards(source, names, terms, cursor, seed)
        block = shards.take(buffer)
        while block:
            waiting = tuple(place for some in pending.values() for place, _ in some)
            cursor, following = cursor._replace(pending=waiting, emitted=0), list[Found]()
            after = shards.cursor()
            shuffle = np.random.default_rng((*seed, cursor.epoch, 1, cursor.block)).permutation(len(block))
            block = [block[one] for one in shuffle]
            while block:
                following += shards.take(1)  # a little at each step, so that no step waits for a whole block
                place, sample = block.pop()
                kind = _kind(sample, names)
                pending[kind].append((place, sample))
                usable += 1
                if len(pending[kind]) == batch:
                    samples = [sample for _, sample in pending.pop(kind)]
                    cursor = cursor._replace(emitted=cursor.emitted + 1)
                    if cursor.emitted > skip:
                        yield kind, samples, cursor
            block, cursor, skip = following + shards.take(buffer - len(following)), after, 0
        if whole and usable < batch:
            raise InputError(
                f"a batch of {batch} is larger than the data: source {seed[-1]} has {usable} samples with items that "
                f"the objective takes together, of {', '.join(names)}; lower train.batch or add data"
            )
        waiting = tuple(place for some in pending.values() for place, _ in some)
        cursor = Cursor(cursor.epoch + 1, 0, (), waiting, 0, 0)


class _Shards:
    """The usable samples of one epoch, a few shards being read in turns."""

    def __init__(
        self, source: PairingSource, names: Sequence[str], terms: Terms, cursor: Cursor, seed: Sequence[int]
    ) -> None:
        self.source, self.names, self.terms = source, names, terms
        self.epoch, self.block = cursor.epoch, cursor.block
        self._order = np.random.default_rng((*seed, cursor.epoch, 0)).permutation(source.num_shards).tolist()
        self._opened = cursor.opened
        self._open = [(shard, self._read(shard, start)) for shard, start in cursor.places]
        self._next = dict(cursor.places)

    def cursor(self) -> Cursor:
        """Return where the next block begins."""
        self.block += 1
        places = tuple((shard, self._next[shard]) for shard, _ in self._open)
        return Cursor(self.epoch, self._opened, places, (), self.block, 0)

    def take(self, count: int) -> list[Found]:
        """Return the next samples, as many as there are."""
        taken: list[Found] = []
        while len(taken) < count:
            while len(self._open) < OPEN and self._opened < len(self._order):
                shard = self._order[self._opened]
                self._opened += 1
                self._open.append((shard, self._read(shard, 0)))
                self._next[shard] = 0
            if not self._open:
                break
            shard, samples = self._open.pop(0)
            found = next(samples, None)
            if found is not None:
                taken.append(found)
                self._next[shard] = found[0][1] + 1
                self._open.append((shard, samples))
        return taken

    def _read(self, shard: int, start: int) -> Iterator[Found]:
        for position, sample in enumerate(self.source.read(shard, start), start):
            if self.terms(_kind(sample, self.names)):
                yield (shard, position), sample


def _kind(sample: Sample, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in sample.items)


def _fetch(source: PairingSource, places: Sequence[Place]) -> Iterator[Found]:
    """Yield the samples at these places, in their order."""
    found: dict[Place, Sample] = {}
    for shard, some in itertools.groupby(sorted(set(places)), key=lambda place: place[0]):
        wanted = [position for _, position in some]
        samples = enumerate(source.read(shard, wanted[0]), wanted[0])
        for position in wanted:
            sample = next((sample for at, sample in samples if at == position), None)
            if sample is None:
                raise InputError(
                    f"sample {position} of shard {shard} waited for a batch when the checkpoint was written, and is "
                    "gone: the data has changed; train anew into another folder with run=OTHER"
                )
            found[shard, position] = sample
    return ((place, found[place]) for place in places)
