"""Which samples each step reads: a function of the seed and the step, and for a stream of where it stood before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from multimodal_ssl.data import Supply, Ticket
from multimodal_ssl.errors import InputError
from multimodal_ssl.map_order import MapOrder, kinds_of
from multimodal_ssl.stream_order import START, Cursor, Terms, count_pairs, stream_batches
from multimodal_ssl.turns import Turns
from multimodal_ssl.types import MapSource, Sample


class Plan:
    """What every step of training reads: a function of the seed and the step.

    Supplies take turns by their shares: at each step the one that is furthest behind. Raises InputError if a supply
    can't fill a batch.

    Args:
        terms: of names, of how many losses that of a batch with these items is the mean; 0: it teaches nothing.
        apart: keep samples of one group in different batches (see `MapOrder`).
        by_length: name of the items that are of like length in a batch.
        shuffle_buffer: samples of a stream that are shuffled among themselves.

    Attributes:
        orders: position of a supply with random access -> its order.
        left_out: number of samples that no batch can hold (see `MapOrder`).
    """

    def __init__(
        self,
        supplies: Sequence[Supply],
        *,
        batch: int,
        seed: int,
        terms: Terms = count_pairs,
        apart: bool = True,
        by_length: str | None = None,
        shuffle_buffer: int = 4096,
    ) -> None:
        self.supplies, self.batch, self.seed, self.shuffle_buffer = supplies, batch, seed, shuffle_buffer
        self.terms = terms
        self.orders = {
            position: MapOrder(
                one.source,
                one.names,
                batch=batch,
                seed=(seed, position),
                terms=terms,
                apart=apart,
                by_length=by_length,
            )
            for position, one in enumerate(supplies)
            if isinstance(one.source, MapSource)
        }
        self.left_out = sum(order.left_out for order in self.orders.values())
        self._shares = np.array([one.share for one in supplies]) / sum(one.share for one in supplies)

    def tickets(
        self,
        *,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        cursors: Mapping[int, Cursor] | None = None,
    ) -> Iterator[Ticket]:
        """Yield the tickets of the steps from start to stop, each process its part of each batch.

        Cursors tell where each stream, by its position, stood at the start; without them it is read from its beginning.
        """
        streams = {
            position: stream_batches(
                one.source,
                one.names,
                batch=self.batch,
                seed=(self.seed, position),
                buffer=self.shuffle_buffer,
                terms=self.terms,
                cursor=START if cursors is None else cursors.get(position, START),
            )
            for position, one in enumerate(self.supplies)
            if position not in self.orders
        }
        turns = Turns(self._shares)
        for step in range(stop):
            turn, drawn = turns[step]
            cursor: Cursor | None = None
            rows: Sequence[int | Sample] = []
            if turn in streams and (step >= start or cursors is None):
                names, rows, cursor = next(streams[turn])
            elif step >= start:
                names, rows = self.orders[turn][drawn]
            if step >= start:
                yield Ticket(step, turn, names, rows[rank::world], range(rank, len(rows), world), cursor)


def ordered_tickets(supplies: Sequence[Supply], *, batch: int) -> Iterator[Ticket]:
    """Yield tickets that go once through every sample with at least one of the items."""
    for position, supply in enumerate(supplies):
        if isinstance(supply.source, MapSource):
            for names, rows in kinds_of(supply.source, supply.source.manifest(), supply.names).items():
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


def count_visits(plan: Plan) -> int:
    """Return how many visits of samples make one pass over all supplies; raise InputError if a source can't tell."""
    for position, supply in enumerate(plan.supplies):
        if position not in plan.orders:
            raise InputError(f"{type(supply.source).__name__} does not know its length: give train.steps, not epochs")
    return sum(order.visits for order in plan.orders.values())
