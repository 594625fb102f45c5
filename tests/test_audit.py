from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from multimodal_ssl import (
    Catalog,
    Encoder,
    InputError,
    MapSource,
    Modality,
    Preview,
    Sample,
    UnreadableError,
    hookimpl,
    objectives,
)
from multimodal_ssl.audit import Audit, audit
from multimodal_ssl.audit_page import write_page
from multimodal_ssl.config import AuditConfig, parse_config
from multimodal_ssl.corrupt import Corrupted
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import embed
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.metrics import auroc
from multimodal_ssl.pipeline import fit, load, open_supplies
from multimodal_ssl.significance import rank_p_values
from multimodal_ssl.subset import folds_of

from .toys import Numbers, catalog, toy_config

COUNT = 3000


class Sensors(MapSource):
    """Two noisy sensors of one latent state [6]; group is the machine, of so many samples."""

    modalities = {"left": "reading", "right": "reading"}

    def __init__(self, *, seed: int = 0, count: int = COUNT, machine: int = 3) -> None:
        self.machine = machine
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(count, 6))
        maps = np.random.default_rng(99).normal(size=(2, 6, 24))
        self.readings = [np.tanh(latent @ one / 2) + 0.1 * rng.normal(size=(count, 24)) for one in maps]

    def __len__(self) -> int:
        return len(self.readings[0])

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
        metadata: dict[str, str | float | None] = {"shop": self.shop(index), "shift": index // 4 % 2, "serial": index}
        return Sample(f"m{index}", items, f"messy {index // 4}", metadata=metadata)


class Repeated(Sensors):
    """Sensors some of whose keys repeat."""

    def __init__(self) -> None:
        super().__init__(count=30)

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), key=f"s{index % 25}")


class Dense(Encoder):
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


CATALOG = Catalog.of(sensors=Plugin(), objectives=objectives)


def config(
    folder: Path, *others: dict[str, Any], name: str = "sensors", steps: int = 240, batch: int = 100, **source: Any
) -> Any:
    return parse_config(
        {
            "run": str(folder / "run"),
            "sources": [{"name": name, **source}, *others],
            "encoders": {"left": "dense", "right": "dense"},
            "binder": {"dim": 16},
            "train": {"steps": steps, "batch": batch, "lr": 3e-3, "workers": 0, "threads": 1, "precision": "fp32"},
        }
    )


@functools.cache
def audited(folder: Path, rate: float) -> tuple[Audit, Mapping[str, bool]]:
    settings = config(folder, corrupt={"mismatch": rate, "seed": 5})
    source = open_supplies(settings.sources, CATALOG)[0].source
    assert isinstance(source, Corrupted)
    truth = {sample.key: bool(wrong) for sample, wrong in zip(source, source.mismatched, strict=True)}
    return audit(settings, folder / "audit", catalog=CATALOG), truth


@functools.cache
def messy(folder: Path) -> tuple[Audit, Mapping[int, dict[str, Any]]]:
    """Audit the messy source beside a clean one; return the rows of the messy one by their number, too."""
    found = audit(
        config(folder, {"name": "sensors", "count": 600, "seed": 3, "machine": 1}, name="messy", steps=100),
        folder / "messy",
        catalog=CATALOG,
    )
    rows = found.table.to_pylist()
    return found, {int(row["key"].removeprefix("0/m")): row for row in rows if row["key"].startswith("0/")}


def having(rows: Mapping[int, dict[str, Any]], reason: str) -> set[int]:
    return {number for number, row in rows.items() if reason in row["reasons"]}


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


def test_the_rates_by_metadata_and_source_tell_where_the_mismatches_were_planted(folder: Path) -> None:
    (rate,), source = messy(folder)[0].rates, Messy()
    parts = {(part.column, part.value): part for part in rate.parts}
    assert {column for column, _ in parts} == {"source", "shop", "shift"}, "each serial is too few for a rate"
    judged = [row for row in range(len(source)) if row not in source.torn]
    old = [row for row in judged if source.shop(row) == "old"]
    assert parts["shop", "old"].pairs == len(old)
    assert parts["shop", "new"].pairs == len(judged) - len(old)
    assert parts["source", "0"].pairs == len(judged)
    assert parts["source", "1"].pairs == 600
    assert parts["shop", "old"].gross.value == pytest.approx(0.25, abs=0.05)
    assert parts["shop", "old"].gross.low <= 0.25 <= parts["shop", "old"].gross.high
    assert parts["shop", "new"].gross.high < 0.05 < parts["shop", "old"].gross.low
    assert parts["source", "1"].gross.value < 0.02
    assert parts["source", "0"].gross.value == pytest.approx(111 / len(judged), abs=0.03)
    assert parts["shift", "0"].gross.low < parts["shift", "1"].gross.high
    assert parts["shift", "1"].gross.low < parts["shift", "0"].gross.high
    for column in ("source", "shop", "shift"):
        values = [part.gross.value for part in rate.parts if part.column == column]
        assert values == sorted(values, reverse=True), "the worst come first"


def test_an_item_that_quarrels_with_its_group_is_told_from_its_mates(folder: Path) -> None:
    (_, rows), source = messy(folder), Messy()
    wrong, mates = set(source.swapped), {row for row in rows if source.shop(row) == "old"} - set(source.swapped)
    found = having(rows, "right does not fit its group")
    assert len(found & wrong) > 0.85 * len(wrong)
    assert len(found & mates) < 0.1 * len(mates)
    assert len(having(rows, "left does not fit its group") & wrong) < 0.1 * len(wrong), "it is the right one's fault"


def test_pairs_without_mates_do_not_quarrel(folder: Path) -> None:
    alone = [row for row in messy(folder)[0].table.to_pylist() if row["key"].startswith("1/")]
    assert len(alone) == 600
    assert not any("group" in reason.split() for row in alone for reason in row["reasons"])


def test_mismatches_are_those_whose_probability_is_large(folder: Path) -> None:
    (_, rows), source = messy(folder), Messy()
    for row in rows.values():
        assert ("mismatch" in row["reasons"]) == (row["p_mismatch"] is not None and row["p_mismatch"] >= 0.5)
        assert not {"mismatch", "resembles"} <= set(row["reasons"])
    assert len(having(rows, "mismatch") & set(source.swapped)) > 0.85 * len(source.swapped)


def test_duplicates_shared_items_and_what_the_encoder_counts_are_named(folder: Path) -> None:
    found, rows = messy(folder)
    source = Messy()
    exact = {number: one for number, row in rows.items() for one in row["reasons"] if one.startswith("duplicate")}
    assert exact == {source.copy: f"duplicate of 0/m{source.original}"}
    assert not any(one.startswith("near duplicate") for one in rows[source.copy]["reasons"]), "it is told already"
    assert f"near duplicate of 0/m{source.copy}" in rows[source.original]["reasons"]
    assert having(rows, "left of 11 other groups") == set(source.sharing)
    assert not any(one.startswith("right of") for row in rows.values() for one in row["reasons"])
    assert having(rows, "left out of range") == {source.extreme}
    (rate,) = found.rates
    assert rate.reasons["duplicate"] == rate.reasons["left out of range"] == 1
    assert rate.reasons["left of many other groups"] == 12
    assert rate.reasons["mismatch"] == rate.expected["0.5"][0]
    assert "unreadable" not in rate.reasons, "they are no pairs"


def test_near_duplicates_are_as_good_as_the_same_to_the_first_model_in_both_modalities(folder: Path) -> None:
    found, _ = messy(folder)
    settings = config(folder, {"name": "sensors", "count": 600, "seed": 3, "machine": 1}, name="messy")
    views, _ = embed(load(folder / "messy" / "fold-0", catalog=CATALOG), open_supplies(settings.sources, CATALOG))
    left, right = views["left"], views["right"]
    groups = np.array(left.groups)
    cosines = np.minimum(left.vectors @ left.vectors.T, right.vectors @ right.vectors.T)
    cosines[groups[:, None] == groups] = -1
    expected = {left.keys[row] for row in np.flatnonzero((cosines >= 0.99).any(1))}
    rows = {left.keys[row]: row for row in range(len(left.keys))}
    told = {
        row["key"]: reason.removeprefix("near duplicate of ")
        for row in found.table.to_pylist()
        for reason in row["reasons"]
        if reason.startswith("near duplicate of ")
    }
    assert all(cosines[rows[key], rows[other]] >= 0.99 - 1e-4 for key, other in told.items())
    assert 2 <= len(told) < 0.05 * len(rows)
    assert len(expected - told.keys()) <= 0.2 * len(expected), "the few nearest hide hardly any"


def test_samples_that_can_not_be_read_are_rows_without_figures_and_say_why(folder: Path) -> None:
    found, rows = messy(folder)
    first, second = Messy().torn
    reasons = {first: "broken", second: "TypeError: expected np.ndarray (got str)"}
    for number, reason in reasons.items():
        nothing = dict.fromkeys(("first", "second", "p_value", "p_mismatch", "suggestion"))
        assert rows[number] == {"key": f"0/m{number}", **nothing, "reasons": [f"unreadable: {reason}"]}
    assert sorted(found.unreadable) == sorted((f"0/m{number}", reason) for number, reason in reasons.items())
    assert found.table["p_value"].null_count == 2
    assert found.table["key"].to_pylist()[-2:] == [key for key, _ in found.unreadable], "they come last"
    assert found.rates[0].pairs == len(found.table) - 2


def test_what_is_saved_and_shown_has_the_rates_by_part_and_the_unreadable(folder: Path, tmp_path: Path) -> None:
    found, _ = messy(folder)
    found.save(tmp_path)
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert [tuple(one) for one in figures["unreadable"]] == found.unreadable
    (rate,) = figures["rates"]
    assert [(one["column"], one["value"], one["pairs"], one["gross"]) for one in rate["parts"]] == [
        (one.column, one.value, one.pairs, list(one.gross)) for one in found.rates[0].parts
    ]
    assert pq.ParquetFile(tmp_path / "audit.parquet").read().equals(found.table)
    settings = config(folder, {"name": "sensors", "count": 600, "seed": 3, "machine": 1}, name="messy")
    write_page(tmp_path / "audit.html", found, settings, top=len(found.table), catalog=CATALOG)
    page = (tmp_path / "audit.html").read_text()
    assert "<td>shop<td>old<td" in page
    assert "TypeError: expected np.ndarray (got str)" in page
    assert "left out of range" in page
    assert page.count("left of 11 other groups") == 12


def test_equal_keys_of_two_sources_are_no_repetition_but_equal_pairs_are(tmp_path: Path) -> None:
    settings = config(tmp_path, {"name": "sensors", "count": 60}, count=60, steps=2, batch=8)
    found = audit(settings, tmp_path / "audit", catalog=CATALOG)
    rows = {row["key"]: row for row in found.table.to_pylist()}
    assert rows.keys() == {f"{source}/s{i}" for source in (0, 1) for i in range(60)}
    for key, row in rows.items():
        same = [one for one in row["reasons"] if one.startswith("duplicate")]
        assert same == ([f"duplicate of 0/{key[2:]}"] if key.startswith("1/") else [])
    assert found.rates[0].reasons["duplicate"] == 60


@pytest.mark.parametrize(("count", "is_few"), [(199, True), (200, False)])
def test_few_pairs_are_remarked_with_the_width_of_the_interval(tmp_path: Path, count: int, is_few: bool) -> None:
    (rate,) = audit(config(tmp_path, count=count, steps=4, batch=40), tmp_path / "audit", catalog=CATALOG).rates
    few = [note for note in rate.notes if "are few" in note]
    low, high = rate.gross.low, rate.gross.high
    told = f"{count} pairs are few: the rate lies between {low:.1%} and {high:.1%}, {high - low:.1%} wide"
    assert few == ([told] if is_few else [])
    assert high - low > 0.03


def test_where_all_pairs_are_wrong_the_rate_is_near_one_and_a_note_says_what_it_may_mean(tmp_path: Path) -> None:
    settings = config(tmp_path, count=600, steps=40, corrupt={"mismatch": 1.0})
    (rate,) = audit(settings, tmp_path / "audit", catalog=CATALOG).rates
    assert rate.gross.value > 0.85
    assert rate.gross.high == pytest.approx(1, abs=0.03)
    assert any(note.startswith("the models tell hardly a partner from a stranger") for note in rate.notes)


def test_the_notes_of_a_good_audit_are_none(folder: Path) -> None:
    assert audited(folder, 0.3)[0].rates[0].notes == []
    assert messy(folder)[0].rates[0].notes == []


def refuse(*_: object, **__: object) -> Any:
    raise AssertionError("a model is trained")


def test_with_one_fold_the_run_judges_what_it_was_trained_on_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, count=600, steps=60, corrupt={"mismatch": 0.3})
    binder = fit(settings, catalog=CATALOG)
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    found = audit(settings, tmp_path / "audit", folds=1, catalog=CATALOG)
    assert not (tmp_path / "audit").exists()
    views, _ = embed(binder, open_supplies(settings.sources, CATALOG))
    left, right = views["left"], views["right"]
    assert left.keys == right.keys
    expected = rank_p_values(left.vectors, right.vectors, hash64(left.groups), strangers=1000, seed=0)
    p_values = dict(zip(found.table["key"].to_pylist(), found.table["p_value"].to_pylist(), strict=True))
    assert p_values == pytest.approx(dict(zip(left.keys, expected.tolist(), strict=True)), abs=1e-3)
    (note,) = (note for note in found.rates[0].notes if "trained on these very pairs" in note)
    assert "the rate is too low" in note


def test_with_one_fold_and_no_run_the_run_of_the_config_is_trained(tmp_path: Path) -> None:
    audit(config(tmp_path, count=120, steps=2), tmp_path / "audit", folds=1, catalog=CATALOG)
    assert (tmp_path / "run" / "binder.json").exists()
    assert not (tmp_path / "audit").exists()


def test_more_folds_judge_each_pair_by_a_model_that_never_saw_its_group(tmp_path: Path) -> None:
    settings = config(tmp_path, count=600, steps=10)
    found = audit(settings, tmp_path / "audit", folds=3, catalog=CATALOG)
    assert len(set(found.table["key"].to_pylist())) == len(found.table) == 600
    fold = folds_of(Sensors(count=600), 3)
    for index in range(3):
        seen = set(pq.ParquetFile(tmp_path / "audit" / f"fold-{index}" / "trust.parquet").read()["names"].to_pylist())
        held = set(hash64(f"s{row}" for row in np.flatnonzero(fold == index)).tolist())
        assert seen
        assert not seen & held


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"name": "repeated"},
            "5 samples have a key that another one has, too; make them unique: 's0', 's1', 's2', 's3', 's4'",
        ),
        ({"machine": 10**6, "count": 300}, "the 300 samples are of 1 groups, too few"),
    ],
)
def test_what_can_not_be_judged_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], message: str, folds: int
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    with pytest.raises(InputError, match=re.escape(message)):
        audit(config(tmp_path, **source), tmp_path / "audit", folds=folds, catalog=CATALOG)
    assert not list(tmp_path.iterdir())


def test_more_folds_than_groups_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    with pytest.raises(InputError, match=r"are of 3 groups, too few for two in each of 5 folds.* fewer --folds"):
        audit(config(tmp_path, count=300, machine=100), tmp_path / "audit", folds=5, catalog=CATALOG)


def test_what_the_audit_holds_for_wrong_is_not_trained_on(folder: Path, tmp_path: Path) -> None:
    found, truth = audited(folder, 0.3)
    found.save(tmp_path)
    settings = config(tmp_path, corrupt={"mismatch": 0.3, "seed": 5})
    train = settings.train.model_copy(update={"steps": None, "epochs": 1})
    choice = AuditConfig(path=tmp_path / "audit.parquet")
    fit(settings.model_copy(update={"train": train, "audit": choice}), catalog=CATALOG)
    rows = found.table.to_pylist()
    kept = {row["key"] for row in rows if row["p_mismatch"] < 0.5}
    visited = set(pq.ParquetFile(tmp_path / "run" / "trust.parquet").read()["names"].to_pylist())
    seen = {key for key, name in zip(truth, hash64(truth).tolist(), strict=True) if name in visited}
    assert len(seen) == len(visited) == len(kept) // 100 * 100, "one epoch of full batches"
    assert seen <= kept
    assert sum(truth[key] for key in seen) < 0.05 * len(seen) < 0.3 * len(seen), "of which 30 % were wrong"


@pytest.mark.parametrize("machine", [150, 100])
def test_a_fold_of_one_group_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: int
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    with pytest.raises(InputError, match="stranger"):
        audit(config(tmp_path, count=300, machine=machine), tmp_path / "audit", catalog=CATALOG)


def test_groups_whose_members_are_not_alike_are_no_quarrel(tmp_path: Path) -> None:
    (rate,) = audit(config(tmp_path, count=900, steps=80), tmp_path / "audit", catalog=CATALOG).rates
    assert rate.reasons.get("right does not fit its group", 0) < 0.1 * rate.pairs


def test_an_item_that_one_model_has_no_vector_for_moves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, count=300, steps=30, batch=40)

    def p_values() -> dict[str, float]:
        table = audit(settings, tmp_path / "audit", catalog=CATALOG).table
        return dict(zip(table["key"].to_pylist(), table["p_value"].to_pylist(), strict=True))

    whole, calls = p_values(), iter(range(9))

    def forgetful(*given: Any, **options: Any) -> Any:
        found, unreadable = embed(*given, **options)
        if next(calls) == 1:  # the second model
            left = found["left"]
            place = left.keys.index("s5")
            left.vectors = np.delete(left.vectors, place, 0)
            for column in (left.keys, left.groups, left.traits, left.metadata):
                del column[place]  # type: ignore[attr-defined]
        return found, unreadable

    monkeypatch.setattr("multimodal_ssl.audit.embed", forgetful)
    found = p_values()
    assert all(found[key] == pytest.approx(whole[key], abs=0.01) for key in found.keys() - {"s5"})


class Torn(Numbers):
    def __getitem__(self, index: int) -> Sample:
        if index == 7:
            raise OSError("disk")
        return super().__getitem__(index)


def test_an_audit_survives_a_sample_whose_source_stumbles(tmp_path: Path) -> None:
    found = audit(toy_config(tmp_path / "run", "ab", steps=2), tmp_path / "audit", catalog=catalog([Torn(60)]), folds=1)
    assert found.unreadable == [("row 7", "OSError: disk")]
