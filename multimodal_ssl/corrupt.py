"""Planted noise: samples that hold another's item, lack one, or have other words, and which these are."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.config import CorruptConfig
from multimodal_ssl.data import hash64
from multimodal_ssl.digests import as_text, item_digest
from multimodal_ssl.errors import InputError, UnreadableError, nearest
from multimodal_ssl.items import overlay
from multimodal_ssl.subset import Subset
from multimodal_ssl.types import Manifest, MapSource, PairingSource, Sample

BLOCK = 4096  # samples of a stream that exchange items among themselves


def corrupted(source: PairingSource, config: CorruptConfig, names: Collection[str]) -> PairingSource:
    """Plant noise in the samples of a source, or leave the mismatched out."""
    if not isinstance(source, MapSource):
        return CorruptedStream(source, config, names)
    noisy = Corrupted(source, config, names)
    return Subset(noisy, np.flatnonzero(~noisy.mismatched)) if config.drop else noisy


class Corrupted(MapSource):
    """A MapSource in which a share of the samples exchange one item, each with a different one of another group.

    Another share loses the item, and each text may get words of others. Keys, groups and weights stay those of the row.
    Raises InputError for an item that is not there or not a text, and for samples that are too few or too alike.

    Attributes:
        mismatched, dropped: [N] (bool), the truth.
    """

    def __init__(self, source: MapSource, config: CorruptConfig, names: Collection[str]) -> None:
        self.item = _item(source, config, names)
        self.source, self.modalities, self.skipped = source, source.modalities, source.skipped
        rng = np.random.default_rng(config.seed)
        self._place = list(source.modalities).index(self.item)
        holders = np.flatnonzero(source.manifest().present[:, self._place])
        rows = np.sort(rng.permutation(holders)[: round(config.mismatch * len(holders))]).astype(np.int64)
        self._origin = np.arange(len(source))
        if len(rows):
            self._origin[rows] = self._exchange(rows, config, rng)
        self.mismatched = self._origin != np.arange(len(source))
        self.dropped = np.zeros(len(source), bool)
        self.dropped[rng.permutation(holders)[: round(config.dropout * len(holders))]] = True
        self.words, self.seed = config.words, config.seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        given: Mapping[str, Any] | None = sample.items
        if self.dropped[index]:
            given = None
        elif self.mismatched[index]:
            given = self.source[int(self._origin[index])].items
        if self.words and given is not None and self.item in given:
            given = {self.item: self._garble(given[self.item], index)}
        return replace(sample, items=overlay(sample.key, sample.items, {self.item: given}))

    def manifest(self) -> Manifest:
        manifest = self.source.manifest()
        present = manifest.present.copy()
        present[self.dropped, self._place] = False
        length = manifest.length
        if length is not None:
            length = length.copy()
            length[:, self._place] = np.where(self.dropped, 0, length[self._origin, self._place])
        return replace(manifest, present=present, length=length)

    def _garble(self, item: Any, index: int) -> Any:
        """Return the text with some of its words from that of another row."""
        rng = np.random.default_rng((self.seed, index))
        try:
            words = as_text(item).split()
        except (OSError, ValueError):
            return item  # training records it
        try:
            others = as_text(self.source[int(rng.integers(len(self)))].items.get(self.item, "")).split() or words
        except (UnreadableError, OSError, ValueError):
            others = words
        return " ".join(str(rng.choice(others)) if rng.random() < self.words else word for word in words)

    def _exchange(self, rows: NDArray[np.int64], config: CorruptConfig, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return for each row the one whose item it gets: a permutation in which nobody gets its like."""
        groups, digests, texts = [], [], []
        for row in rows:
            try:
                sample = self.source[int(row)]
                number = item_digest(sample.items, self.item, self.modalities[self.item])
                text = as_text(sample.items[self.item]) if config.kind == "near" else ""  # all at once: it may be large
            except (UnreadableError, OSError, ValueError):
                sample, number, text = Sample("", {}), int(row), ""
            groups.append(sample.group or f"row {row}")
            digests.append(number)
            texts.append(text)
        if config.kind == "near":
            if not all(isinstance(text, str) for text in texts):
                raise InputError(f"corrupt: near needs texts to order, and {self.item!r} is none: set corrupt.item")
            order, start = np.argsort(np.array(texts), kind="stable"), np.roll(np.arange(len(rows)), -1)
        else:
            order, start = np.arange(len(rows)), rng.permutation(len(rows))
        origin = exchange(np.stack([hash64(groups), digests])[:, order], start)
        if origin is None:
            raise InputError(
                f"corrupt: {len(rows)} samples of {len(set(groups))} groups with {len(set(digests))} values of "
                f"{self.item!r} can't all exchange it: lower `mismatch`, leave out `group`, or shuffle a stream whose "
                "groups come one after the other"
            )
        found = np.empty(len(rows), np.int64)
        found[order] = rows[order[origin]]
        return found


class CorruptedStream(PairingSource):
    """A source without random access, in which the samples of each block of 4,096 exchange items as in `Corrupted`."""

    def __init__(self, source: PairingSource, config: CorruptConfig, names: Collection[str]) -> None:
        _item(source, config, names)
        self.source, self.config, self.names = source, config, names
        self.modalities, self.skipped = source.modalities, source.skipped

    def __iter__(self) -> Iterator[Sample]:
        samples, number = iter(self.source), 0
        block, following = (list(itertools.islice(samples, BLOCK)) for _ in range(2))
        while block:
            if len(following) < BLOCK:  # the last one, too few to exchange among themselves
                block, following = block + following, []
            config = self.config.model_copy(update={"seed": self.config.seed * 1_000_003 + number})
            noisy = corrupted(_Listed(block, self.modalities), config, self.names)
            assert isinstance(noisy, MapSource)
            yield from (noisy[row] for row in range(len(noisy)))
            block, following, number = following, list(itertools.islice(samples, BLOCK)), number + 1


class _Listed(MapSource):
    def __init__(self, samples: Sequence[Sample], modalities: Mapping[str, str]) -> None:
        self.samples, self.modalities = samples, modalities

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def manifest(self) -> Manifest:
        return Manifest(np.array([[name in sample.items for name in self.modalities] for sample in self.samples]))


def _item(source: PairingSource, config: CorruptConfig, names: Collection[str]) -> str:
    """Return the name of the item that is meant."""
    item = config.item or list(names)[-1]
    if item not in names:
        raise InputError(f"corrupt: the source has no {item!r}: {nearest(item, names)}")
    if config.words and source.modalities[item] != "text":
        raise InputError(f"corrupt.words needs a text, and {item!r} is {source.modalities[item]!r}")
    return item


def exchange(labels: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return a permutation [N] in which nobody gets the place of one with a label [K, N] of its own; None if none was.

    It is the one to start from, in which those who would have changed with the next that both may.
    """
    origin = start.copy()
    for stuck in np.flatnonzero((labels[:, origin] == labels).any(0)).tolist():
        if not (labels[:, origin[stuck]] == labels[:, stuck]).any():
            continue  # another one changed with it
        mine, theirs = labels[:, [stuck]], labels[:, origin[[stuck]]]
        begin, size = 1, 64  # places to look at, at once: most find one soon
        while begin < len(origin):
            others = (stuck + np.arange(begin, min(begin + size, len(origin)))) % len(origin)
            good = np.flatnonzero(((labels[:, origin[others]] != mine) & (labels[:, others] != theirs)).all(0))
            if len(good):
                origin[[stuck, others[good[0]]]] = origin[[others[good[0]], stuck]]
                break
            begin, size = begin + size, 4 * size
        else:
            return None
    return origin
