"""One pass over a source that keeps numbers of what it reads, and no item but those of a few previews."""

from __future__ import annotations

import heapq
import itertools
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multimodal_ssl.data import Supply, hash64, previews_of
from multimodal_ssl.digests import content_digest
from multimodal_ssl.errors import UnreadableError
from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality, PairingSource, Preview, Sample

VALUES = 10_000  # different values of a metadata field that are told apart
LABELS = 100_000  # different texts of which the beginning is kept
LABEL = 80  # characters of it
WARM = 4  # samples before the clock counts: the first ones import what reads them


@dataclass(slots=True)
class Column:
    """The items of one name.

    Attributes:
        places: position in `Survey.keys` of the sample of each item.
        digests: of the items, equal where they are; those without one are not there.
        measures: name -> how large each item is that was looked at.
    """

    places: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("q"))
    measures: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))


@dataclass(slots=True)
class Values:
    """The values of a metadata field: how many there are, how often each (of the first VALUES), and the numbers."""

    count: int = 0
    common: Counter[str] = field(default_factory=Counter)
    numbers: array[float] = field(default_factory=lambda: array("d"))


class Shown(NamedTuple):
    """A sample as a person sees it."""

    key: str
    group: str
    previews: dict[str, Preview]
    metadata: Mapping[str, str | float | None]


@dataclass(slots=True)
class Clock:
    """Seconds and samples of each stage (read, load, prepare, collate) and name of items ("" for read)."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, stage: str, name: str, seconds: float, count: int = 1) -> None:
        """Count what a stage took."""
        self.seconds[stage, name] += seconds
        self.counts[stage, name] += count


@dataclass(slots=True)
class Survey:
    """What was noted of the samples that were read.

    Attributes:
        total: number of samples of the source; None: a stream that was not read to its end.
        tried, decoded: how many were read, and how many of these were decoded as well.
        bad_decoded: how many of the latter can't be used.
        bad: key -> why it can't be used.
        keys, rows: of the usable ones; row -1 where there is no random access.
        groups: their hashes, 0 for none.
        whole: digests of all items of a sample together.
        kinds: how often each combination of items was read.
        labels: digest of a text -> its beginning.
        tally: name -> what its encoder counted.
        collated: bytes of the collated inputs of the decoded samples.
    """

    total: int | None
    tried: int = 0
    decoded: int = 0
    bad_decoded: int = 0
    bad: dict[str, tuple[str, int]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    rows: array[int] = field(default_factory=lambda: array("q"))
    groups: array[int] = field(default_factory=lambda: array("q"))
    weights: array[float] = field(default_factory=lambda: array("d"))
    whole: array[int] = field(default_factory=lambda: array("q"))
    columns: dict[str, Column] = field(default_factory=dict)
    kinds: Counter[tuple[str, ...]] = field(default_factory=Counter)
    metadata: dict[str, Values] = field(default_factory=lambda: defaultdict(Values))
    labels: dict[int, str] = field(default_factory=dict)
    tally: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    collated: int = 0
    clock: Clock = field(default_factory=Clock)
    shown: list[Shown] = field(default_factory=list)


class Read(NamedTuple):
    """What reading a row gave, how long it took, and whether it is to be decoded; row -1: a stream's."""

    row: int
    names: tuple[str, ...]
    sample: Sample | UnreadableError
    seconds: float
    is_decoded: bool


def survey(
    supply: Supply,
    modalities: Mapping[str, Modality],
    encoders: Mapping[str, Encoder],
    *,
    limit: int,
    scan: int,
    batch: int,
    seed: int,
    shown: int,
    advance: Callable[[], object],
) -> Survey:
    """Read up to `scan` samples of a source with random access, and decode up to `limit`, both evenly spread.

    Of a stream, up to `limit` are read, evenly from the beginnings of its shards. A sample can be used if it can be
    read, its texts and, where it is decoded, all its items be loaded and prepared.

    Args:
        encoders: that prepare; none: nothing is prepared.
        shown: samples to draw for a person.
    """
    source, rng = supply.source, np.random.default_rng((seed, 1))
    found = Survey(len(source) if isinstance(source, MapSource) else None)
    found.columns = {name: Column() for name in supply.names}
    pending: dict[tuple[str, ...], list[dict[str, Inputs]]] = defaultdict(list)
    drawn: list[tuple[float, int, Shown]] = []  # a heap: those of the smallest random numbers stay
    for one in _reads(supply, found, limit=limit, scan=scan):
        advance()
        found.tried += 1
        found.decoded += one.is_decoded
        try:
            if isinstance(one.sample, UnreadableError):
                raise one.sample
            sample, items, ready = one.sample, dict[str, Any](), dict[str, Inputs]()
            took = _take(one, modalities, encoders, items, ready, (seed, 0, found.tried))
            _note(found, one, sample, items, modalities, encoders)
        except UnreadableError as error:
            found.bad[error.key] = error.reason, 0
            found.bad_decoded += one.is_decoded
            continue
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is told and left out
            key = one.sample.key if isinstance(one.sample, Sample) else ""
            found.bad[key] = f"{type(error).__name__}: {error}", 0
            found.bad_decoded += one.is_decoded
            continue
        if not one.is_decoded:
            continue
        if found.decoded > WARM:
            found.clock.add("read", "", one.seconds)
            for (stage, name), seconds in took.items():
                found.clock.add(stage, name, seconds)
        place = -rng.random()
        if len(drawn) < shown or (shown and place > drawn[0][0]):
            seen = previews_of(sample, items, modalities)
            add = heapq.heappush if len(drawn) < shown else heapq.heappushpop
            add(drawn, (place, found.tried, Shown(sample.key, sample.group, seen, sample.metadata)))
        if ready:
            pending[one.names].append(ready)
            if len(pending[one.names]) == batch:
                _collate(found, encoders, pending.pop(one.names))
    for some in pending.values():
        _collate(found, encoders, some)
    found.shown = [each for _, _, each in sorted(drawn, key=lambda each: each[1])]
    return found


def evenly(total: int, count: int) -> NDArray[np.int64]:
    """Return so many positions, evenly spread over the total."""
    return np.unique(np.linspace(0, total - 1, num=min(count, total), dtype=np.int64))


def _reads(supply: Supply, found: Survey, *, limit: int, scan: int) -> Iterator[Read]:
    source = supply.source
    if isinstance(source, MapSource):
        rows = evenly(len(source), max(scan, limit))
        decoded = set(rows[evenly(len(rows), limit)].tolist())
        present = source.manifest().present[rows]
        places = [list(source.modalities).index(name) for name in supply.names]
        for row, has in zip(rows.tolist(), present[:, places].tolist(), strict=True):
            began = time.perf_counter()
            one: Sample | UnreadableError
            try:
                one = source[row]
            except UnreadableError as error:
                one = error
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one sample, it is told and left out
                one = UnreadableError(f"row {row}", f"{type(error).__name__}: {error}")
            names = tuple(itertools.compress(supply.names, has))
            yield Read(row, names, one, time.perf_counter() - began, row in decoded)
    else:
        is_whole = True
        count = 0
        for samples, share in stream_parts(source, limit):
            for count_here in itertools.count():
                began = time.perf_counter()
                sample = next(samples, None)
                if sample is None:
                    break
                if count_here == share:
                    is_whole = False
                    break
                count += 1
                names = tuple(name for name in supply.names if name in sample.items)
                yield Read(-1, names, sample, time.perf_counter() - began, True)
        found.total = count if is_whole else None


def stream_parts(source: PairingSource, limit: int) -> Iterator[tuple[Iterator[Sample], int]]:
    """Yield the samples of shards, evenly chosen, and how many to take of each so that they are up to `limit`."""
    shards = evenly(source.num_shards, limit)
    bounds = np.linspace(0, limit, len(shards) + 1).astype(int)
    for shard, share in zip(shards.tolist(), np.diff(bounds).tolist(), strict=True):
        yield iter(source.read(shard, 0)), share


def _take(
    one: Read,
    modalities: Mapping[str, Modality],
    encoders: Mapping[str, Encoder],
    items: dict[str, Any],
    ready: dict[str, Inputs],
    seed: Sequence[int],
) -> dict[tuple[str, str], float]:
    """Load, and prepare, the items of a sample; of one that is not decoded its texts alone. Return the seconds."""
    assert isinstance(one.sample, Sample)
    took: dict[tuple[str, str], float] = {}
    if not 0 < one.sample.weight <= 1:
        raise ValueError(f"its weight is {one.sample.weight}, not in (0, 1]")
    rng = np.random.default_rng(seed)
    for name in one.names:
        if name not in one.sample.items:
            raise ValueError(f"the source's manifest says that it has {name!r}, and it has not")
        if one.is_decoded or modalities[name].type is str:
            began = time.perf_counter()
            items[name] = modalities[name].open(one.sample.items[name])
            took["load", name] = time.perf_counter() - began
    if one.is_decoded and encoders:
        for name, item in items.items():
            began = time.perf_counter()
            ready[name] = encoders[name].prepare(item, rng)
            took["prepare", name] = time.perf_counter() - began
    return took


def _note(
    found: Survey,
    one: Read,
    sample: Sample,
    items: Mapping[str, Any],
    modalities: Mapping[str, Modality],
    encoders: Mapping[str, Encoder],
) -> None:
    """Note everything that is told of a usable sample; what can fail comes first."""
    digests = {name: _digest(items[name] if modalities[name].type is str else sample.items[name]) for name in one.names}
    sizes: dict[str, dict[str, float]] = {name: dict(modalities[name].measure(item)) for name, item in items.items()}
    for name in one.names:
        size = _bytes(sample.items[name])
        if size is not None:
            sizes.setdefault(name, {})["bytes"] = size
        if one.is_decoded and modalities[name].type is str and name in encoders:
            tokens = count_tokens(encoders[name].prepare(items[name]))
            if tokens is not None:
                sizes[name]["tokens"] = tokens
    place = len(found.keys)
    found.keys.append(sample.key)
    found.rows.append(one.row)
    found.groups.append(int(hash64([sample.group])[0]) if sample.group else 0)
    found.weights.append(sample.weight)
    found.kinds[one.names] += 1
    for name, number in digests.items():
        if number is not None:
            found.columns[name].places.append(place)
            found.columns[name].digests.append(number)
            text = items.get(name)
            if isinstance(text, str) and len(found.labels) < LABELS:
                found.labels.setdefault(number, text[:LABEL])
    for name, measures in sizes.items():
        for what, value in measures.items():
            found.columns[name].measures[what].append(value)
    joint = sample.key if None in digests.values() or not digests else repr(sorted(digests.items()))
    found.whole.append(int(hash64([joint])[0]))
    for what, known in sample.metadata.items():
        values = found.metadata[what]
        if known is None or known != known or known == "":
            continue
        values.count += 1
        if isinstance(known, int | float):
            values.numbers.append(float(known))
        if str(known) in values.common or len(values.common) < VALUES:
            values.common[str(known)] += 1


def _collate(found: Survey, encoders: Mapping[str, Encoder], some: Sequence[Mapping[str, Inputs]]) -> None:
    for name in some[0]:
        began = time.perf_counter()
        inputs = encoders[name].collate([one[name] for one in some])
        found.clock.add("collate", name, time.perf_counter() - began, len(some))
        found.tally[name].update(encoders[name].tally(inputs))
        found.collated += sum(one.nbytes for one in tensors(inputs))


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    """Return the tensors of an encoder's inputs."""
    values = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return [one for one in values if isinstance(one, torch.Tensor)]


def count_tokens(inputs: Inputs) -> int | None:
    """Return the number of tokens in the prepared inputs of one text: the longest row of integers, less its padding.

    None if they hold no such row.
    """
    rows = [one for one in tensors(inputs) if one.ndim == 1 and not one.is_floating_point() and one.dtype != torch.bool]
    return max((len(np.trim_zeros(one.numpy(), "b")) for one in rows), default=None)


def _digest(item: Any) -> int | None:
    try:
        return content_digest(item)
    except TypeError:  # of a type that has none
        return None


def _bytes(item: Any) -> int | None:
    if isinstance(item, bytes | bytearray | memoryview):
        return len(item)
    return item.stat().st_size if isinstance(item, Path) else None
