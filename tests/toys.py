"""Toys: numbers that were seen together and encoders of a few weights, so that a whole run takes a blink.

And one config of real sources and encoders, as small as they can be.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from multimodal_ssl import (
    Catalog,
    Encoder,
    InputError,
    LazyItem,
    Manifest,
    MapSource,
    Modality,
    Objective,
    PairingSource,
    Preview,
    Sample,
    UnreadableError,
    hookimpl,
    objectives,
)
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import Config, parse_config
from multimodal_ssl.data import number_groups
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import fit

NUMBER = Modality("number", float, float, lambda item: Preview(text=str(item)))
WORD = Modality("word", str, str, lambda item: Preview(text=item))
TINY: dict[str, Any] = {
    "sources": [
        {"name": "glyphs", "use": ["image", "text"], "limit": 600},
        {"name": "glyphs", "use": ["image", "outline"], "limit": 600},
    ],
    "evaluation": [{"name": "glyphs", "split": "test", "fonts_per_character": 1, "limit": 60}],
    "encoders": {
        "image": {"name": "small-conv", "size": 24, "channels": 1, "width": 16, "depth": 1},
        "text": {"name": "small-text", "width": 32, "depth": 1, "heads": 1, "vocabulary": 300, "length": 16},
        "outline": {"name": "series-conv", "channels": 3, "width": 16, "depth": 1, "length": 64},
    },
    "binder": {"dim": 32},
    "train": {
        "steps": 24, "batch": 15, "workers": 0, "log_every": 1, "checkpoint_every": 3, "threads": 1,
        "precision": "fp32",
    },
}  # fmt: skip
TIMES = {"seconds", "waiting", "samples_per_second"}  # of metrics.jsonl: they differ from run to run


@dataclass(frozen=True)
class Lazy(LazyItem):
    """An item that is read when it is used, from a place of its own; None is gone by then."""

    place: object
    value: Any = field(repr=False)

    def read(self) -> Any:
        if self.value is None:
            raise ValueError("it is gone")
        return self.value


class Numbers(MapSource):
    """Sample i holds the number i under each name in `kind(i)`; reading one of `broken` fails."""

    def __init__(
        self,
        count: int,
        names: str = "ab",
        *,
        kind: Callable[[int], str] | None = None,
        broken: Collection[int] = (),
        weights: Mapping[int, float] | None = None,
        group: Callable[[int], str] = lambda _: "",
    ) -> None:
        self.modalities = dict.fromkeys(names, "number")
        self.count, self.kind, self.broken = count, kind or (lambda _: names), frozenset(broken)
        self.weights, self.group = weights or {}, group

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise UnreadableError(str(index), "broken")
        items = dict.fromkeys(self.kind(index), index)
        return Sample(str(index), items, self.group(index), self.weights.get(index, 1.0))

    def manifest(self) -> Manifest:
        groups = number_groups([self.group(row) for row in range(self.count)])
        return replace(manifest_of(self, self.kind), group=groups)


class Torn(Numbers):
    """Numbers on a disk that fails at 7; the source has not foreseen it."""

    def __getitem__(self, index: int) -> Sample:
        if index == 7:
            raise OSError("disk")
        return super().__getitem__(index)


class Stream(PairingSource):
    """The samples of a MapSource one after the other; it skips what can't be read, and says so."""

    def __init__(self, source: MapSource) -> None:
        self.source, self.modalities = source, source.modalities
        self.skipped: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self.source)):
            try:
                yield self.source[index]
            except UnreadableError as error:
                self.skipped.append((f"line {error.key}", error.reason))


class Waves(Encoder):
    """Puts a number on a circle; augmentation shakes it."""

    modality, width, dropout = "number", 8, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(2, 8), nn.Dropout(self.dropout)

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        angle = item + (0 if rng is None else 0.01 * rng.normal())
        return torch.tensor([np.sin(angle), np.cos(angle)], dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.layer(inputs)))

    def tally(self, inputs: Tensor) -> Mapping[str, int]:
        return {"seen": len(inputs)}


def units(count: int, width: int = 8, *, seed: int = 0) -> NDArray[np.float32]:
    """Return unit vectors [N, D]."""
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def nothing() -> None:
    """Make nothing."""


class Offering:
    """A plugin that registers one encoder for every name."""

    def __init__(self, *names: str, factory: Callable[..., Any] = nothing) -> None:
        self.names, self.factory = names, factory

    @hookimpl
    def register_encoders(self, register: Register) -> None:
        for name in self.names:
            register(name, self.factory)


def catalog(
    sources: Sequence[PairingSource],
    *,
    encoder: Callable[[], Encoder] = Waves,
    objective: Callable[[Any], Objective] | None = None,
) -> Catalog:
    """Register sources as "0", "1", ..., the encoder as "waves" and an objective as "toy"."""

    class Toys:
        @hookimpl
        def register_modalities(self, register: Register) -> None:
            register("number", lambda: NUMBER)
            register("word", lambda: WORD)

        @hookimpl
        def register_encoders(self, register: Register) -> None:
            register("waves", encoder)

        @hookimpl
        def register_pairing_sources(self, register: Register) -> None:
            for position, source in enumerate(sources):
                register(str(position), functools.partial(lambda one: one, source))

        @hookimpl
        def register_objectives(self, register: Register) -> None:
            if objective:
                register("toy", objective)

    return Catalog.of(toys=Toys(), objectives=objectives)


def toy_config(
    run: Path,
    names: str,
    count: int = 1,
    *,
    objective: str = "info-nce",
    trust: Mapping[str, Any] | None = None,
    **train: Any,
) -> Config:
    """Return the config of a run on the first `count` sources of a catalog of toys."""
    defaults = {"steps": 6, "batch": 8, "lr": 1e-2, "workers": 0, "threads": 1, "precision": "fp32", "log_every": 1}
    return parse_config(
        {
            "run": str(run),
            "sources": [str(position) for position in range(count)],
            "encoders": dict.fromkeys(names, "waves"),
            "objective": objective,
            "trust": trust or {},
            "binder": {"dim": 4},
            "train": {**defaults, **train},
        }
    )


def fit_toys(
    run: Path,
    *sources: PairingSource,
    encoder: Callable[[], Encoder] = Waves,
    objective: Callable[[Any], Objective] | None = None,
    resume: bool = False,
    **train: Any,
) -> Binder:
    """Train on toys."""
    names = "".join(dict.fromkeys(itertools.chain.from_iterable(source.modalities for source in sources)))
    config = toy_config(run, names, len(sources), objective="toy" if objective else "info-nce", **train)
    return fit(config, resume=resume, catalog=catalog(sources, encoder=encoder, objective=objective))


def toy_binder(names: str = "ab", encoder: Callable[[], Encoder] = Waves, *, seed: int = 0) -> Binder:
    """Return a Binder that has learnt nothing."""
    torch.manual_seed(seed)
    return Binder({name: encoder() for name in names}, dict.fromkeys(names, NUMBER), dim=4)


def messy() -> list[PairingSource]:
    """Return a source of mixed kinds, weights and groups with samples that can't be read, and a stream alike."""

    def kind(index: int) -> str:
        return "abc" if index % 3 else "ab"

    def group(index: int) -> str:
        return f"tenth {index // 10}" if index % 2 else ""

    weights = {index: (index % 7 + 1) / 7 for index in range(50)}
    return [
        Numbers(50, "abc", kind=kind, broken={3, 4, 5, 20, 21}, weights=weights, group=group),
        Stream(Numbers(50, "abc", kind=kind, broken={6, 7}, group=group)),
    ]


def write_tiny(folder: Path, **train: Any) -> Path:
    """Write the config of a run of glyphs into a folder."""
    path = folder / "tiny.yaml"
    values = {**TINY, "run": str(folder / "run"), "train": {**TINY["train"], **train}}
    path.write_text(yaml.safe_dump(values))
    return path


@contextmanager
def interrupted(*, step: int) -> Iterator[None]:
    """Expect training to be stopped in its n-th step, when the weights have changed and nothing was written."""
    steps = itertools.count(1)

    def stop(*_: object) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt

    handle = register_optimizer_step_post_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        handle.remove()


def refusal(call: Callable[[], object]) -> str:
    """Return what the InputError says."""
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_rows(run: Path) -> list[dict[str, Any]]:
    """Return the samples that a run could not read."""
    return pq.ParquetFile(run / "rows.parquet").read().to_pylist()


def present(source: MapSource, row: int) -> set[str]:
    """Return the names of the items that the manifest says a sample has."""
    return set(itertools.compress(source.modalities, source.manifest().present[row].tolist()))


def manifest_of(source: MapSource, kind: Callable[[int], Collection[str]]) -> Manifest:
    """Return a manifest that says which items the samples have."""
    return Manifest(np.array([[name in kind(row) for name in source.modalities] for row in range(len(source))]))


def learnt(run: Path) -> list[dict[str, Any]]:
    """Return what metrics.jsonl tells, but for the times."""
    return [{name: one[name] for name in one if name not in TIMES} for one in read_lines(run / "metrics.jsonl")]
