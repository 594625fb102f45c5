"""Decoys: samples whose items were exchanged on purpose. What training believes of them, it believes of a mismatch.

Target and decoy, as in the search of mass spectra (Elias and Gygi 2007): decoys are drawn as mismatches with strangers
are, so that the rank of a sample among them by any score that training gives is a p-value, however much it memorises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.config import DecoyConfig
from multimodal_ssl.corrupt import exchange
from multimodal_ssl.data import Supply, attempt, draw, full_key, hash64
from multimodal_ssl.digests import item_digest
from multimodal_ssl.errors import InputError, UnreadableError
from multimodal_ssl.items import overlay
from multimodal_ssl.types import Manifest, MapSource, Sample

SHARE = 0.1  # of the samples of a source in a run; more where they would be fewer than MANY, but never above MOST
MANY = 100
MOST = 0.25


@dataclass(frozen=True, slots=True)
class Decoys:
    """Who is a decoy to whom; [N] each.

    Attributes:
        judge: that the sample belongs to. If it is a decoy it is one to all other judges.
        origin: the row whose item a decoy gets; its own row if it is none.
        items: name of that item.
        keys: of the samples as all supplies together know them.
    """

    judge: NDArray[np.int64]
    origin: NDArray[np.int64]
    items: list[str]
    keys: list[str]

    @property
    def decoy(self) -> NDArray[np.bool_]:
        """Which samples are decoys."""
        return self.origin != np.arange(len(self.origin))


def plant(supplies: Sequence[Supply], config: DecoyConfig, seed: int) -> list[Supply]:
    """Return the supplies with the decoys of one judge; raise InputError for a source without random access."""
    planted = []
    for position, supply in enumerate(supplies):
        decoys = choose_decoys(supplies, position, config, seed)
        planted.append(replace(supply, source=Planted(random_access(supply), decoys, config.judge)))
    return planted


def share_of_decoys(samples: int, judges: int) -> float:
    """Return the share of the samples of a judge that are decoys to the others, of a source with so many."""
    wanted = min(max(SHARE * samples, MANY), MOST * samples)  # in each run
    return wanted * judges / ((judges - 1) * samples)


def choose_decoys(supplies: Sequence[Supply], position: int, config: DecoyConfig, seed: int) -> Decoys:
    """Choose the decoys of a supply by the hashes of the keys, and who gets whose item: the same for every judge.

    Of two items the second is exchanged, of more any one, between samples of different groups whose items differ: each
    has that of the next in the order of the hashes, so that a sample that is new or gone changes no more than a few.
    """
    supply = supplies[position]
    source = random_access(supply)
    share = share_of_decoys(max(1, len(source)), config.judges)
    keys, items = [], [""] * len(source)
    judge, origin = np.zeros(len(source), np.int64), np.arange(len(source))
    buckets: dict[tuple[int, str], list[tuple[float, int, int, int]]] = {}  # hash, row and labels
    for row, sample in attempt(source):
        key = full_key(supplies, position, sample.key)
        keys.append(key)
        judge[row] = int(draw([f"judge {seed} {key}"])[0] * config.judges)
        drawn = draw([f"decoy {seed} {key}"])[0] / share
        if drawn < 1 and isinstance(sample, Sample):
            present = [name for name in supply.names if name in sample.items]
            if len(present) > 1:
                among = present[1:] if len(present) == 2 else present
                name = items[row] = among[int(drawn * len(among))]
                group = int(hash64([sample.group or sample.key])[0])
                try:
                    one = (drawn, row, group, item_digest(sample.items, name, source.modalities[name]))
                except (UnreadableError, OSError, ValueError):
                    continue  # it can't be read, and is no decoy
                buckets.setdefault((int(judge[row]), name), []).append(one)
    for bucket in buckets.values():
        _, rows, *labels = (np.array(one) for one in zip(*sorted(bucket), strict=True))
        found = exchange(np.stack(labels), np.roll(np.arange(len(rows)), -1))
        if found is not None:  # else they are too few, or too alike, and no decoys
            origin[rows] = rows[found]
    return Decoys(judge, origin, items, keys)


def random_access(supply: Supply) -> MapSource:
    """Return the source of a supply; raise InputError if it has no random access."""
    if not isinstance(supply.source, MapSource):
        kind = type(supply.source).__name__
        raise InputError(f"{kind} has no random access to exchange partners by: write it to a table first")
    return supply.source


class Planted(MapSource):
    """A source with the decoys that one judge is to take for samples."""

    def __init__(self, source: MapSource, decoys: Decoys, judge: int) -> None:
        self.source, self.items = source, decoys.items
        self.modalities, self.skipped = source.modalities, source.skipped
        self.origin = np.where(decoys.judge == judge, np.arange(len(source)), decoys.origin)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample, origin, name = self.source[index], int(self.origin[index]), self.items[index]
        if origin == index:
            return sample
        return replace(sample, items=overlay(sample.key, sample.items, {name: self.source[origin].items}))

    def manifest(self) -> Manifest:
        return self.source.manifest()
