"""A source whose items are features from the cache, in place of what frozen encoders would make them of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import number_groups
from multimodal_ssl.features.store import FeatureStore
from multimodal_ssl.items import overlay
from multimodal_ssl.skipped import Skipped
from multimodal_ssl.types import Columns, Manifest, MapSource, PairingSource, Sample


@dataclass(frozen=True, slots=True)
class Known:
    """What was seen of the samples that could be read.

    Attributes:
        keys, groups, weights: [N].
        rows: [N], where the source has random access.
        features: name of the items -> the keys of their views in the store [N, V], 0 where there is none.
        kinds: name of these items -> what they are now: ``vector`` or ``tokens``.
        present: names of the items of each sample.
        unreadable: key and reason of the other samples.
    """

    keys: Sequence[str]
    groups: Sequence[str]
    weights: Sequence[float]
    rows: Sequence[int]
    features: Mapping[str, NDArray[np.int64]]
    kinds: Mapping[str, str]
    present: Sequence[tuple[str, ...]]
    unreadable: Sequence[tuple[str, str]]


@final
class FeatureSource(MapSource):
    """The samples of a source with features as some of their items, or as all: then the source is not read again.

    Args:
        source: what the samples are of.
        modalities: of the items that the samples keep.
        stores: name -> where its features are.
    """

    def __init__(
        self,
        source: PairingSource,
        modalities: Mapping[str, str],
        known: Known,
        stores: Mapping[str, FeatureStore],
    ) -> None:
        self.known, self.stores = known, dict(stores)
        self.source = source if isinstance(source, MapSource) and len(stores) < len(modalities) else None
        self.modalities = {name: known.kinds.get(name, kind) for name, kind in modalities.items()}
        self.skipped = Skipped([("", source.skipped), ("", known.unreadable)])
        self._rows = {
            name: stores[name].find(keys.ravel()).reshape(keys.shape) for name, keys in known.features.items()
        }
        self._vectors = {name: store.vectors() for name, store in stores.items()}
        self._manifest = _manifest(source, tuple(modalities), known)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_vectors": {}}  # a process that it is sent to maps the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._vectors = {name: store.vectors() for name, store in self.stores.items()}

    def __len__(self) -> int:
        return len(self.known.keys)

    def __getitem__(self, index: int) -> Sample:
        known = self.known
        items: Mapping[str, Any] = {
            name: self._views(name, index) for name in self.stores if name in known.present[index]
        }
        if self.source:
            below = self.source[known.rows[index]].items
            items = overlay(known.keys[index], below, {name: items if name in items else None for name in self.stores})
        return Sample(known.keys[index], items, known.groups[index], known.weights[index])

    def _views(self, name: str, index: int) -> Any:
        vectors, rows = self._vectors[name], self._rows[name][index]
        if self.known.kinds[name] == "vector":
            return vectors[rows]
        return [vectors[first : last + 1] for first, last in zip(self.stores[name].first(rows), rows, strict=True)]

    def columns(self, rows: Sequence[int], names: Sequence[str]) -> Columns | None:
        known = self.known
        if self.source or any(known.kinds[name] != "vector" for name in names):
            return None
        return Columns(
            [known.keys[row] for row in rows],
            [known.groups[row] for row in rows],
            [known.weights[row] for row in rows],
            [{} for _ in rows],
            {name: self._vectors[name][self._rows[name][rows]] for name in names},
        )

    def manifest(self) -> Manifest:
        return self._manifest


def _manifest(source: PairingSource, names: Sequence[str], known: Known) -> Manifest:
    present = np.array([[name in has for name in names] for has in known.present], bool).reshape(-1, len(names))
    group = number_groups(known.groups)
    if not isinstance(source, MapSource):
        return Manifest(present, group)
    told = source.manifest().take(np.array(known.rows, np.int64))
    columns = [list(source.modalities).index(name) for name in names]
    return Manifest(present, group, None if told.length is None else told.length[:, columns], told.frequency)
