"""What an audit refuses before anything is trained, what it remarks on, and audits of one judge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from multimodal_ssl import InputError
from multimodal_ssl.audit import audit
from multimodal_ssl.config import parse_config
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import embed
from multimodal_ssl.pipeline import fit, open_supplies
from multimodal_ssl.significance import rank_p_values

from .audits import CATALOG, MessyAudit, PlantedAudit, config


def refuse(*_: object, **__: object) -> Any:
    raise AssertionError("a model is trained")


def test_the_run_of_a_judge_is_refused(tmp_path: Path) -> None:
    values = {**config(tmp_path).model_dump(), "decoys": {"judges": 2, "judge": 0}}
    with pytest.raises(InputError, match="audit the config it was made for"):
        audit(parse_config(values), tmp_path / "audit", catalog=CATALOG)


@pytest.mark.parametrize("judges", [1, 2])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"name": "repeated"},
            "5 samples have a key that another one has, too; make them unique: 's0', 's1', 's2', 's3', 's4'",
        ),
        ({"machine": 10**6, "count": 300}, "the 300 samples are all of one group"),
    ],
)
def test_what_can_not_be_judged_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], message: str, judges: int
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    with pytest.raises(InputError, match=re.escape(message)):
        audit(config(tmp_path, **source), tmp_path / "audit", judges=judges, catalog=CATALOG)
    assert not list(tmp_path.iterdir())


def test_a_stream_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Endless has no random access to exchange partners by: write it to a table"):
        audit(config(tmp_path, name="endless"), tmp_path / "audit", catalog=CATALOG)


@pytest.mark.parametrize(("count", "machine"), [(300, 299), (30, 1)])
def test_samples_that_are_too_alike_or_too_few_for_decoys_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, machine: int
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    with pytest.raises(InputError, match=rf"only \d+ of {count} samples could exchange .* leave out `group`"):
        audit(config(tmp_path, count=count, machine=machine), tmp_path / "audit", catalog=CATALOG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "is_few"), [(199, True), (200, False)])
def test_few_samples_are_remarked_with_the_width_of_the_interval(tmp_path: Path, count: int, is_few: bool) -> None:
    (rate,) = audit(config(tmp_path, count=count, steps=20, batch=40), tmp_path / "audit", catalog=CATALOG).rates
    few = [note for note in rate.notes if "are few" in note]
    low, high = rate.gross.low, rate.gross.high
    told = f"{count} samples are few: the rate lies between {low:.1%} and {high:.1%}, {high - low:.1%} wide"
    assert few == ([told] if is_few else [])
    assert high - low > 0.03


def test_samples_that_no_judge_trained_on_have_no_figures_and_a_note_counts_them(tmp_path: Path) -> None:
    found = audit(config(tmp_path, count=300, steps=5, batch=40), tmp_path / "audit", catalog=CATALOG)
    unknown = [row for row in found.table.to_pylist() if row["p_value"] is None]
    assert 0 < len(unknown) < 300
    assert all(row["p_mismatch"] is None and "mismatch" not in row["reasons"] for row in unknown)
    assert found.rates[0].samples == 300 - len(unknown)
    assert found.rates[0].notes[0].startswith(f"{len(unknown)} of 300 samples of source 0 have no p-value")


def test_the_notes_of_a_good_audit_are_none(planted_audit: PlantedAudit, messy_audit: MessyAudit) -> None:
    assert planted_audit.found.rates[0].notes == []
    assert messy_audit.found.rates[0].notes == []


def test_with_one_judge_the_run_judges_what_it_was_trained_on_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, count=600, steps=60, corrupt={"mismatch": 0.3})
    binder = fit(settings, catalog=CATALOG)
    monkeypatch.setattr("multimodal_ssl.audit.fit", refuse)
    found = audit(settings, tmp_path / "audit", judges=1, catalog=CATALOG)
    assert not (tmp_path / "audit").exists()
    views, _ = embed(binder, open_supplies(settings.sources, CATALOG))
    left, right = views["left"], views["right"]
    assert left.keys == right.keys
    expected = rank_p_values(left.vectors, right.vectors, hash64(left.groups), strangers=1000, seed=0)
    p_values = dict(zip(found.table["key"].to_pylist(), found.table["p_value"].to_pylist(), strict=True))
    assert p_values == pytest.approx(dict(zip(left.keys, expected.tolist(), strict=True)), abs=1e-3)
    (note,) = (note for note in found.rates[0].notes if "trained on these very samples" in note)
    assert "the rate is too low" in note


def test_with_one_judge_and_no_run_the_run_of_the_config_is_trained(tmp_path: Path) -> None:
    audit(config(tmp_path, count=120, steps=2), tmp_path / "audit", judges=1, catalog=CATALOG)
    assert (tmp_path / "run" / "binder.json").exists()
    assert not (tmp_path / "audit").exists()
