from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from multimodal_ssl import Catalog, Encoder, InputError, MapSource, Modality, Preview, Sample, hookimpl, objectives
from multimodal_ssl.audit import Audit, audit
from multimodal_ssl.audit_page import write_page
from multimodal_ssl.config import parse_config
from multimodal_ssl.corrupt import Corrupted
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.metrics import auroc
from multimodal_ssl.pipeline import open_supplies

COUNT = 3000


class Sensors(MapSource):
    """Two noisy sensors of one latent state [6]; group is the machine, of three samples."""

    modalities = {"left": "reading", "right": "reading"}

    def __init__(self, *, seed: int = 0, count: int = COUNT) -> None:
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(count, 6))
        maps = np.random.default_rng(99).normal(size=(2, 6, 24))
        self.readings = [np.tanh(latent @ one / 2) + 0.1 * rng.normal(size=(count, 24)) for one in maps]

    def __len__(self) -> int:
        return len(self.readings[0])

    def __getitem__(self, index: int) -> Sample:
        items = dict(zip(self.modalities, (one[index].astype(np.float32) for one in self.readings), strict=True))
        return Sample(f"s{index}", items, f"machine {index // 3}")


class Dense(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.modality, self.width = "reading", 48
        self.layers = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 48), nn.GELU())

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        return torch.from_numpy(item)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


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


CATALOG = Catalog.of(sensors=Plugin(), objectives=objectives)


def config(folder: Path, *, steps: int = 240, **source: Any) -> Any:
    return parse_config(
        {
            "run": str(folder / "run"),
            "sources": [{"name": "sensors", **source}],
            "encoders": {"left": "dense", "right": "dense"},
            "binder": {"dim": 16},
            "train": {"steps": steps, "batch": 100, "lr": 3e-3, "workers": 0, "threads": 1, "precision": "fp32"},
        }
    )


@functools.cache
def audited(folder: Path, rate: float) -> tuple[Audit, Mapping[str, bool]]:
    settings = config(folder, corrupt={"mismatch": rate, "seed": 5})
    source = open_supplies(settings.sources, CATALOG)[0].source
    assert isinstance(source, Corrupted)
    truth = {sample.key: bool(wrong) for sample, wrong in zip(source, source.mismatched, strict=True)}
    return audit(settings, folder / "audit", catalog=CATALOG), truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


def test_the_planted_mismatches_are_found_and_counted(folder: Path) -> None:
    found, truth = audited(folder, 0.3)
    keys, p = found.table["key"].to_pylist(), np.array(found.table["p_mismatch"].to_pylist())
    assert sorted(keys) == sorted(truth)
    wrong = np.array([truth[key] for key in keys])
    assert auroc(np.array(found.table["p_value"].to_pylist()), wrong) > 0.97
    (rate,) = found.rates
    assert rate.gross.value == pytest.approx(0.3, abs=0.03)
    assert rate.gross.low <= 0.3 <= rate.gross.high
    assert rate.any_upper >= rate.gross.value
    assert (np.diff(p) <= 0).all(), "the worst come first"
    above, expected = rate.expected["0.9"]
    assert above == (p >= 0.9).sum()
    assert wrong[p >= 0.9].sum() == pytest.approx(expected, rel=0.05)


def test_the_suggestion_is_the_partner_that_was_taken_away(folder: Path) -> None:
    found, truth = audited(folder, 0.3)
    clean, noisy = Sensors(), open_supplies(config(folder, corrupt={"mismatch": 0.3, "seed": 5}).sources, CATALOG)
    holder = {noisy[0].source[i].items["right"].tobytes(): f"s{i}" for i in range(COUNT)}  # type: ignore[index]
    owner = {f"s{i}": holder[clean[i].items["right"].tobytes()] for i in range(COUNT)}
    suspects = [one for one in found.table.to_pylist() if truth[one["key"]]]
    # A partner in the other fold can't be suggested: about half of them.
    right = sum(one["suggestion"] == owner[one["key"]] for one in suspects)
    assert right / len(suspects) > 0.3


def test_clean_pairs_are_not_accused(tmp_path: Path) -> None:
    (rate,) = audit(config(tmp_path), tmp_path / "audit", catalog=CATALOG).rates
    assert rate.gross.value <= 0.02
    assert rate.expected["0.9"][0] <= 0.01 * COUNT


def test_an_audit_that_was_stopped_takes_what_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = audited(folder, 0.3)
    monkeypatch.setattr("multimodal_ssl.audit.fit", None)  # nothing is trained again
    again = audit(config(folder, corrupt={"mismatch": 0.3, "seed": 5}), folder / "audit", catalog=CATALOG)
    assert again.table.equals(found.table)


def test_what_is_saved_can_be_read(folder: Path, tmp_path: Path) -> None:
    found, _ = audited(folder, 0.3)
    found.save(tmp_path)
    assert pq.ParquetFile(tmp_path / "audit.parquet").read().equals(found.table)
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert figures["rates"][0]["gross"][0] == found.rates[0].gross.value


def test_the_page_shows_the_worst_pairs_with_their_suggestions_and_needs_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    found, _ = audited(folder, 0.3)
    settings = config(folder, corrupt={"mismatch": 0.3, "seed": 5})
    write_page(tmp_path / "audit.html", found, settings, top=7, catalog=CATALOG)
    page = (tmp_path / "audit.html").read_text()
    for one in found.table.slice(0, 7).to_pylist():
        assert f"<code>{one['key']}</code>" in page
        assert f"<code>{one['suggestion']}</code>" in page
    noisy = open_supplies(settings.sources, CATALOG)[0].source
    shown = next(sample for sample in noisy if sample.key == found.table["key"][0].as_py())
    assert str(shown.items["right"][0]) in page, "what was swapped is shown, not what was there before"
    assert "http" not in page
    assert page.count("<rect") == 50


def test_a_config_of_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"take away sources\.N\.fold"):
        audit(config(tmp_path, fold={"of": 2, "index": 0}), tmp_path / "audit", catalog=CATALOG)
