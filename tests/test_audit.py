"""Audits: the mismatches that were planted are found and counted, by comparison with decoys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from multimodal_ssl import InputError
from multimodal_ssl.audit import audit
from multimodal_ssl.audit_page import write_page
from multimodal_ssl.config import AuditConfig, Config, DecoyConfig, load_config, parse_config
from multimodal_ssl.data import hash64
from multimodal_ssl.decoys import choose_decoys, plant
from multimodal_ssl.embed import embed
from multimodal_ssl.evidence import belief
from multimodal_ssl.metrics import auroc
from multimodal_ssl.pipeline import MARK, fit, open_supplies
from multimodal_ssl.recipe import load
from multimodal_ssl.significance import Floats, decoy_p_values
from multimodal_ssl.verdict import View, judge_kind

from .audits import CATALOG, COUNT, Hard, Messy, MessyAudit, PlantedAudit, Sensors, Triples, config, corrupted
from .toys import Torn, catalog, toy_config


def test_the_planted_mismatches_are_found_and_counted(planted_audit: PlantedAudit) -> None:
    found, truth = planted_audit.found, planted_audit.truth
    keys, p = found.table["key"].to_pylist(), np.array(found.table["p_mismatch"].to_pylist())
    assert sorted(keys) == sorted(truth)
    wrong = np.array([truth[key] for key in keys])
    assert auroc(np.array(found.table["p_value"].to_pylist()), wrong) > 0.99
    (rate,) = found.rates
    assert rate.gross.value == pytest.approx(0.3, abs=0.03)
    assert rate.gross.low <= 0.3 <= rate.gross.high
    assert (np.diff(p) <= 0).all(), "the worst come first"
    above, expected = rate.expected["0.9"]
    assert above == (p >= 0.9).sum()
    assert wrong[p >= 0.9].sum() == pytest.approx(expected, rel=0.05)


def test_the_suggestion_is_the_partner_that_was_taken_away(planted_audit: PlantedAudit) -> None:
    clean, noisy = Sensors(), planted_audit.source
    holder = {noisy[i].items["right"].tobytes(): f"s{i}" for i in range(COUNT)}
    owner = {f"s{i}": holder[clean[i].items["right"].tobytes()] for i in range(COUNT)}
    suspects = [one for one in planted_audit.found.table.to_pylist() if planted_audit.truth[one["key"]]]
    right = sum(one["suggestion"] == owner[one["key"]] for one in suspects)
    assert right / len(suspects) > 0.8


def test_of_three_items_the_odd_one_is_named_and_its_own_place_suggested(tmp_path: Path) -> None:
    values = config(tmp_path, name="triples", steps=150, corrupt={"mismatch": 0.2, "item": "right"}).model_dump()
    values["encoders"]["third"] = {"name": "dense"}
    settings = parse_config(values)
    source = corrupted(settings)
    truth = {sample.key: bool(wrong) for sample, wrong in zip(source, source.mismatched, strict=True)}
    found = audit(settings, tmp_path / "audit", catalog=CATALOG)
    (rate,) = found.rates
    assert rate.items == ("left", "right", "third")
    assert rate.gross.low <= 0.2 <= rate.gross.high
    assert rate.gross.value == pytest.approx(0.2, abs=0.05)
    named = [row for row in found.table.to_pylist() if truth[row["key"]] and row["p_mismatch"] >= 0.5]
    assert len(named) > 0.8 * sum(truth.values())
    assert sum("mismatch of right" in row["reasons"] for row in named) > 0.95 * len(named)
    clean, noisy = Triples(), {sample.items["right"].tobytes(): sample.key for sample in source}
    right = [noisy[clean[int(row["key"][1:])].items["right"].tobytes()] == row["suggestion"] for row in named]
    assert np.mean(right) > 0.7


def test_samples_whose_like_are_too_few_for_a_decoy_are_not_judged(tmp_path: Path) -> None:
    values = config(tmp_path, name="gaps", steps=15, batch=100).model_dump()
    values["encoders"]["third"] = {"name": "dense"}
    found = audit(parse_config(values), tmp_path / "audit", catalog=CATALOG)
    rates = {rate.items: rate for rate in found.rates}
    few = rates["left", "right"]
    assert (few.samples, few.gross) == (0, (1, 0, 1)), "nothing is known"
    (note,) = few.notes
    assert note.startswith("3 of 3 samples of source 0 have no p-value")
    unknown = {row["key"] for row in found.table.to_pylist() if row["items"] == "left, right"}
    assert unknown == {"s7", "s507", "s1007"}
    assert all(row["p_mismatch"] is None for row in found.table.to_pylist() if row["key"] in unknown)


def test_clean_pairs_are_not_accused(tmp_path: Path) -> None:
    (rate,) = audit(config(tmp_path), tmp_path / "audit", catalog=CATALOG).rates
    assert rate.gross.value <= 0.02
    assert rate.expected["0.9"][0] <= 0.01 * COUNT


def test_where_all_pairs_are_wrong_the_rate_is_near_one_and_a_note_says_what_it_may_mean(tmp_path: Path) -> None:
    settings = config(tmp_path, count=600, steps=40, corrupt={"mismatch": 1.0})
    (rate,) = audit(settings, tmp_path / "audit", catalog=CATALOG).rates
    assert rate.gross.value > 0.85
    assert rate.gross.high == 1
    assert any(note.startswith("the judges tell hardly a sample from a mismatch") for note in rate.notes)


def test_the_rates_by_metadata_and_source_tell_where_the_mismatches_were_planted(messy_audit: MessyAudit) -> None:
    (rate,), source = messy_audit.found.rates, Messy()
    parts = {(part.column, part.value): part for part in rate.parts}
    assert {column for column, _ in parts} == {"source", "shop", "shift"}, "each serial is too few for a rate"
    judged = [row for row in range(len(source)) if row not in source.torn]
    old = [row for row in judged if source.shop(row) == "old"]
    assert parts["shop", "old"].samples == len(old)
    assert parts["shop", "new"].samples == len(judged) - len(old)
    assert parts["source", "0"].samples == len(judged)
    assert parts["source", "1"].samples == 600
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


def test_the_runs_of_three_judges_have_the_decoys_of_the_two_others(tmp_path: Path) -> None:
    settings = config(tmp_path, count=600, steps=10)
    found = audit(settings, tmp_path / "audit", judges=3, catalog=CATALOG)
    assert len(set(found.table["key"].to_pylist())) == len(found.table) == 600
    clean = open_supplies(settings.sources, CATALOG)
    for index in range(3):
        recorded = load_config(tmp_path / "audit" / f"judge-{index}" / "config.yaml")
        assert recorded.decoys is not None
        assert (recorded.objective.name, recorded.decoys.judges, recorded.decoys.judge) == ("acl", 3, index)
        roles = choose_decoys(clean, 0, recorded.decoys, recorded.seed)
        share = (roles.decoy & (roles.judge != index)).mean()
        assert share == pytest.approx(100 / 600, abs=0.05), "a hundred decoys are wanted"


def test_an_item_that_one_judge_has_no_vector_for_moves_what_it_was_near_to_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, count=300, steps=30, batch=40)
    told: list[tuple[list[str], Floats, Floats]] = []  # keys, evidence [J, N, 3], scores [J, N]

    def judged(items: tuple[str, ...], views: Sequence[View], *given: Any, **options: Any) -> Any:
        def believed(evidence: Floats, *given: Any, **options: Any) -> Any:
            scores, alone = belief(evidence, *given, **options)
            told.append((views[0].keys, evidence, scores))
            return scores, alone

        monkeypatch.setattr("multimodal_ssl.verdict.belief", believed)
        return judge_kind(items, views, *given, **options)

    monkeypatch.setattr("multimodal_ssl.audit.judge_kind", judged)
    audit(settings, tmp_path / "audit", catalog=CATALOG)
    calls = iter(range(9))

    def forgetful(*given: Any, **options: Any) -> Any:
        found, unreadable = embed(*given, **options)
        if next(calls) == 1:  # the second judge
            left = found["left"]
            place = left.keys.index("s5")
            left.vectors = np.delete(left.vectors, place, 0)
            for column in (left.keys, left.groups, left.traits, left.metadata):
                del column[place]
        return found, unreadable

    monkeypatch.setattr("multimodal_ssl.audit.embed", forgetful)
    audit(settings, tmp_path / "audit", catalog=CATALOG)
    (keys, before, scores), (others, after, scores_after) = told
    assert others == [key for key in keys if key != "s5"]
    rows = [keys.index(key) for key in others]
    same = ((before[:, rows] == after) | np.isnan(after)).all((0, 2))
    assert (np.isnan(before[:, rows]) == np.isnan(after)).all()
    assert len(same) - same.sum() <= 10, "it was the rival or the parallel of some"
    away = np.abs(scores[:, rows] - scores_after)[:, same]
    assert np.nanmax(away) < 0.1 * np.nanstd(scores), "the regression was fitted to one sample less"


def test_an_audit_that_was_stopped_takes_what_is_there(
    planted_audit: PlantedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.audit.fit", None)  # nothing is trained again
    again = audit(planted_audit.settings, planted_audit.folder, catalog=CATALOG)
    assert again.table.equals(planted_audit.found.table)


@pytest.mark.parametrize("override", [{"judges": 3}, {"seed": 1}, {"steps": 6}])
def test_judges_of_another_config_are_not_taken(tmp_path: Path, override: dict[str, int]) -> None:
    settings = config(tmp_path, count=300, steps=5, batch=40)
    audit(settings, tmp_path / "audit", catalog=CATALOG)
    train = settings.train.model_copy(update={"steps": override.get("steps", 5)})
    other = settings.model_copy(update={"seed": override.get("seed", 0), "train": train})
    with pytest.raises(InputError, match=r"was begun with another config .* or audit into another folder"):
        audit(other, tmp_path / "audit", judges=override.get("judges", 2), catalog=CATALOG)


def test_a_source_that_names_its_items_the_other_way_is_compared_with_its_own_decoys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def spy(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return decoy_p_values(*arguments, **options)

    monkeypatch.setattr("multimodal_ssl.verdict.decoy_p_values", spy)
    second = {"name": "sensors", "count": 300, "seed": 3, "use": ["right", "left"]}
    audit(config(tmp_path, second, count=300, steps=10), tmp_path / "audit", catalog=CATALOG)
    given = calls[0]  # of all samples, the others are of parts
    assert set(given["source"].tolist()) == {0, 1}
    assert set(given["suspect"].tolist()) == set(given["exchanged"].tolist()) == {0}


def test_a_source_without_decoys_of_its_own_is_not_judged_by_those_of_another(tmp_path: Path) -> None:
    machine = {"name": "sensors", "count": 300, "seed": 3, "machine": 300}
    (rate,) = audit(config(tmp_path, machine, count=300, steps=30), tmp_path / "audit", catalog=CATALOG).rates
    assert rate.samples == 300
    assert {part.value for part in rate.parts if part.column == "source"} == {"0"}
    (note,) = [note for note in rate.notes if "source 1" in note]
    assert note.startswith("300 of 300 samples of source 1 have no p-value and are in no rate: only 0 of them could be")


def test_a_small_source_has_enough_decoys_of_its_own_beside_a_large_one(tmp_path: Path) -> None:
    small = {"name": "sensors", "count": 200, "seed": 3}
    found = audit(config(tmp_path, small, steps=60), tmp_path / "audit", catalog=CATALOG)
    assert found.rates[0].samples == COUNT + 200


def test_judges_of_samples_that_were_corrected_since_are_not_taken(tmp_path: Path) -> None:
    settings = config(tmp_path, count=300, steps=10, batch=40)
    audit(settings, tmp_path / "audit", catalog=CATALOG)
    corrected = {**settings.model_dump()["sources"][0], "corrupt": {"mismatch": 0.01, "item": "right"}}
    for path in (tmp_path / "audit").glob("judge-*/config.yaml"):  # as if the same table held other rows
        values = yaml.safe_load(path.read_text())
        path.write_text(MARK + yaml.safe_dump({**values, "sources": [corrected]}))
    other = parse_config({**settings.model_dump(), "sources": [corrected]})
    with pytest.raises(InputError, match=r"^3 items have changed since .*judge-0 was .*right of s\d+.*--out OTHER, or"):
        audit(other, tmp_path / "audit", catalog=CATALOG)


def test_an_audit_survives_a_sample_whose_source_stumbles(tmp_path: Path) -> None:
    settings = toy_config(tmp_path / "run", "ab", steps=2)
    found = audit(settings, tmp_path / "audit", catalog=catalog([Torn(60)]), judges=1)
    assert found.unreadable == [("row 7", "OSError: disk")]
    write_page(tmp_path / "audit.html", found, settings, top=60, catalog=catalog([Torn(60)]))
    assert "OSError: disk" in (tmp_path / "audit.html").read_text()


def test_what_is_saved_can_be_read(planted_audit: PlantedAudit, tmp_path: Path) -> None:
    found = planted_audit.found
    found.save(tmp_path)
    assert pq.ParquetFile(tmp_path / "audit.parquet").read().equals(found.table)
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert figures["rates"][0]["gross"][0] == found.rates[0].gross.value


def test_what_the_audit_holds_for_wrong_is_not_trained_on(planted_audit: PlantedAudit, tmp_path: Path) -> None:
    found, truth = planted_audit.found, planted_audit.truth
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


def test_pairs_that_are_hard_to_learn_are_not_accused_and_mismatches_among_easy_ones_are(tmp_path: Path) -> None:
    settings = config(tmp_path, name="hard", count=2000, corrupt={"mismatch": 0.1, "seed": 6})
    source = corrupted(settings)
    found = audit(settings, tmp_path / "audit", catalog=CATALOG)
    rows = {row["key"]: row["p_mismatch"] for row in found.table.to_pylist()}
    wrong = {sample.key for sample, one in zip(source, source.mismatched, strict=True) if one}
    hard = {key for key in rows if Hard.is_hard(int(key[1:]))}
    (rate,) = found.rates
    assert rate.gross.value == pytest.approx(0.1, abs=0.04), "a third is hard"
    assert np.mean([rows[key] >= 0.5 for key in wrong - hard]) > 0.7
    assert np.mean([rows[key] >= 0.5 for key in hard - wrong]) < 0.1


def views_of(settings: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """Return what the judges see of the samples that have all items."""
    seen: list[View] = []

    def spy(items: tuple[str, ...], views: Sequence[View], *arguments: Any, **options: Any) -> Any:
        if len(items) == len(settings.encoders):
            seen[:] = views
        return judge_kind(items, views, *arguments, **options)

    monkeypatch.setattr("multimodal_ssl.audit.judge_kind", spy)
    audit(settings, folder, catalog=CATALOG)
    return seen


@pytest.mark.parametrize("name", ["sensors", "triples"])
def test_what_a_judge_sees_is_what_it_was_given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = config(tmp_path, name=name, steps=5, batch=100).model_dump()
    if name == "triples":
        values["encoders"]["third"] = {"name": "dense"}
    settings = parse_config(values)
    for index, view in enumerate(views_of(settings, tmp_path / "audit", monkeypatch)):
        judge = load_config(tmp_path / "audit" / f"judge-{index}" / "config.yaml")
        assert judge.decoys is not None
        trained = plant(open_supplies(settings.sources, CATALOG), judge.decoys, judge.seed)
        binder = load(judge.run, catalog=CATALOG)
        given, _ = embed(binder, trained)
        assert set(view.given) == set(given)
        decoys = 0
        for item, vectors in view.given.items():
            rows = {key: row for row, key in enumerate(given[item].keys)}
            np.testing.assert_allclose(vectors, given[item].vectors[[rows[key] for key in view.keys]], atol=1e-5)
            decoys += int((np.abs(vectors - view.vectors[item]).max(1) > 1e-3).sum())
        assert decoys > 50


def test_a_few_samples_more_or_less_leave_nearly_all_decoys_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, count=1200, steps=15, batch=100)
    before = views_of(settings, tmp_path / "audit", monkeypatch)
    fewer = parse_config({**settings.model_dump(), "sources": [{"name": "sensors", "count": 1200, "gone": 3}]})
    for path in (tmp_path / "audit").glob("judge-*/config.yaml"):  # as if rows of the same table were gone
        values = yaml.safe_load(path.read_text())
        path.write_text(MARK + yaml.safe_dump({**values, "sources": fewer.model_dump()["sources"]}))
    after = views_of(fewer, tmp_path / "audit", monkeypatch)
    for one, other in zip(before, after, strict=True):
        assert other.keys == one.keys[:1197]
        lost = np.isnan(other.trust) & np.isfinite(one.trust[:1197])
        same = np.isclose(other.given["right"], one.given["right"][:1197], atol=1e-5).all(1)
        assert 0 < lost.sum() < 10, "decoys that were others then are none now"
        assert (same | lost).all()


def test_an_exchanged_item_that_is_lost_takes_the_decoy_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = config(tmp_path, name="triples", steps=5, batch=100).model_dump()
    values["encoders"]["third"] = {"name": "dense"}
    settings = parse_config(values)
    whole, _ = views_of(settings, tmp_path / "audit", monkeypatch)
    supplies = open_supplies(settings.sources, CATALOG)
    roles = choose_decoys(supplies, 0, DecoyConfig(judges=2, judge=0), settings.seed)
    decoy = next(row for row in np.flatnonzero(roles.decoy & (roles.judge == 1)) if roles.items[row] == "right")
    taker = int(np.flatnonzero(roles.origin == decoy)[0])

    def forgetful(*given: Any, **options: Any) -> Any:
        found, unreadable = embed(*given, **options)
        right = found["right"]
        place = right.keys.index(f"s{decoy}")
        right.vectors = np.delete(right.vectors, place, 0)
        for column in (right.keys, right.groups, right.traits, right.metadata):
            del column[place]
        return found, unreadable

    monkeypatch.setattr("multimodal_ssl.audit.embed", forgetful)
    first, _ = views_of(settings, tmp_path / "audit", monkeypatch)
    assert f"s{decoy}" not in first.keys, "it has two items, the others three"
    before = dict(zip(whole.keys, whole.trust.tolist(), strict=True))
    after = dict(zip(first.keys, first.trust.tolist(), strict=True))
    assert np.isnan(after.pop(f"s{taker}"))
    np.testing.assert_array_equal([before[key] for key in after], [*after.values()])
