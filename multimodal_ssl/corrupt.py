"""Planted noise: a source some of whose samples hold another's item, lack one, or have other words; it knows which."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.config import CorruptConfig
from multimodal_ssl.errors import InputError, UnreadableError, nearest
from multimodal_ssl.types import MapSource, PairingSource, Sample

ROUNDS = 100  # of exchanging items until none has come back to its group


class Corrupted(MapSource):
    """A MapSource in which a share of the samples exchange one item, each with a sample of another group.

    Another share loses the item, and each text may get words of others. Keys, groups and weights stay those of the row.
    Raises InputError for a source without random access, or one whose samples are too few or too alike.

    Attributes:
        mismatched, dropped: [N] (bool), the truth.
    """

    def __init__(self, source: PairingSource, config: CorruptConfig, names: Collection[str]) -> None:
        if not isinstance(source, MapSource):
            raise InputError(f"corrupt: {type(source).__name__} has no random access; write it to a table first")
        self.item = config.item or list(names)[-1]
        if self.item not in names:
            raise InputError(f"corrupt: the source has no {self.item!r}: {nearest(self.item, names)}")
        self.source, self.modalities, self.skipped = source, source.modalities, source.skipped
        rng = np.random.default_rng(config.seed)
        holders = [row for row in range(len(source)) if self.item in source.present(row)]
        rows = np.sort(rng.permutation(holders)[: round(config.mismatch * len(holders))]).astype(np.int64)
        self._origin = np.arange(len(source))
        if len(rows):
            self._origin[rows] = self._exchange(rows, config, rng)
        self.mismatched = self._origin != np.arange(len(source))
        self.dropped = np.zeros(len(source), bool)
        self.dropped[rng.permutation(holders)[: round(config.dropout * len(holders))]] = True
        self.words, self.seed = config.words, config.seed
        if self.words and source.modalities[self.item] != "text":
            raise InputError(f"corrupt.words needs a text, and {self.item!r} is {source.modalities[self.item]!r}")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        items = dict(sample.items)
        if self.dropped[index]:
            items.pop(self.item)
        elif self.mismatched[index]:
            items[self.item] = self.source[int(self._origin[index])].items[self.item]
        if self.words and self.item in items:
            items[self.item] = self._garble(items[self.item], index)
        return replace(sample, items=items)

    def present(self, index: int) -> Collection[str]:
        names = self.source.present(index)
        return [name for name in names if name != self.item] if self.dropped[index] else names

    def _garble(self, text: str, index: int) -> str:
        """Return the text with some of its words from that of another row."""
        rng = np.random.default_rng((self.seed, index))
        words = text.split()
        try:
            others = str(self.source[int(rng.integers(len(self)))].items.get(self.item, "")).split() or words
        except UnreadableError:
            return text
        return " ".join(str(rng.choice(others)) if rng.random() < self.words else word for word in words)

    def _exchange(self, rows: NDArray[np.int64], config: CorruptConfig, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return for each row the one whose item it gets: a permutation in which nobody keeps an item of its group."""
        groups, texts = [], []
        for row in rows:
            try:
                sample = self.source[int(row)]
            except UnreadableError:
                groups.append(f"row {row}")
                texts.append("")
                continue
            groups.append(sample.group or f"row {row}")
            texts.append(sample.items[self.item])
        group = np.array(groups)
        origin = None
        if config.kind == "near":
            if not all(isinstance(text, str) for text in texts):
                raise InputError(f"corrupt: near needs texts to order, and {self.item!r} is none: set corrupt.item")
            order = np.argsort(np.array(texts), kind="stable")
            shift = int(np.unique(group, return_counts=True)[1].max())  # past the samples of one group
            origin = np.empty(len(rows), np.int64)
            origin[order] = np.roll(order, -shift)
        origin = exchange(group, rng, origin)
        if origin is None:
            raise InputError(
                f"corrupt: {len(rows)} samples of {len(set(groups))} groups can't all exchange {self.item!r}"
            )
        return rows[origin]


def exchange(
    group: NDArray[np.generic], rng: np.random.Generator, origin: NDArray[np.int64] | None = None
) -> NDArray[np.int64] | None:
    """Return a permutation [N] in which nobody gets a place of its own group [N], or None if none was found.

    It is drawn at random, or is the one given with as few changes as it takes.
    """
    origin = rng.permutation(len(group)) if origin is None else origin
    for _ in range(ROUNDS):
        stuck = np.flatnonzero(group[origin] == group)
        if not len(stuck):
            return origin
        partners = rng.choice(len(group), len(stuck))
        for one, other in zip(stuck, partners, strict=True):
            origin[[one, other]] = origin[[other, one]]
    return None
