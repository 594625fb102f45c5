"""The encoders of series: padding and gaps never mislead them, and time counts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F

import mmssl_series
from mmssl_series.conv import MaskedGroupNorm, SeriesConv
from mmssl_series.transformer import SeriesTransformer
from multimodal_ssl import Catalog, Encoder, InputError
from multimodal_ssl.testing import check_encoder

from ..toys import refusal
from .tokens import check_padding_mask
from .walks import gappy, walk

Make = Callable[..., Encoder]


def conv(*, channels: int = 3, depth: int = 3, length: int = 32, augment: bool = True) -> SeriesConv:
    return SeriesConv(channels=channels, width=16, depth=depth, length=length, augment=augment)


def transformer(*, channels: int = 3, length: int = 32, heads: int = 2, augment: bool = True) -> SeriesTransformer:
    return SeriesTransformer(
        channels=channels, patch=8, width=32, depth=2, heads=heads, length=length, augment=augment
    ).eval()


ENCODERS = pytest.mark.parametrize("make", [conv, transformer])


@ENCODERS
def test_the_encoders_conform(make: Make) -> None:
    check_encoder(make(), [walk(3, 7), gappy(3, 32, 1), gappy(3, 200, 2), np.full((3, 3), np.nan, np.float32)])


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_network_over_time_conforms_at_every_depth(depth: int) -> None:
    check_encoder(conv(depth=depth), [walk(3, 1), walk(3, 32, 1)])


@ENCODERS
@pytest.mark.parametrize("steps", [1, 2, 7, 17, 31, 32])
def test_padding_never_changes_features(make: Make, steps: int) -> None:
    torch.manual_seed(0)
    short, long = make(length=32).eval(), make(length=80).eval()
    state = {name: one + 0.1 * torch.randn_like(one) for name, one in short.state_dict().items()}
    short.load_state_dict(state)
    if "positions" in state:
        state["positions"] = torch.cat([state["positions"], torch.randn(6, 32)])
    long.load_state_dict(state)
    series = gappy(3, steps)
    with torch.no_grad():
        found = [encoder(encoder.collate([encoder.prepare(series)])) for encoder in (short, long)]
    torch.testing.assert_close(found[1], found[0])


def test_without_padding_the_masked_norm_is_group_norm(generator: torch.Generator) -> None:
    norm = MaskedGroupNorm(32)
    torch.nn.init.normal_(norm.weight, generator=generator)
    torch.nn.init.normal_(norm.bias, generator=generator)
    x = 3 + torch.randn(4, 32, 1, 10, generator=generator)
    torch.testing.assert_close(
        norm(x, torch.ones(4, 1, 1, 10)), F.group_norm(x, 2, norm.weight, norm.bias), atol=1e-4, rtol=1e-4
    )


@ENCODERS
def test_that_a_value_is_missing_differs_from_it_being_average(make: Make) -> None:
    encoder = make()
    average = walk(3, 32)
    average[:, 8:16] = 0
    missing = average.copy()
    missing[:, 8:16] = np.nan
    with torch.no_grad():
        one, other = encoder(encoder.collate([encoder.prepare(average), encoder.prepare(missing)]))
    assert (one - other).abs().max() > 1e-3


@ENCODERS
def test_the_order_of_time_counts(make: Make) -> None:
    encoder, series = make(), walk(3, 32)
    mixed = series.reshape(3, 4, 8)[:, [2, 0, 3, 1]].reshape(3, 32)  # whole patches of the transformer
    with torch.no_grad():
        one, other = encoder(encoder.collate([encoder.prepare(series), encoder.prepare(mixed)]))
    assert (one - other).abs().max() > 1e-3


def test_a_token_is_real_if_any_of_its_steps_is() -> None:
    encoder = transformer()
    inputs = encoder.collate([encoder.prepare(walk(3, steps)) for steps in (1, 8, 9, 32)])
    tokens, mask = encoder.embed(inputs)
    assert tokens.shape == (4, 4, 32)
    assert mask.sum(1).tolist() == [1, 1, 2, 4]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_tokens_see_each_other_as_under_a_padding_mask_of_torch(
    generator: torch.Generator, heads: int, train: bool
) -> None:
    one = transformer(heads=heads).train(train)
    check_padding_mask(one, one.layers, 32, generator)


def test_padded_tokens_need_no_sympy_which_takes_seconds_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sympy", "torch.fx.experimental.symbolic_shapes"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it now fails
    one = transformer().train()
    one(one.collate([one.prepare(walk(3, steps)) for steps in (5, 32)]))


@ENCODERS
def test_what_was_learnt_is_saved_and_loaded_with_the_weights(make: Make) -> None:
    one, other = make().eval(), make().eval()
    one.adapt([walk(3, 30) * 5 + 100])
    other.load_state_dict(load(save(one.state_dict())))
    series = walk(3, 30) * 5 + 100
    assert torch.equal(one.prepare(series)["values"], other.prepare(series)["values"])
    assert abs(float(other.prepare(series)["values"][:3].mean())) < 1e-3


@ENCODERS
def test_preparation_needs_nothing_of_the_device_that_the_encoder_is_on(make: Make) -> None:
    encoder, series = make(), walk(3, 20)
    encoder.adapt([series])
    before = encoder.prepare(series)["values"]
    assert torch.equal(encoder.to("meta").prepare(series)["values"], before)


@ENCODERS
def test_a_few_steps_tell_fast_from_slow(make: Make) -> None:
    torch.manual_seed(0)
    encoder = make().train()
    head = torch.nn.Linear(encoder.width, 2)
    rng = np.random.default_rng(0)
    time = np.arange(32)
    items = [
        np.sin((1.2 if index % 2 else 0.5) * time + rng.uniform(0, 6, (3, 1))).astype(np.float32) for index in range(96)
    ]
    encoder.adapt(items)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    label = torch.arange(96) % 2
    for step in range(15):
        inputs = encoder.collate(
            [encoder.prepare(one, np.random.default_rng((step, i))) for i, one in enumerate(items[:64])]
        )
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(encoder(inputs)), label[:64]))
        optimizer.step()
    encoder.eval()
    found = head(encoder(encoder.collate([encoder.prepare(one) for one in items[64:]]))).argmax(1)
    assert (found == label[64:]).float().mean() > 0.9


@ENCODERS
def test_a_series_of_other_channels_is_refused(make: Make) -> None:
    encoder = make()
    with pytest.raises(ValueError, match=r"3 channels, not of shape \(2, 9\)"):
        encoder.prepare(walk(2, 9))
    with pytest.raises(ValueError, match=r"3 channels, not of shape \(9, 3\): transpose it"):
        encoder.prepare(walk(9, 3))


@ENCODERS
def test_adapting_skips_series_of_other_channels(make: Make) -> None:
    one, other = make(), make()
    one.adapt([walk(2, 9), walk(3, 20), walk(1, 3)[0]])
    other.adapt([walk(3, 20)])
    np.testing.assert_array_equal(one.preparation.mean, other.preparation.mean)
    np.testing.assert_array_equal(one.preparation.std, other.preparation.std)
    one.adapt([walk(2, 9)])
    assert (one.preparation.mean.tolist(), one.preparation.std.tolist()) == ([[0]] * 3, [[1]] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 20}, "multiple of 16"), ({"depth": 0}, "depth must be positive"), ({"length": 0}, "must be positive")],
)
def test_options_of_the_network_over_time_that_can_not_be_are_refused(options: dict[str, int], message: str) -> None:
    known = {"channels": 3, "width": 16, "depth": 2, "length": 32}
    with pytest.raises(InputError, match=message):
        SeriesConv(**{**known, **options}, augment=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patch": 5}, "32 is none of 5"), ({"heads": 3}, "32 is none of 3"), ({"channels": 0}, "must be positive")],
)
def test_options_of_the_transformer_that_can_not_be_are_refused(options: dict[str, int], message: str) -> None:
    known = {"channels": 3, "patch": 8, "width": 32, "depth": 1, "heads": 2, "length": 32}
    with pytest.raises(InputError, match=message):
        SeriesTransformer(**{**known, **options}, augment=True)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(("series-conv", option) for option in ("channels", "width", "depth", "length")),
        *(("series-transformer", option) for option in ("channels", "patch", "width", "depth", "heads", "length")),
    ],
)
def test_options_of_the_factories_that_can_not_be_are_refused_by_name(name: str, option: str) -> None:
    options = {"channels": 3, option: 0}
    message = refusal(lambda: Catalog.of(series=mmssl_series).create("encoders", name, options=options))
    assert f"{option}: " in message
    assert "greater than or equal to 1" in message
