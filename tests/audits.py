"""Audits of toys: two sensors of one state, clean or with a defect of every kind, and the config that audits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_ssl import (
    Catalog,
    Encoder,
    Manifest,
    MapSource,
    Modality,
    PairingSource,
    Preview,
    Sample,
    UnreadableError,
    hookimpl,
    objectives,
)
from multimodal_ssl.audit import Audit, audit
from multimodal_ssl.config import Config, parse_config
from multimodal_ssl.corrupt import Corrupted
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import open_supplies

from .toys import manifest_of

COUNT = 3000


class Sensors(MapSource):
    """Two noisy sensors of one latent state [6]; group is the machine, of so many samples. The last may be gone."""

    modalities = {"left": "reading", "right": "reading"}

    def __init__(self, *, seed: int = 0, count: int = COUNT, machine: int = 3, gone: int = 0) -> None:
        self.machine, self.gone = machine, gone
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(count, 6))
        maps = np.random.default_rng(99).normal(size=(2, 6, 24))
        self.readings = [np.tanh(latent @ one / 2) + 0.1 * rng.normal(size=(count, 24)) for one in maps]

    def __len__(self) -> int:
        return len(self.readings[0]) - self.gone

    def __getitem__(self, index: int) -> Sample:
        items = dict(zip(self.modalities, (one[index].astype(np.float32) for one in self.readings), strict=True))
        return Sample(f"s{index}", items, f"machine {index // self.machine}")


class Messy(MapSource):
    """The same two sensors, four readings of one state each (a machine), with one defect of every kind.

    Machines of the shop "old" got the right reading of another one in their second sample; those of "new" are clean,
    and the shift says nothing. Twelve new machines share a left reading in their last sample; the last ones hold a copy
    of another's pair, a reading out of range and samples that can't be read.
    """

    modalities = {"left": "reading", "right": "reading"}

    def __init__(self, *, machines: int = 300) -> None:
        count, rng = 4 * machines, np.random.default_rng(1)
        latent = np.repeat(rng.normal(size=(machines, 6)), 4, 0) + 0.3 * rng.normal(size=(count, 6))
        maps = np.random.default_rng(99).normal(size=(2, 6, 24))
        left, right = (np.tanh(latent @ one / 2) + 0.1 * rng.normal(size=(count, 24)) for one in maps)
        self.swapped = [row for row in range(count) if self.shop(row) == "old" and row % 4 == 1]
        right[self.swapped] = np.roll(right[self.swapped], 1, 0)
        self.sharing = [4 * machine + 3 for machine in range(2, 2 + 3 * 12, 3)]
        left[self.sharing] = left[self.sharing[0]]
        self.copy, self.original, self.torn, self.extreme = count - 1, count - 13, (count - 2, count - 3), count - 4
        left[self.copy], right[self.copy] = left[self.original], right[self.original]
        left[self.extreme, 0] = 9
        self.readings = {"left": left.astype(np.float32), "right": right.astype(np.float32)}

    def shop(self, row: int) -> str:
        return "new" if row // 4 % 3 else "old"

    def __len__(self) -> int:
        return len(self.readings["left"])

    def __getitem__(self, index: int) -> Sample:
        if index == self.torn[0]:
            raise UnreadableError(f"m{index}", "broken")
        items: dict[str, Any] = {name: one[index] for name, one in self.readings.items()}
        if index == self.torn[1]:
            items["right"] = "no array"
        metadata: dict[str, str | float | None] = {
            "shop": self.shop(index),
            "shift": index // 4 % 2,
            "serial": index,
            "blank": "",
        }
        return Sample(f"m{index}", items, f"messy {index // 4}", metadata=metadata)


class Triples(Sensors):
    """A third sensor, on the same kind of wire as the first."""

    modalities = {"left": "reading", "right": "reading", "third": "reading"}

    def __init__(self) -> None:
        super().__init__(count=1500)
        rng = np.random.default_rng(7)
        self.readings.append(0.5 * self.readings[0][:, ::-1] + 0.1 * rng.normal(size=(1500, 24)))


class Gaps(Triples):
    """Three of them lack the third reading."""

    def manifest(self) -> Manifest:
        return manifest_of(self, self.has)

    def has(self, index: int) -> tuple[str, ...]:
        return ("left", "right") if index % 500 == 7 else tuple(self.modalities)

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return replace(sample, items={name: sample.items[name] for name in self.has(index)})


class Hard(Sensors):
    """Sensors a third of whose left readings say nothing of the right ones: these can be memorised, not learnt."""

    def __init__(self, *, count: int = COUNT) -> None:
        super().__init__(count=count)
        hard = [row for row in range(count) if self.is_hard(row)]
        self.readings[0][hard] = np.random.default_rng(5).normal(size=(len(hard), 24))

    @staticmethod
    def is_hard(row: int) -> bool:
        return row // 3 % 3 == 0


class Repeated(Sensors):
    """Sensors some of whose keys repeat."""

    def __init__(self) -> None:
        super().__init__(count=30)

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), key=f"s{index % 25}")


class Alike(Sensors):
    """Eight machines of each kind in states that resemble each other; two of the eight have each other's reading."""

    def __init__(self) -> None:
        super().__init__(count=2400, machine=1)
        rng = np.random.default_rng(0)
        latent = np.repeat(rng.normal(size=(300, 6)), 8, 0) + 0.35 * rng.normal(size=(2400, 6))
        maps = np.random.default_rng(99).normal(size=(2, 6, 24))
        self.readings = [np.tanh(latent @ one / 2) + 0.05 * rng.normal(size=(2400, 24)) for one in maps]
        pairs = np.arange(2400).reshape(-1, 8)[:, [1, 4]]
        self.readings[1][pairs] = self.readings[1][pairs[:, ::-1]]
        self.swapped = set(pairs.ravel().tolist())


class Endless(PairingSource):
    """A stream that must not be read to its end."""

    modalities = Sensors.modalities

    def __iter__(self) -> Iterator[Sample]:
        while True:
            yield from Sensors(count=30)


class Dense(Encoder):
    """Encodes a reading; it counts those out of range."""

    def __init__(self) -> None:
        super().__init__()
        self.modality, self.width = "reading", 48
        self.layers = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 48), nn.GELU())

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        return torch.from_numpy(item)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

    def tally(self, inputs: Tensor) -> Mapping[str, int]:
        return {"out of range": int((inputs.abs().amax(1) > 5).sum())}


class Plugin:
    @hookimpl
    def register_modalities(self, register: Register) -> None:
        reading = Modality("reading", np.ndarray, lambda value: value, lambda item: Preview(text=str(item[0])))
        register("reading", lambda: reading)

    @hookimpl
    def register_encoders(self, register: Register) -> None:
        register("dense", Dense)

    @hookimpl
    def register_pairing_sources(self, register: Register) -> None:
        register("sensors", Sensors)
        register("messy", Messy)
        register("repeated", Repeated)
        register("triples", Triples)
        register("hard", Hard)
        register("gaps", Gaps)
        register("endless", Endless)
        register("alike", Alike)


CATALOG = Catalog.of(sensors=Plugin(), objectives=objectives)


def config(
    folder: Path, *others: dict[str, Any], name: str = "sensors", steps: int = 240, batch: int = 100, **source: Any
) -> Config:
    """Return the config of a run on one source of the catalog and the others."""
    return parse_config(
        {
            "run": str(folder / "run"),
            "sources": [{"name": name, **source}, *others],
            "encoders": {"left": "dense", "right": "dense"},
            "binder": {"dim": 16},
            "train": {"steps": steps, "batch": batch, "lr": 3e-3, "workers": 0, "threads": 1, "precision": "fp32"},
        }
    )


class PlantedAudit(NamedTuple):
    """An audit in `folder` of sensors of which 30 % are mismatched; truth: key -> whether the pair is."""

    settings: Config
    folder: Path
    found: Audit
    truth: Mapping[str, bool]

    @property
    def source(self) -> Corrupted:
        return corrupted(self.settings)


class MessyAudit(NamedTuple):
    """An audit in `folder` of the messy source beside a clean one; rows: those of the messy one by their number."""

    settings: Config
    folder: Path
    found: Audit
    rows: Mapping[int, dict[str, Any]]


def corrupted(settings: Config) -> Corrupted:
    """Open the source of a config that plants mismatches."""
    source = open_supplies(settings.sources, CATALOG)[0].source
    assert isinstance(source, Corrupted)
    return source


def audit_planted(folder: Path) -> PlantedAudit:
    """Train and judge, which takes seconds."""
    settings = config(folder, corrupt={"mismatch": 0.3, "seed": 5})
    source = corrupted(settings)
    truth = {sample.key: bool(wrong) for sample, wrong in zip(source, source.mismatched, strict=True)}
    return PlantedAudit(settings, folder / "audit", audit(settings, folder / "audit", catalog=CATALOG), truth)


def audit_messy(folder: Path) -> MessyAudit:
    """Train and judge, which takes seconds."""
    clean = {"name": "sensors", "count": 600, "seed": 3, "machine": 1}
    settings = config(folder, clean, name="messy", steps=100)
    found = audit(settings, folder / "audit", catalog=CATALOG)
    rows = {row["key"]: row for row in found.table.to_pylist()}
    numbered = {int(key.removeprefix("0/m")): row for key, row in rows.items() if key.startswith("0/")}
    return MessyAudit(settings, folder / "audit", found, numbered)


def having(rows: Mapping[int, dict[str, Any]], reason: str) -> set[int]:
    """Return the numbers of the rows that have this reason."""
    return {number for number, row in rows.items() if reason in row["reasons"]}
