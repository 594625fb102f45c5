"""Sources for the tests of sources that are made of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest

import mmssl_wrappers
from multimodal_ssl import Catalog, InputError, Manifest, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import number_groups
from multimodal_ssl.testing import check_pairing_source

CATALOG = Catalog.of(wrappers=mmssl_wrappers)


class Decoded(Mapping[str, Any]):
    """Items that are decoded when they are asked for, as those of a film; None is damaged there."""

    looks = 0  # at any item

    def __init__(self, **items: Any) -> None:
        self.items_ = items

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def __contains__(self, name: object) -> bool:
        return name in self.items_

    def __getitem__(self, name: str) -> Any:
        Decoded.looks += 1
        if self.items_[name] is None:
            raise UnreadableError("a film", "damaged")
        return self.items_[name]


class Listed(MapSource):
    """The samples of a list; None can't be read."""

    def __init__(self, samples: Sequence[Sample | None], modalities: dict[str, str] | None = None) -> None:
        self.samples = samples
        self.modalities = modalities or dict.fromkeys(
            sorted({name for one in samples if one for name in one.items}), "text"
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if sample is None:
            raise UnreadableError(f"broken {index}", "broken")
        return sample

    def manifest(self) -> Manifest:
        present = np.array([[bool(one) and name in one.items for name in self.modalities] for one in self.samples])
        return Manifest(
            present,
            number_groups([one.group if one else "" for one in self.samples]),
            np.where(present, np.arange(len(self))[:, None], 0).astype(np.float32),
        )


class Sharded(PairingSource):
    """The samples of a list as a stream of shards."""

    def __init__(self, samples: Sequence[Sample], *, size: int = 7) -> None:
        self.samples, self.size = samples, size
        self.modalities = Listed(samples).modalities
        self.num_shards = -(-len(samples) // size)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        return iter(self.samples[shard * self.size + start : (shard + 1) * self.size])


def wrap(name: str, **options: Any) -> Any:
    """Open a source of sources through the catalog, which checks the options."""
    return CATALOG.create("pairing_sources", name, options=options)


def keys(source: PairingSource) -> list[str]:
    return [sample.key for sample in source]


def refusal(call: Callable[[], object]) -> str:
    """Return what the InputError says, which must be one line."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(source: PairingSource) -> None:
    """Check a source, and that a stream can be entered anywhere."""
    check_pairing_source(source)
    if isinstance(source, MapSource):
        manifest = source.manifest()
        assert all(len(one) == len(source) for one in (manifest.present, manifest.group) if one is not None)
        return
    shards = [[one.key for one in source.read(shard, 0)] for shard in range(source.num_shards)]
    assert sorted(key for shard in shards for key in shard) == sorted(keys(source))
    for number, shard in enumerate(shards):
        for start in range(len(shard) + 2):
            assert [one.key for one in islice(source.read(number, start), 3)] == shard[start : start + 3]
