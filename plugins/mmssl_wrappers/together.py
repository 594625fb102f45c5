"""Samples of several sources side by side: the items of all of them are one sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from mmssl_wrappers.links import Rows
from mmssl_wrappers.reading import pair_key
from multimodal_ssl import InputError, Manifest, MapSource, Sample, UnreadableError
from multimodal_ssl.data import number_groups
from multimodal_ssl.items import Items

Names = Mapping[str, str]


@final
class Together(MapSource):
    """Sample i holds the items of row rows[i, s] of each source s [N, S], -1 being none.

    Args:
        names: of each source, its names of items -> the names here; what is not in it is left out.
        groups: [N].
        weights: [N], by which the weights of the rows are multiplied.
    """

    def __init__(
        self, sources: Sequence[MapSource], names: Sequence[Names], rows: Rows, groups: Sequence[str],
        weights: Sequence[float], skipped: Sequence[tuple[str, str]],
    ) -> None:  # fmt: skip
        self.sources, self.names, self.rows, self.groups = sources, names, rows, groups
        self.weights, self.skipped = weights, skipped
        self.modalities = {
            new: source.modalities[old]
            for source, some in zip(sources, names, strict=True)
            for old, new in some.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        samples = [
            None if row < 0 else _read(source, row)
            for source, row in zip(self.sources, self.rows[index].tolist(), strict=True)
        ]
        for one in samples:
            if isinstance(one, UnreadableError):
                key = pair_key(each.key for each in samples if each is not None)
                raise UnreadableError(key, one.reason) from one
        read = [one for one in samples if not isinstance(one, UnreadableError)]
        return merge(read, self.names, self.groups[index], self.weights[index])

    def manifest(self) -> Manifest:
        present = np.zeros((len(self), len(self.modalities)), bool)
        length, frequency = np.zeros(present.shape, np.float32), np.ones(len(self), np.float32)
        knows_length = knows_frequency = False
        for source, names, rows in zip(self.sources, self.names, self.rows.T, strict=True):
            known, there = source.manifest(), np.flatnonzero(rows >= 0)
            some, rows = list(source.modalities), rows[there]
            for old, new in names.items():
                place = list(self.modalities).index(new)
                present[there, place] = known.present[rows, some.index(old)]
                if known.length is not None:
                    length[there, place] = known.length[rows, some.index(old)]
            knows_length |= known.length is not None
            if known.frequency is not None:
                frequency[there] *= known.frequency[rows]
                knows_frequency = True
        return Manifest(
            present,
            number_groups(self.groups),
            length if knows_length else None,
            frequency if knows_frequency else None,
        )


def merge(samples: Sequence[Sample | None], names: Sequence[Names], group: str, weight: float) -> Sample:
    """Return samples as one; of metadata of one name the later ones are called NAME 2, NAME 3 after their source."""
    here = [(n, one) for n, one in enumerate(samples) if one is not None]
    metadata: dict[str, str | float | None] = {}
    for n, one in here:
        metadata |= {name if name not in metadata else f"{name} {n + 1}": value for name, value in one.metadata.items()}
    key = pair_key(one.key for _, one in here)
    places = {names[n][old]: (one.items, old) for n, one in here for old in one.items if old in names[n]}
    return Sample(
        key,
        Items(key, places),
        group,
        weight * math.prod(one.weight for _, one in here),
        metadata,
    )


def _read(source: MapSource, row: int) -> Sample | UnreadableError:
    try:
        return source[row]
    except UnreadableError as error:
        return error


def check_names(names: Sequence[Names], what: str, remedy: str) -> None:
    """Raise InputError if two sources give items the same name."""
    owners: dict[str, int] = {}
    for n, some in enumerate(names):
        for new in some.values():
            if owners.setdefault(new, n) != n or [*some.values()].count(new) > 1:
                raise InputError(f"{what}: items of two sources are called {new!r}; {remedy}")
