"""Runs that begin from what another has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal_ssl.config import parse_config
from multimodal_ssl.pipeline import fit
from multimodal_ssl.recipe import load

from .deep import Deep, run_config
from .toys import Numbers, catalog, refusal


def test_a_run_can_begin_from_another_and_be_bound_to_its_space(tmp_path: Path) -> None:
    known = catalog([Numbers(40), Numbers(40, "ac")], encoder=Deep)
    first = fit(run_config(tmp_path / "first"), catalog=known)
    values = run_config(tmp_path / "second", seed=5).model_dump(mode="json")
    values["sources"] = ["1"]
    values["encoders"] = {
        "a": {
            "name": "waves",
            "start": {"run": str(tmp_path / "first"), "item": "b"},
            "frozen": True,
            "freeze_head": True,
        },
        "c": {"name": "waves"},
    }
    second = fit(parse_config(values), catalog=known)
    assert np.array_equal(second.encode("a", [0.3, 2.0]), first.encode("b", [0.3, 2.0]))
    values["encoders"]["a"] |= {"frozen": False, "freeze_head": False, "start": str(tmp_path / "first")}
    third = fit(parse_config({**values, "run": str(tmp_path / "third")}), catalog=known)
    moved = (third.encoder("a").stem.weight - first.encoder("a").stem.weight).abs().max()
    assert 0 < moved < 0.1


def test_an_encoder_that_no_source_gives_is_part_of_the_space_only_if_nothing_of_it_learns(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    fit(run_config(tmp_path / "first"), catalog=known)
    values = run_config(tmp_path / "second").model_dump(mode="json")
    values["encoders"]["c"] = {"name": "waves"}
    assert refusal(lambda: fit(parse_config(values), catalog=known)) == "encoders.c: no source gives 'c'; known: a, b"
    begin = {"run": str(tmp_path / "first"), "item": "a"}
    values["encoders"]["c"] = {"name": "waves", "frozen": True, "freeze_head": True, "start": begin}
    second = fit(parse_config(values), catalog=known)
    first = load(tmp_path / "first", catalog=known)
    assert np.array_equal(second.encode("c", [0.3]), first.encode("a", [0.3]))
    assert np.array_equal(load(tmp_path / "second", catalog=known).encode("c", [0.3]), first.encode("a", [0.3]))


def test_low_rank_updates_can_begin_from_a_run(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    first = fit(run_config(tmp_path / "first"), catalog=known)
    second = fit(run_config(tmp_path / "second", start=str(tmp_path / "first"), lora={"rank": 2}), catalog=known)
    assert torch.equal(second.encoder("a").stem.base_layer.weight, first.encoder("a").stem.weight)
    assert any(one.any() for name, one in second.encoder("a").named_parameters() if "lora_B" in name)


def test_low_rank_updates_of_a_run_can_be_frozen(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    first = fit(run_config(tmp_path / "first", lora={"rank": 2}), catalog=known)
    start = {"start": str(tmp_path / "first"), "frozen": True}
    assert "lora" in refusal(lambda: fit(run_config(tmp_path / "second", **start), catalog=known))
    second = fit(run_config(tmp_path / "second", **start, lora={"rank": 2}), catalog=known)
    theirs = first.encoder("a").state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in second.encoder("a").state_dict().items())
    assert any("lora_" in name for name in theirs)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    fit(run_config(tmp_path / "first"), catalog=known)
    start = {"run": str(tmp_path / "first")}

    def said(**options: Any) -> str:
        return refusal(lambda: fit(run_config(tmp_path / "second", **options), catalog=known))

    assert said(start={**start, "item": "x"}) == (
        f"encoders.a.start: {tmp_path / 'first'} has no encoder for 'x': known: a, b"
    )
    assert "holds no trained run" in said(start=str(tmp_path))
    assert "has another shape" in said(start=start, freeze_head=True, head="mlp")
