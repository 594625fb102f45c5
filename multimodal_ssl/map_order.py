"""The order of a source with random access: the n-th batch is a function of the seed and n."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.errors import InputError
from multimodal_ssl.stream_order import Terms, count_pairs
from multimodal_ssl.turns import Turns
from multimodal_ssl.types import Manifest, MapSource

BUCKETS = 16  # of samples by length, where batches are to hold samples of like lengths
CROWDED = 0.01  # share of samples that may meet one of their group for that

Rows = NDArray[np.int64]
Kind = tuple[str, ...]


class MapOrder:
    """The batches of a MapSource, epoch after epoch.

    Samples are grouped by the items that they have, and a kind goes through its own again and again, each time in
    another order. Batches are all full: the remainder is another one each time. If apart, samples of one group are
    dealt to different batches, as evenly as can be where they are more than the batches. If by_length names an item, a
    batch holds samples in which that is of like length, as far as groups stay apart for that.

    Kinds take turns: at each step the one that is furthest behind its share, which is that of its samples times the
    terms of its loss. As the loss of a batch is the mean of its terms, each term of each sample counts alike: of pairs
    with a third item that not all samples have, for example, each pair of the data. Where the source tells how often
    samples are visited, shares are by that alone.

    Attributes:
        kinds: the rows by their items.
        batches: their numbers in which a kind goes through its samples.
        per_epoch: the sum of these: in so many batches as many samples are visited as there are.
        visits: that an epoch makes: the samples of the kinds, or what their frequencies come to.
        left_out: number of samples with two items or more that no batch can hold: the objective takes none of these
            together, or too few others have them.
    """

    def __init__(
        self,
        source: MapSource,
        names: Sequence[str],
        *,
        batch: int,
        seed: Sequence[int],
        terms: Terms = count_pairs,
        apart: bool = True,
        by_length: str | None = None,
    ) -> None:
        manifest = source.manifest()
        found = {kind: rows for kind, rows in kinds_of(source, manifest, names).items() if len(kind) > 1 or terms(kind)}
        self._frequency = np.ones(len(source)) if manifest.frequency is None else manifest.frequency.astype(np.float64)
        self.kinds, self.left_out = _fill(found, batch, self._frequency, terms)
        if not self.kinds:
            raise InputError(
                f"a batch of {batch} is larger than the data: source {seed[-1]} has {len(source)} samples, "
                f"{sum(len(rows) for kind, rows in found.items() if terms(kind))} of them with items that the "
                f"objective takes together, of {', '.join(names)}; lower train.batch or add data"
            )
        self.seed, self.batch = tuple(seed), batch
        known = manifest.group if apart else None
        self._group = np.arange(len(source)) if known is None else known
        self._length: NDArray[np.float32] | None = None
        if by_length and by_length in source.modalities and manifest.length is not None:
            self._length = manifest.length.T[list(source.modalities).index(by_length)]
        visits = {kind: _visits(self._frequency[rows]) for kind, rows in self.kinds.items()}
        self.batches = {kind: count // batch for kind, count in visits.items()}
        self.per_epoch, self.visits = sum(self.batches.values()), sum(visits.values())
        told = manifest.frequency is not None
        weights = [count * (1 if told else terms(kind)) for kind, count in visits.items()]
        self._turns = Turns(np.array(weights) / sum(weights))
        self._shuffled: dict[Kind, tuple[int, Sequence[Rows]]] = {}

    def __getitem__(self, n: int) -> tuple[Kind, list[int]]:
        place, count = self._turns[n]
        kind = list(self.kinds)[place]
        epoch, position = divmod(count, self.batches[kind])
        if self._shuffled.get(kind, (-1,))[0] != epoch:
            self._shuffled[kind] = epoch, self._shuffle(kind, np.random.default_rng((*self.seed, epoch, place)))
        return kind, self._shuffled[kind][1][position].tolist()

    def _shuffle(self, kind: Kind, rng: np.random.Generator) -> Sequence[Rows]:
        count = self.batches[kind]
        rows = _draw(rng.permutation(self.kinds[kind]), self._frequency, rng)[: count * self.batch]
        parts = [rows]
        if self._length is not None:
            rows = rows[np.argsort(self._length[rows], kind="stable")]
            parts = [part.ravel() for part in _buckets(rows.reshape(count, self.batch), self._group)]
        plan = [one for part in parts for one in deal(part, self._group, len(part) // self.batch, rng)]
        return [plan[i] for i in rng.permutation(len(plan))]


def deal(rows: Rows, group: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Deal rows [count * B] to so many batches [count, B] at random, those of a group (row -> its number) apart.

    Groups come one after the other, and each turn gives every batch one row: a group of at most `count` rows is never
    twice in a batch, a larger one as evenly often as can be. A turn goes round the batches at random, but that those
    that the group at its beginning had in the turn before come after it.
    """
    numbers, which = np.unique(group[rows], return_inverse=True)
    order = np.argsort(rng.permutation(len(numbers))[which], kind="stable")
    which, turns = which[order].reshape(-1, count), rows[order].reshape(-1, count)
    dealt = np.empty((count, len(turns)), rows.dtype)
    places = rng.permutation(count)
    for turn, some in enumerate(turns):
        if turn:
            before, places = places, rng.permutation(count)
            first = which[turn, 0]
            had = before[which[turn - 1] == first]
            head = int((which[turn] == first).sum())
            if len(had) and head + len(had) <= count:
                late = np.isin(places, had)
                wrong = np.flatnonzero(late[:head])
                free = head + rng.permutation(np.flatnonzero(~late[head:]))[: len(wrong)]
                places[wrong], places[free] = places[free], places[wrong]
        dealt[places, turn] = some
    return dealt


def _buckets(rows: Rows, group: Rows) -> list[Rows]:
    """Split batches [count, B] in the order of their lengths into parts to be dealt each for itself.

    They are fewer where too many samples of a part would meet one of their group: it has more of them than batches.
    """

    def crowded(parts: list[Rows]) -> int:
        sizes = [np.unique(group[part], return_counts=True)[1] - len(part) for part in parts]
        return sum(int(more[more > 0].sum()) for more in sizes)

    number, least = min(BUCKETS, len(rows)), crowded([rows])
    while crowded(parts := np.array_split(rows, number)) > least + CROWDED * rows.size:
        number //= 2
    return parts


def kinds_of(source: MapSource, manifest: Manifest, names: Sequence[str]) -> dict[Kind, Rows]:
    """Return the rows of the samples by which of these items they have, those with none left out."""
    columns = manifest.present[:, [list(source.modalities).index(name) for name in names]]
    codes = columns @ (1 << np.arange(len(names)))  # one number is sorted faster than a row
    found, counts = np.unique(codes, return_counts=True)
    short = codes.astype(np.min_scalar_type((1 << len(names)) - 1))  # and one of 16 bits at once
    parts = np.split(np.argsort(short, kind="stable"), np.cumsum(counts))[:-1]
    kinds: dict[Kind, Rows] = {}
    for code, rows in zip(found.tolist(), parts, strict=True):
        kinds[tuple(name for place, name in enumerate(names) if code >> place & 1)] = rows
    return {kind: kinds[kind] for kind in sorted(kinds) if kind}


def _visits(frequency: NDArray[np.float64]) -> int:
    """Return how many visits an epoch makes, at least, to samples of these frequencies."""
    return int(frequency.sum() + 1e-6)


def _draw(rows: Rows, frequency: NDArray[np.float64], rng: np.random.Generator) -> Rows:
    """Return shuffled rows as often as their frequency tells, by systematic sampling."""
    often = frequency[rows]
    if (often == 1).all():
        return rows
    upto = np.floor(np.cumsum(often) + rng.random()).astype(np.int64)
    upto[-1] = max(upto[-1], _visits(often))
    return rng.permutation(np.repeat(rows, np.diff(upto, prepend=0)))


def _fill(
    kinds: Mapping[Kind, Rows], batch: int, frequency: NDArray[np.float64], terms: Terms
) -> tuple[dict[Kind, Rows], int]:
    """Return kinds of a batch or more, and how many samples are in none of them.

    A sample of a rarer kind gives up items: it joins the largest kind that it holds all of, or the commonest pair.
    """
    often = {
        kind: min(_visits(frequency[rows]), int(np.count_nonzero(frequency[rows]))) for kind, rows in kinds.items()
    }
    full = {kind: [rows] for kind, rows in kinds.items() if often[kind] >= batch and terms(kind)}
    homeless: dict[Kind, Rows] = {}
    for kind, rows in kinds.items():
        if kind not in full:
            homes = [home for home in full if set(home) <= set(kind)]
            if homes:
                full[max(homes, key=lambda home: (len(home), len(kinds[home])))].append(rows)
            else:
                homeless[kind] = rows
    while homeless:
        pairs: Counter[Kind] = Counter()
        for kind in homeless:
            pairs.update({pair: often[kind] for pair in itertools.combinations(kind, 2) if terms(pair)})
        pair, count = max(pairs.items(), key=lambda one: (one[1], one[0]), default=((), 0))
        if count < batch:
            break
        full[pair] = [homeless.pop(kind) for kind in list(homeless) if set(pair) <= set(kind)]
    left_out = sum(map(len, homeless.values()))
    return {kind: np.sort(np.concatenate(parts)) for kind, parts in sorted(full.items())}, left_out
