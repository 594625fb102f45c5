"""What of an encoder learns, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from multimodal_ssl import Encoder, InputError
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import parse_config
from multimodal_ssl.encoder_config import EncoderConfig
from multimodal_ssl.pipeline import fit
from multimodal_ssl.tuning import parameter_groups, rates, tune

from .deep import Deep, learning, run_config, tuned
from .toys import NUMBER, Numbers, catalog, refusal, toy_config


def binder_of(encoder: Encoder) -> Binder:
    return Binder({"a": encoder}, {"a": NUMBER}, dim=4)


def test_all_learns_unless_told_otherwise() -> None:
    encoder = tuned()
    assert learning(encoder) == {name for name, _ in encoder.named_parameters()}


def test_of_a_frozen_encoder_nothing_learns_and_nothing_drops_out() -> None:
    encoder = tuned(frozen=True)
    binder = binder_of(encoder).train()
    assert not learning(encoder)
    assert not any(one.training for one in encoder.modules())
    assert binder.training
    assert binder.heads.training


def test_only_the_last_blocks_learn_and_only_they_drop_out() -> None:
    encoder = tuned(unfreeze=2)
    binder_of(encoder).train()
    assert learning(encoder) == {
        "blocks.2.0.weight", "blocks.2.0.bias", "blocks.3.0.weight", "blocks.3.0.bias", "norm.weight", "norm.bias",
    }  # fmt: skip
    assert [block[1].training for block in encoder.blocks] == [False, False, True, True]


def test_eval_mode_stays_eval_mode() -> None:
    binder = binder_of(tuned(unfreeze=1)).train().eval()
    assert not any(one.training for one in binder.modules())


def test_what_an_encoder_does_not_use_stays_frozen_when_its_block_is_not() -> None:
    torch.manual_seed(0)
    encoder = Deep()
    encoder.blocks[3][0].bias.requires_grad_(False)
    tune("a", encoder, EncoderConfig(name="deep", unfreeze=1))
    assert learning(encoder) == {"blocks.3.0.weight", "norm.weight", "norm.bias"}


def test_more_blocks_than_there_are_or_none_at_all_are_refused() -> None:
    assert refusal(lambda: tuned(unfreeze=5)) == "encoders.a: unfreeze=5, but 'deep' has 4 blocks"

    class Flat(Deep):
        def by_depth(self) -> Sequence[nn.Module]:
            return ()

    for options, option in (({"unfreeze": 1}, "unfreeze"), ({"layer_decay": 0.5}, "layer_decay")):
        said = refusal(lambda options=options: tune("a", Flat(), EncoderConfig(name="flat", **options)))
        assert said == f"encoders.a: 'flat' has no blocks, which {option} counts by: leave it out"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frozen": True, "unfreeze": 1}, "give one of frozen and unfreeze"),
        ({"unfreeze": 1, "lora": {}}, "give one of unfreeze and lora"),
        ({"frozen": True, "lr": 0.1}, "frozen: true and a learning rate of its own"),
        ({"cache": 1}, "add frozen: true"),
    ],
)
def test_contradictions_are_told_by_the_config(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run_config(tmp_path, **options)


def test_a_whole_run_freezes_what_it_is_told_to(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    binder = fit(run_config(tmp_path / "run", frozen=True), catalog=known)
    torch.manual_seed(0)
    untrained = Deep()  # the first that the run made
    assert torch.equal(binder.encoder("a").stem.weight, untrained.stem.weight)
    assert not torch.equal(binder.encoder("b").stem.weight, untrained.stem.weight)


def test_rates_fall_with_the_distance_from_the_last_block() -> None:
    encoder = tuned()
    found = rates({"a": encoder}, {"a": EncoderConfig(name="deep", lr=0.1, layer_decay=0.5)})
    named = {name: found[id(one)] for name, one in encoder.named_parameters()}
    assert named["norm.weight"] == named["blocks.3.0.bias"] == pytest.approx(0.1)
    assert named["blocks.2.0.weight"] == pytest.approx(0.05)
    assert named["blocks.0.0.weight"] == pytest.approx(0.0125)
    assert named["stem.weight"] == pytest.approx(0.00625)


def test_groups_hold_every_parameter_that_learns_once() -> None:
    encoder = tuned(unfreeze=2, layer_decay=0.5)
    binder = binder_of(encoder)
    factors = rates({"a": encoder}, {"a": EncoderConfig(name="deep", unfreeze=2, layer_decay=0.5)})
    groups = list(parameter_groups(binder, 0.1, factors))
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in binder.parameters() if one.requires_grad)
    assert {(group["rate"], group["weight_decay"]) for group in groups} == {
        (1.0, 0.1),
        (1.0, 0.0),
        (0.5, 0.1),
        (0.5, 0.0),
    }


def test_the_rate_of_an_encoder_reaches_the_optimizer(tmp_path: Path) -> None:
    def moved(lr: float) -> float:
        known = catalog([Numbers(40)], encoder=Deep)
        run = tmp_path / f"run-{lr}"
        config = run_config(run, lr=lr)
        torch.manual_seed(config.seed)
        before = Deep().stem.weight.detach().clone()
        return float((fit(config, catalog=known).encoder("a").stem.weight - before).detach().abs().max())

    assert moved(0.01) < 0.05 * moved(1.0)


def test_nothing_that_learns_is_an_error(tmp_path: Path) -> None:
    values = toy_config(tmp_path / "run", "ab").model_dump(mode="json")
    values["encoders"] = {key: {"name": "waves", "frozen": True, "head": "none"} for key in "ab"}
    values["binder"]["dim"] = 8
    said = refusal(lambda: fit(parse_config(values), catalog=catalog([Numbers(40)])))
    assert said.startswith("nothing learns")


def test_features_as_the_space_need_its_width(tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", head="none")
    said = refusal(lambda: fit(config, catalog=catalog([Numbers(40)])))
    assert said == "encoders.a: head: none, but its features are 8 wide: set binder.dim=8"


def test_an_adapter_begins_in_the_space_of_the_features_and_leaves_it(tmp_path: Path) -> None:
    encoder = tuned().eval()
    binder = Binder({"a": encoder}, {"a": NUMBER}, dim=8, heads={"a": "adapter"})
    plain = Binder({"a": encoder}, {"a": NUMBER}, dim=8, heads={"a": "none"})
    items = [0.1, 1.0, 3.0]
    np.testing.assert_allclose(binder.encode("a", items), plain.encode("a", items), rtol=1e-6)
    binder({"a": torch.stack([encoder.prepare(one) for one in items])})["a"][0, 0].backward()
    weight = binder.heads["a"].output.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_features_are_the_space_where_there_is_no_head(tmp_path: Path) -> None:
    values = run_config(tmp_path / "run", head="none", frozen=True).model_dump(mode="json")
    values["binder"]["dim"] = 8
    binder = fit(parse_config(values), catalog=catalog([Numbers(40)], encoder=Deep))
    encoder = binder.encoder("a")
    with torch.no_grad():
        features = encoder(torch.stack([encoder.prepare(one) for one in (1.0, 2.0)]))
    np.testing.assert_allclose(binder.encode("a", [1.0, 2.0]), nn.functional.normalize(features, dim=1), rtol=1e-6)
