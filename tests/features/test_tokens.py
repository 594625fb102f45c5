"""Tokens: as a modality, and of frozen encoders in the cache, for heads that pool them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from multimodal_ssl import Catalog, TokenEncoder, features
from multimodal_ssl.config import parse_config
from multimodal_ssl.data import Supply
from multimodal_ssl.features.cache import cached
from multimodal_ssl.layers import TokenHead
from multimodal_ssl.pipeline import bench, fit
from multimodal_ssl.recipe import load
from multimodal_ssl.testing import check_encoder, check_modality

from ..toys import Numbers, catalog, refusal, toy_config

CATALOG = Catalog.of(features=features)


class Digits(TokenEncoder):
    """A number as its digits, of which there are one or two; with an rng they are turned round."""

    modality, width = "number", 8

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        digits = [int(one) for one in str(abs(int(item)))]
        return torch.tensor(digits if rng is None else digits[::-1])

    def collate(self, prepared: Any) -> Any:
        return {
            "digits": pad_sequence(list(prepared), batch_first=True),
            "mask": pad_sequence([torch.ones(len(one), dtype=torch.bool) for one in prepared], batch_first=True),
        }

    def embed(self, inputs: Any) -> tuple[Tensor, Tensor]:
        places = torch.arange(inputs["digits"].shape[1])[:, None] * torch.arange(8).sin()
        return self.table(inputs["digits"]) + places, inputs["mask"]

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens


class Still(Digits):
    """Digits that are not augmented."""

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        return super().prepare(item)


KNOWN = catalog([Numbers(40)], encoder=Digits)


def config_of(run: Path, *, cache: int, **train: Any) -> Any:
    values = toy_config(run, "ab", 1, **train).model_dump(mode="json")
    encoder = {"name": "waves", "frozen": True, "cache": cache, "head": "transformer"}
    folder = str(run.parent / "cache")
    return parse_config({**values, "encoders": dict.fromkeys("ab", encoder), "cache": folder, "evaluation": ["0"]})


def test_the_modality_conforms(tmp_path) -> None:
    np.save(tmp_path / "one.npy", np.ones((3, 4)))
    check_modality(
        CATALOG.modality("tokens"), [tmp_path / "one.npy", np.ones((2, 5)), [np.ones((2, 5)), np.ones((1, 5))]]
    )
    with pytest.raises(ValueError, match=r"tokens are \[T, F\], not of shape \(4,\)"):
        CATALOG.modality("tokens").load(np.ones(4))


def test_the_encoder_conforms_and_draws_views() -> None:
    encoder = CATALOG.create("encoders", "tokens", options={"width": 4})
    views = [np.full((count, 4), count, np.float32) for count in (1, 3, 2)]
    check_encoder(encoder, [views[:1], views[1:2]])
    assert len(encoder.prepare(views)) == 1
    assert {len(encoder.prepare(views, np.random.default_rng(seed))) for seed in range(30)} == {1, 2, 3}
    with pytest.raises(ValueError, match="the tokens have 5 numbers, not 4"):
        encoder.prepare([np.ones((1, 5), np.float32)])


def test_toy_tokens_conform() -> None:
    check_encoder(Digits(), [3.0, 25.0])


def test_a_head_learns_from_tokens_from_the_cache_as_without_it(tmp_path) -> None:
    known = catalog([Numbers(40)], encoder=Still)
    with_cache, without = config_of(tmp_path / "with", cache=1), config_of(tmp_path / "without", cache=0)
    one, other = fit(with_cache, catalog=known), fit(without, catalog=known)
    assert isinstance(one.heads["a"], TokenHead)
    numbers = [0.0, 7.0, 12.0, 21.0, 39.0]
    for name in "ab":
        np.testing.assert_allclose(one.encode(name, numbers), other.encode(name, numbers), atol=1e-4)
    found = [
        [direction.result.recall for direction in bench(tmp_path / name, catalog=known)] for name in ("with", "without")
    ]
    assert found[0] == found[1]
    vectors = load(tmp_path / "with", catalog=known).encode("a", [12.0, 21.0])
    assert not np.allclose(*vectors, atol=1e-3)  # whose means are equal


def test_the_head_begins_with_the_mean_of_the_real_tokens_and_learns_more_than_that() -> None:
    torch.manual_seed(0)
    tokens, mask = torch.randn(3, 4, 8), torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    tokens[1] += (tokens[0] - tokens[1]).mean(0)  # they have the same mean
    means = torch.stack([tokens[0].mean(0), tokens[1].mean(0), tokens[2, :2].mean(0)])
    head, narrow = TokenHead(8, 8), TokenHead(8, 5)
    torch.testing.assert_close(head(tokens, mask), means)
    torch.testing.assert_close(narrow(tokens, mask), means @ narrow.mean.weight.T)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        before = head(tokens, mask)
        before[0].sub(before[1]).pow(2).sum().sub(before.sum()).backward()
        optimizer.step()
    after = head(tokens, mask)
    assert not torch.allclose(after[0], after[1], atol=1e-3)
    hidden = tokens.masked_fill(~mask.unsqueeze(-1), 7.0)
    torch.testing.assert_close(head(hidden, mask), after)


def test_views_of_tokens_have_lengths_of_their_own(tmp_path) -> None:
    config = config_of(tmp_path / "run", cache=3)
    binder = fit(config, catalog=KNOWN)
    taking, (supply,) = cached(binder, [Supply(Numbers(40), ("a", "b"))], {"a": 3, "b": 3}, folder=config.cache)
    items = supply.source[25].items["a"]
    assert supply.source.modalities == {"a": "tokens", "b": "tokens"}
    assert len(items) == 3
    states, _ = binder.encoder("a").token_states(binder.encoder("a").collate([torch.tensor([2, 5])]))
    np.testing.assert_allclose(items[0], states[0].detach())
    one = taking.encoder("a").prepare(items)
    vector = taking({"a": taking.encoder("a").collate([one])})["a"].detach().numpy()
    np.testing.assert_allclose(vector, binder.encode("a", [25.0]), atol=1e-6)


def test_an_encoder_without_tokens_is_told(tmp_path) -> None:
    values = config_of(tmp_path / "run", cache=0)
    assert refusal(lambda: fit(values, catalog=catalog([Numbers(40)]))) == (
        "encoders.a: head: transformer, but it gives no tokens: take linear, mlp or adapter"
    )
