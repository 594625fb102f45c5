"""What of an encoder learns, and how fast."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal_ssl import Encoder, InputError
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import parse_config
from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig
from multimodal_ssl.layers import Transformer
from multimodal_ssl.pipeline import fit
from multimodal_ssl.recipe import load
from multimodal_ssl.tuning import add_lora, parameter_groups, rates, tune

from .toys import NUMBER, Numbers, catalog, refusal, toy_config


class Deep(Encoder):
    """A stem and four blocks with dropout and batch statistics, as pretrained ones have."""

    modality, width = "number", 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh()) for _ in range(4)])
        self.norm = nn.LayerNorm(8)

    def by_depth(self) -> Sequence[nn.Module]:
        return [*self.blocks[:-1], nn.ModuleList([self.blocks[-1], self.norm])]

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        return torch.tensor([np.sin(item), np.cos(item)], dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def tuned(**options: Any) -> Deep:
    torch.manual_seed(0)
    encoder = Deep()
    config = EncoderConfig(name="deep", **options)
    if config.lora:
        add_lora("a", encoder, config.lora)
    tune("a", encoder, config)
    return encoder


def learning(encoder: nn.Module) -> set[str]:
    return {name for name, one in encoder.named_parameters() if one.requires_grad}


def binder_of(encoder: Encoder) -> Binder:
    return Binder({"a": encoder}, {"a": NUMBER}, dim=4)


def run_config(run: Path, *, seed: int = 0, **options: Any):
    values = toy_config(run, "ab").model_dump(mode="json")
    values["encoders"]["a"] = {"name": "waves", **options}
    return parse_config({**values, "seed": seed})


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


@pytest.mark.parametrize("dora", [False, True])
def test_lora_begins_with_the_same_features_and_trains_updates_alone(dora: bool) -> None:
    plain, encoder = tuned().eval(), tuned(lora={"rank": 2, "dora": dora}).eval()
    inputs = torch.randn(5, 2)
    torch.testing.assert_close(encoder(inputs), plain(inputs))
    assert all("lora_" in name for name in learning(encoder))
    assert sum(one.numel() for one in encoder.parameters() if one.requires_grad) == (
        2 * (2 + 8) + 4 * 2 * (8 + 8) + (5 * 8 if dora else 0)
    )


def test_lora_takes_the_layers_that_are_named() -> None:
    encoder = tuned(lora={"targets": r"blocks\.[13]"})
    assert {name.split(".lora_")[0] for name in learning(encoder)} == {"blocks.1.0", "blocks.3.0"}
    said = refusal(lambda: tuned(lora={"targets": "query"}))
    assert said.startswith("encoders.a: lora.targets='query' is part of no linear layer's name (stem, blocks.0.0")


def test_lora_where_no_linear_layer_learns_is_refused() -> None:
    encoder = Deep().requires_grad_(False)
    assert "it has none" in refusal(lambda: add_lora("a", encoder, LoraConfig()))


def test_lora_that_the_encoder_goes_past_is_refused() -> None:
    class Past(Deep):
        def forward(self, inputs: Tensor) -> Tensor:
            return self.norm(nn.functional.linear(self.stem(inputs), self.blocks[0][0].weight))

    encoder = Past()
    add_lora("a", encoder, LoraConfig(targets="stem|blocks.0"))
    said = refusal(lambda: encoder(torch.randn(2, 2)))
    assert said.startswith("encoders.a: lora changes nothing in 0, whose weights the encoder reads itself")
    encoder = Past()
    add_lora("a", encoder, LoraConfig(targets="stem"))
    assert encoder(torch.randn(2, 2)).shape == (2, 8)


def test_lora_looks_once_and_an_encoder_with_it_can_be_sent_to_workers() -> None:
    encoder = tuned(lora={"rank": 2})
    sent = pickle.loads(pickle.dumps(encoder))
    for one in (encoder, sent):
        one(torch.randn(2, 2))
        assert not one._forward_hooks


def test_lora_learns_in_attentions_of_torch() -> None:
    class Attending(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            x = super().forward(inputs)[:, None]
            return self.attention(x, x, x, need_weights=False)[0][:, 0]

    said = refusal(lambda: add_lora("a", Attending(), LoraConfig(dropout=0.5)))
    assert "do nothing in attentions of torch, such as attention" in said
    torch.manual_seed(0)
    plain = Attending().eval()
    torch.manual_seed(0)
    encoder = Attending().eval()
    add_lora("a", encoder, LoraConfig(rank=2))
    inputs = torch.randn(5, 2)
    torch.testing.assert_close(encoder(inputs), plain(inputs))
    encoder(inputs).sum().backward()
    kept = {name: one.clone() for name, one in encoder.state_dict().items() if "lora" not in name}
    with torch.no_grad():
        for name, one in encoder.named_parameters():
            if "lora_B" in name:
                one.normal_()
    for _ in range(3):
        encoder(inputs)
    assert all(torch.equal(encoder.state_dict()[name], one) for name, one in kept.items())
    assert any("attention" in name for name in learning(encoder))
    assert all(one.grad is not None for one in encoder.parameters() if one.requires_grad)


@pytest.mark.parametrize("heads", [1, 2])
def test_updates_count_in_training_and_after(heads: int) -> None:
    class Seeing(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.see = Transformer(8, depth=1, heads=heads)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.see(self.norm(self.stem(inputs))[:, None], torch.ones(len(inputs), 1, dtype=torch.bool))[:, 0]

    encoder = Seeing()
    add_lora("a", encoder, LoraConfig(rank=2, targets="stem|see"))
    inputs = torch.randn(5, 2)
    with torch.no_grad():
        before = encoder.eval()(inputs)
        for name, one in encoder.named_parameters():
            if "lora_B" in name and "see" in name:
                one.normal_()
        after = encoder.eval()(inputs)
        torch.testing.assert_close(after, encoder.train()(inputs))
        assert float((after - before).abs().max()) > 0.1


def test_only_the_layers_that_are_named_get_updates() -> None:
    class Twice(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"stem": nn.Linear(2, 8)})

    encoder = Twice()
    add_lora("a", encoder, LoraConfig(targets="^stem$"))
    assert {name.split(".lora_")[0] for name in learning(encoder)} == {"stem"}
    with pytest.raises(InputError, match="is no regular expression"):
        run_config(Path("run"), lora={"targets": "*layer"})


def test_a_run_with_lora_is_saved_whole_and_loaded(tmp_path: Path) -> None:
    known = catalog([Numbers(40)], encoder=Deep)
    binder = fit(run_config(tmp_path / "run", lora={"rank": 2}), catalog=known)
    items = [0.1, 0.7, 2.0]
    again = load(tmp_path / "run", catalog=known)
    assert np.array_equal(again.encode("a", items), binder.encode("a", items))
    assert again.fingerprint() == binder.fingerprint()


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


def test_layer_decay_of_low_rank_updates_needs_blocks_too(tmp_path: Path) -> None:
    known = catalog([Numbers(40)])  # of encoders without blocks
    said = refusal(lambda: fit(run_config(tmp_path / "run", lora={"rank": 2}, layer_decay=0.5), catalog=known))
    assert "has no blocks, which layer_decay counts by" in said


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
