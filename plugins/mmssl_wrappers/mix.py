"""The pairing source ``mix``: several sources as one, whose batches mix their samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import final

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl import InputError, Manifest, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import Supply, attempt, full_key, number_groups
from multimodal_ssl.items import rekeyed
from multimodal_ssl.skipped import Skipped


class _Names:
    """Gives the samples of several sources keys and groups of their own."""

    def __init__(self, sources: Sequence[PairingSource], share_groups: bool) -> None:
        self.supplies = [Supply(source, tuple(source.modalities)) for source in sources]
        self.share_groups = share_groups
        self.skipped = Skipped([(full_key(self.supplies, n, ""), one.skipped) for n, one in enumerate(sources)])

    def __call__(self, n: int, sample: Sample) -> Sample:
        group = sample.group if self.share_groups or not sample.group else full_key(self.supplies, n, sample.group)
        key = self.key(n, sample.key)
        return replace(sample, key=key, group=group, items=rekeyed(key, sample.items))

    def key(self, n: int, key: str) -> str:
        return full_key(self.supplies, n, key)


@final
class Mixed(MapSource):
    """Several MapSources one after the other, each visited as often as its share tells [S]."""

    def __init__(self, sources: Sequence[MapSource], shares: NDArray[np.float64], *, share_groups: bool) -> None:
        self.sources, self._names = sources, _Names(sources, share_groups)
        self.modalities, self.skipped = _modalities(sources), self._names.skipped
        self._ends = np.cumsum([len(source) for source in sources])
        self._shares = shares
        self._groups = None
        if share_groups:  # the numbers of two manifests can't be compared
            read = (one for source in sources for _, one in attempt(source))
            self._groups = number_groups([one.group if isinstance(one, Sample) else "" for one in read])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        n = int(np.searchsorted(self._ends, index, "right"))
        source = self.sources[n]
        try:
            return self._names(n, source[index - int(self._ends[n]) + len(source)])
        except UnreadableError as error:
            raise UnreadableError(self._names.key(n, error.key), error.reason) from error

    def manifest(self) -> Manifest:
        parts = [source.manifest() for source in self.sources]
        sizes = np.array([len(source) for source in self.sources])
        present = np.zeros((len(self), len(self.modalities)), bool)
        length = np.zeros(present.shape, np.float32)
        group, frequency = np.empty(len(self), np.int64), np.ones(len(self))
        visits = np.array([_visits(part, size) for part, size in zip(parts, sizes.tolist(), strict=True)])
        factors = self._shares * visits.sum() / visits
        number, start = 0, 0
        for source, part, size, factor in zip(self.sources, parts, sizes.tolist(), factors.tolist(), strict=True):
            rows = slice(start, start + size)
            columns = [list(self.modalities).index(name) for name in source.modalities]
            present[rows, columns] = part.present
            if part.length is not None:
                length[rows, columns] = part.length
            own = np.arange(size) if part.group is None else np.unique(part.group, return_inverse=True)[1]
            group[rows], number = own + number, number + int(own.max()) + 1
            frequency[rows] = factor * (1 if part.frequency is None else part.frequency)
            start += size
        return Manifest(
            present,
            group if self._groups is None else self._groups,
            None if all(part.length is None for part in parts) else length,
            None if np.allclose(frequency, 1, rtol=1e-9) else frequency.astype(np.float32),
        )


@final
class MixedStream(PairingSource):
    """Several sources as one stream whose shards are theirs; a MapSource is one shard."""

    def __init__(self, sources: Sequence[PairingSource], *, share_groups: bool) -> None:
        self.sources, self._names = sources, _Names(sources, share_groups)
        self._unreadable: dict[str, str] = {}
        self._told: list[tuple[str, str]] = []
        self.modalities = _modalities(sources)
        self.skipped = Skipped([("", self._names.skipped), ("", self._told)])
        self._places = [(n, shard) for n, source in enumerate(sources) for shard in range(source.num_shards)]
        self.num_shards = len(self._places)

    def __iter__(self) -> Iterator[Sample]:
        for n, source in enumerate(self.sources):
            yield from (self._names(n, sample) for sample in self._readable(n, source, iter(source)))

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        n, own = self._places[shard]
        source = self.sources[n]
        if isinstance(source, MapSource):
            return islice((self._names(n, sample) for sample in self._readable(n, source, iter(()))), start, None)
        return (self._names(n, sample) for sample in source.read(own, start))

    def _readable(self, n: int, source: PairingSource, stream: Iterator[Sample]) -> Iterator[Sample]:
        if not isinstance(source, MapSource):
            yield from stream
            return
        for _, sample in attempt(source):
            if isinstance(sample, Sample):
                yield sample
            elif (key := self._names.key(n, sample.key)) not in self._unreadable:
                self._unreadable[key] = sample.reason
                self._told.append((key, sample.reason))


def mix(
    sources: Sequence[PairingSource], weights: Sequence[float] | None, temperature: float, *, share_groups: bool
) -> PairingSource:
    """Return sources as one, see the plugin's `open_mix`."""
    if len(sources) < 2:
        raise InputError(f"mix.sources has {len(sources)}: give two or more")
    if weights is not None and (len(weights) != len(sources) or min(weights) <= 0):
        raise InputError(f"mix.weights are {list(weights)}: give each of {len(sources)} sources one above 0")
    if temperature <= 0 or (weights is not None and temperature != 1):
        raise InputError(f"mix.temperature is {temperature:g}: it is above 0, and 1 where there are weights")
    maps = [source for source in sources if isinstance(source, MapSource)]
    if len(maps) < len(sources):
        if weights is not None or temperature != 1:
            raise InputError(
                "mix: weights and temperature need random access to all sources: the length of a stream is not known; "
                "leave them out, or give the sources one by one to the config, each with its `share`"
            )
        return MixedStream(sources, share_groups=share_groups)
    for n, source in enumerate(maps):
        if not len(source):
            raise InputError(f"mix: source {n} is empty; leave it out")
    visits = np.array([_visits(source.manifest(), len(source)) for source in maps])
    parts = np.power(visits, 1 / temperature) if weights is None else np.array(weights, np.float64)
    return Mixed(maps, parts / parts.sum(), share_groups=share_groups)


def _visits(manifest: Manifest, size: int) -> float:
    return size if manifest.frequency is None else float(manifest.frequency.sum(dtype=np.float64))


def _modalities(sources: Sequence[PairingSource]) -> dict[str, str]:
    modalities: dict[str, str] = {}
    for source in sources:
        for name, modality in source.modalities.items():
            if modalities.setdefault(name, modality) != modality:
                raise InputError(
                    f"mix: {name!r} is {modalities[name]!r} in one source and {modality!r} in another; give one of the "
                    "two another name"
                )
    return modalities
