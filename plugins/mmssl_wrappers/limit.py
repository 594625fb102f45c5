"""The pairing source ``limit``: some of the samples of a source."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import final

import numpy as np

from mmssl_wrappers.reading import Through, check_keys
from multimodal_ssl import MapSource, PairingSource, Sample
from multimodal_ssl.data import hash64
from multimodal_ssl.subset import Subset


@final
class First(PairingSource):
    """The first samples of a stream: one shard, since they are counted across those of the source."""

    def __init__(self, source: PairingSource, count: int) -> None:
        self.source, self.count = source, count
        self.modalities, self.skipped = source.modalities, source.skipped

    def __iter__(self) -> Iterator[Sample]:
        return islice(self.source, self.count)


def limit(source: PairingSource, count: int, *, seed: int | None) -> PairingSource:
    """Return the first so many samples, or so many at random, in their order."""
    if isinstance(source, MapSource):
        if seed is None or count >= len(source):
            return Subset(source, np.arange(min(count, len(source))))
        return Subset(source, np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False)))
    if seed is None:
        return First(source, count)
    least = heapq.nsmallest(
        count + 1, (_lot(seed, sample) for sample in source)
    )  # one more: may it be of the same key?
    check_keys((key for _, key in least), "limit.seed")
    return Through(source, partial(_up_to, seed, least[:count][-1] if least else (0, "")))


def _lot(seed: int, sample: Sample) -> tuple[int, str]:
    return int(hash64([f"{seed} {sample.key}"])[0]), sample.key


def _up_to(seed: int, most: tuple[int, str], samples: Iterator[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if _lot(seed, sample) <= most)
