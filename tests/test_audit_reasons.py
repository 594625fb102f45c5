"""What an audit says of a pair: the reasons, the pairs that can't be read, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from multimodal_ssl.audit import audit
from multimodal_ssl.audit_page import write_page
from multimodal_ssl.data import Traits
from multimodal_ssl.embed import embed
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.recipe import load
from multimodal_ssl.verdict import Role, View, judge_kind

from .audits import CATALOG, Alike, Messy, MessyAudit, PlantedAudit, config, having


def test_mismatches_are_those_whose_probability_is_large(messy_audit: MessyAudit) -> None:
    rows, source = messy_audit.rows, Messy()
    for row in rows.values():
        assert ("mismatch" in row["reasons"]) == (row["p_mismatch"] is not None and row["p_mismatch"] >= 0.5)
        assert not {"mismatch", "resembles"} <= set(row["reasons"])
    assert len(having(rows, "mismatch") & set(source.swapped)) > 0.85 * len(source.swapped)


def test_partners_of_something_alike_are_no_mismatches_but_those_that_are_found_are_said_to_resemble(
    tmp_path: Path,
) -> None:
    found, swapped = audit(config(tmp_path, name="alike"), tmp_path / "audit", catalog=CATALOG), Alike().swapped
    rows = {int(row["key"].removeprefix("s")): row for row in found.table.to_pylist()}
    (rate,) = found.rates
    assert rate.gross.value < 0.02, "nobody's partner is anybody's"
    named = having(rows, "resembles")
    assert len(named) > 0.1 * len(swapped)
    assert len(named & swapped) > 0.9 * len(named)


def test_judges_that_can_not_tell_neighbours_apart_say_of_none_that_it_resembles() -> None:
    """Two judges trust all but the decoys and see clusters of 100 samples, within which partners are not near."""
    rng = np.random.default_rng(0)
    count = 2000
    judge = rng.integers(2, size=count)
    keys, roles = [f"s{row}" for row in range(count)], {}
    for row, key in enumerate(keys):
        roles[key] = Role(0, int(judge[row]), *(("b", "s1") if row % 10 == 0 else ()))
    centres = rng.normal(size=(20, 16))[rng.integers(20, size=count)]
    own = rng.normal(size=(count, 16))
    vectors = {name: 3 * centres + own + 10 * rng.normal(size=(count, 16)) for name in "ab"}
    unit = {
        name: (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for name, one in vectors.items()
    }
    traits = {name: [Traits(row, {}) for row in range(count)] for name in "ab"}
    exchanged = np.array([roles[key].exchanged is not None for key in keys])
    views = []
    for index in range(2):
        trust = np.where(exchanged & (judge != index), -5, -1) + 0.1 * rng.normal(size=count)
        views.append(View(keys, np.arange(count), trust, unit, unit, traits, [{}] * count))
    _, rates = judge_kind(("a", "b"), views, roles, strangers=500, seed=0, by_source=False)
    assert rates.gross.value < 0.02
    assert "resembles" not in rates.reasons


def test_an_item_that_quarrels_with_its_group_is_told_from_its_mates(messy_audit: MessyAudit) -> None:
    rows, source = messy_audit.rows, Messy()
    wrong, mates = set(source.swapped), {row for row in rows if source.shop(row) == "old"} - set(source.swapped)
    found = having(rows, "right does not fit its group")
    assert len(found & wrong) > 0.85 * len(wrong)
    assert len(found & mates) < 0.1 * len(mates)
    assert len(having(rows, "left does not fit its group") & wrong) < 0.1 * len(wrong), "it is the right one's fault"


def test_pairs_without_mates_do_not_quarrel(messy_audit: MessyAudit) -> None:
    alone = [row for row in messy_audit.found.table.to_pylist() if row["key"].startswith("1/")]
    assert len(alone) == 600
    assert not any("group" in reason.split() for row in alone for reason in row["reasons"])


def test_groups_whose_members_are_not_alike_are_no_quarrel(tmp_path: Path) -> None:
    (rate,) = audit(config(tmp_path, count=900, steps=80), tmp_path / "audit", catalog=CATALOG).rates
    assert rate.reasons.get("right does not fit its group", 0) < 0.1 * rate.samples


def test_duplicates_shared_items_and_what_the_encoder_counts_are_named(messy_audit: MessyAudit) -> None:
    rows, source = messy_audit.rows, Messy()
    exact = {number: one for number, row in rows.items() for one in row["reasons"] if one.startswith("duplicate")}
    assert exact == {source.copy: f"duplicate of 0/m{source.original}"}
    assert not any(one.startswith("near duplicate") for one in rows[source.copy]["reasons"]), "it is told already"
    assert f"near duplicate of 0/m{source.copy}" in rows[source.original]["reasons"]
    assert having(rows, "left of 11 other groups") == set(source.sharing)
    assert not any(one.startswith("right of") for row in rows.values() for one in row["reasons"])
    assert having(rows, "left out of range") == {source.extreme}
    (rate,) = messy_audit.found.rates
    assert rate.reasons["duplicate"] == rate.reasons["left out of range"] == 1
    assert rate.reasons["left of many other groups"] == 12
    assert rate.reasons["mismatch"] == rate.expected["0.5"][0]
    assert "unreadable" not in rate.reasons, "they are no pairs"


def test_near_duplicates_are_as_good_as_the_same_to_the_first_judge_in_both_modalities(messy_audit: MessyAudit) -> None:
    binder = load(messy_audit.folder / "judge-0", catalog=CATALOG)
    views, _ = embed(binder, open_supplies(messy_audit.settings.sources, CATALOG))
    left, right = views["left"], views["right"]
    groups = np.array(left.groups)
    cosines = np.minimum(left.vectors @ left.vectors.T, right.vectors @ right.vectors.T)
    cosines[groups[:, None] == groups] = -1
    expected = {left.keys[row] for row in np.flatnonzero((cosines >= 0.99).any(1))}
    rows = {left.keys[row]: row for row in range(len(left.keys))}
    told = {
        row["key"]: reason.removeprefix("near duplicate of ")
        for row in messy_audit.found.table.to_pylist()
        for reason in row["reasons"]
        if reason.startswith("near duplicate of ")
    }
    assert all(cosines[rows[key], rows[other]] >= 0.99 - 1e-4 for key, other in told.items())
    assert 2 <= len(told) < 0.05 * len(rows)
    assert len(expected - told.keys()) <= 0.2 * len(expected), "the few nearest hide hardly any"


def test_equal_keys_of_two_sources_are_no_repetition_but_equal_pairs_are(tmp_path: Path) -> None:
    settings = config(tmp_path, {"name": "sensors", "count": 60}, count=60, steps=2, batch=8)
    found = audit(settings, tmp_path / "audit", catalog=CATALOG)
    rows = {row["key"]: row for row in found.table.to_pylist()}
    assert rows.keys() == {f"{source}/s{i}" for source in (0, 1) for i in range(60)}
    for key, row in rows.items():
        same = [one for one in row["reasons"] if one.startswith("duplicate")]
        assert same == ([f"duplicate of 0/{key[2:]}"] if key.startswith("1/") else [])
    assert found.rates[0].reasons["duplicate"] == 60


def test_samples_that_can_not_be_read_are_rows_without_figures_and_say_why(messy_audit: MessyAudit) -> None:
    found, rows = messy_audit.found, messy_audit.rows
    first, second = Messy().torn
    reasons = {first: "broken", second: "TypeError: expected np.ndarray (got str)"}
    for number, reason in reasons.items():
        nothing = dict.fromkeys(("items", "p_value", "p_mismatch", "odd", "suggestion"))
        assert rows[number] == {"key": f"0/m{number}", **nothing, "reasons": [f"unreadable: {reason}"]}
    assert sorted(found.unreadable) == sorted((f"0/m{number}", reason) for number, reason in reasons.items())
    assert found.table["p_value"].null_count == 2
    assert found.table["key"].to_pylist()[-2:] == [key for key, _ in found.unreadable], "they come last"
    assert found.rates[0].samples == len(found.table) - 2


def test_what_is_saved_and_shown_has_the_rates_by_part_and_the_unreadable(
    messy_audit: MessyAudit, tmp_path: Path
) -> None:
    found = messy_audit.found
    found.save(tmp_path)
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert [tuple(one) for one in figures["unreadable"]] == found.unreadable
    (rate,) = figures["rates"]
    assert [(one["column"], one["value"], one["samples"], one["gross"]) for one in rate["parts"]] == [
        (one.column, one.value, one.samples, list(one.gross)) for one in found.rates[0].parts
    ]
    assert pq.ParquetFile(tmp_path / "audit.parquet").read().equals(found.table)
    write_page(tmp_path / "audit.html", found, messy_audit.settings, top=len(found.table), catalog=CATALOG)
    page = (tmp_path / "audit.html").read_text()
    assert "<td>shop<td>old<td" in page
    assert "TypeError: expected np.ndarray (got str)" in page
    assert "left out of range" in page
    assert page.count("left of 11 other groups") == 12


def test_the_page_shows_the_worst_pairs_with_their_suggestions_and_needs_nothing_else(
    planted_audit: PlantedAudit, tmp_path: Path
) -> None:
    found = planted_audit.found
    write_page(tmp_path / "audit.html", found, planted_audit.settings, top=7, catalog=CATALOG)
    page = (tmp_path / "audit.html").read_text()
    for one in found.table.slice(0, 7).to_pylist():
        assert f"<code>{one['key']}<br>{one['suggestion']}</code>" in page
    shown = next(sample for sample in planted_audit.source if sample.key == found.table["key"][0].as_py())
    assert str(shown.items["right"][0]) in page, "what was swapped is shown, not what was there before"
    assert "http" not in page
    assert page.count("<rect") == 50
