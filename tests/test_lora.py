"""Low-rank updates: what learns, what they change, and where they are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal_ssl import InputError
from multimodal_ssl.encoder_config import LoraConfig
from multimodal_ssl.layers import Transformer
from multimodal_ssl.pipeline import fit
from multimodal_ssl.recipe import load
from multimodal_ssl.tuning import add_lora

from .deep import Deep, learning, run_config, tuned
from .toys import Numbers, catalog, refusal


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


def test_attentions_of_other_keys_than_queries_get_no_updates() -> None:
    class Pooling(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            x = super().forward(inputs)[:, None]
            return self.attention(x, x[..., :4], x[..., :4], need_weights=False)[0][:, 0]

    encoder = Pooling()
    add_lora("a", encoder, LoraConfig(rank=2))
    encoder(torch.randn(5, 2)).sum().backward()
    assert not any("attention" in name for name in learning(encoder))
    assert learning(encoder)


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


def test_layer_decay_of_low_rank_updates_needs_blocks_too(tmp_path: Path) -> None:
    known = catalog([Numbers(40)])  # of encoders without blocks
    said = refusal(lambda: fit(run_config(tmp_path / "run", lora={"rank": 2}, layer_decay=0.5), catalog=known))
    assert "has no blocks, which layer_decay counts by" in said
