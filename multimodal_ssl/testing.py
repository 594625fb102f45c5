"""The conformance kit for plugin authors: each check raises an AssertionError that says what is wrong.

Call them in your plugin's tests, on real items::

    def test_encoder():
        check_encoder(MyEncoder(), items)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality, Objective, PairingSource, TokenEncoder


def check_modality(modality: Modality, values: Sequence[Any]) -> None:
    """Check a modality on things that its ``load`` takes (paths, bytes, raw items)."""
    assert modality.name == modality.name.lower().strip() != "", f"name {modality.name!r} is not lower case"
    assert values, "give at least one value"
    for value in values:
        item = modality.load(value)
        assert isinstance(item, modality.type), f"load({value!r:.80}) is a {type(item)}, not a {modality.type}"
        again = modality.load(item)
        assert isinstance(again, modality.type), "load must take a raw item too"
        preview = modality.preview(item)
        assert preview.text is not None or preview.png is not None, "a preview has a text or a picture"
        sizes = modality.measure(item)
        assert all(math.isfinite(one) and one >= 0 for one in sizes.values()), f"measures must be finite: {sizes}"
        assert preview.png is None or preview.png.startswith(b"\x89PNG"), "preview.png must be PNG bytes"
        assert preview.wav is None or preview.wav.startswith(b"RIFF"), "preview.wav must be WAV bytes"


def check_encoder(encoder: Encoder, items: Sequence[Any]) -> None:
    """Check an encoder on at least two different raw items: shapes, determinism, batching, gradients, saving."""
    assert len(items) >= 2, "give at least two items"
    assert isinstance(encoder.modality, str), "modality must be the name of a registered modality"
    encoder.adapt(items)
    encoder.eval()
    prepared = [encoder.prepare(item) for item in items]
    for one, item in zip(prepared, items, strict=True):
        assert _equal(one, encoder.prepare(item)), "prepare without rng must give the same tensors every time"
        augmented = [encoder.prepare(item, np.random.default_rng(7)) for _ in range(2)]
        assert _equal(*augmented), "prepare with equal rngs must give equal tensors"
    inputs = encoder.collate(prepared)
    with torch.no_grad():
        features = encoder(inputs)
        assert features.shape == (len(items), encoder.width), (
            f"features are {tuple(features.shape)}, not [B, F] = {(len(items), encoder.width)}"
        )
        assert torch.isfinite(features).all(), "features must be finite"
        assert torch.equal(features, encoder(inputs)), "in eval mode the same inputs must give the same features"
        alone = torch.cat([encoder(encoder.collate([one])) for one in prepared])
        torch.testing.assert_close(
            alone, features, rtol=1e-3, atol=1e-4, msg="features depend on what else is in the batch"
        )
    assert len(torch.unique(features, dim=0)) > 1, "different items have equal features"
    if isinstance(encoder, TokenEncoder):
        _check_tokens(encoder, inputs, features)
    _check_gradients(encoder, [encoder.prepare(item, np.random.default_rng(index)) for index, item in enumerate(items)])
    _check_saving(encoder)


def check_pairing_source(source: PairingSource, *, limit: int = 200) -> None:
    """Check the first samples of a source: keys, items, groups, weights, and that it repeats itself."""
    assert source.modalities, "modalities must name at least one kind of item"
    samples = list(itertools.islice(source, limit))
    assert samples, "the source is empty"
    keys = [sample.key for sample in samples]
    assert len(set(keys)) == len(keys), "keys repeat"
    for sample in samples:
        assert isinstance(sample.key, str), f"key {sample.key!r} is no str"
        assert sample.key, "a key is empty"
        assert sample.items, f"{sample.key}: no items"
        assert sample.items.keys() <= source.modalities.keys(), f"{sample.key}: items beyond source.modalities"
        assert isinstance(sample.group, str), f"{sample.key}: group {sample.group!r} is no str"
        assert 0 < sample.weight <= 1, f"{sample.key}: weight {sample.weight} is not in (0, 1]"
    again = [sample.key for sample in itertools.islice(source, limit)]
    assert again == keys, "iterating twice gives different orders"
    if isinstance(source, MapSource):
        assert len(source) >= len(samples), "len(source) is less than what it yields"
        present = source.manifest().present
        for index in (0, len(samples) - 1):
            assert source[index].key == keys[index], "source[i] is not the i-th sample of iter(source)"
            has = set(itertools.compress(source.modalities, present[index].tolist()))
            assert has == set(source[index].items), "manifest().present[i] differs from source[i].items"


def check_objective(make: Callable[[Sequence[tuple[str, str]]], Objective], *, batch: int = 16, dim: int = 8) -> None:
    """Check an objective: scalar loss, gradients, agreement in [0, 1], order of the batch, groups, better is lower."""
    generator = torch.Generator().manual_seed(0)
    objective = make([("a", "b")])
    a, noise = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    group, weight = torch.arange(batch), torch.linspace(0.2, 1, batch)

    def views(spread: float) -> dict[str, Tensor]:
        return {"a": _unit(a).requires_grad_(), "b": _unit(a + spread * noise).requires_grad_()}

    pair = views(1.0)
    loss, agreement = objective(pair, weight, group)
    assert loss.shape == (), f"loss has shape {tuple(loss.shape)}, not ()"
    assert agreement.shape == (batch,), "agreement must be [B]"
    assert not agreement.requires_grad, "agreement must be detached"
    assert bool(((agreement >= 0) & (agreement <= 1)).all()), "agreement must be in [0, 1]"
    loss.backward()
    for name, view in pair.items():
        assert view.grad is not None, f"no gradient reaches view {name}"
        assert torch.isfinite(view.grad).all(), f"the gradient of view {name} is not finite"
    order = torch.randperm(batch, generator=generator)
    moved = objective({name: view[order] for name, view in pair.items()}, weight[order], group[order])
    torch.testing.assert_close(moved.loss, loss, msg="the loss depends on the order of the batch")
    torch.testing.assert_close(moved.agreement, agreement[order], msg="agreement depends on the order of the batch")
    aligned, random = objective(views(0.1), weight, group), objective(views(10.0), weight, group)
    assert aligned.loss < random.loss, "aligned pairs must have a lower loss than random ones"
    assert aligned.agreement.mean() > random.agreement.mean(), "aligned pairs must have a higher agreement"
    one_group = objective(views(1.0), weight, torch.zeros_like(group))
    assert math.isfinite(one_group.loss.item()), "a batch of one group must have a finite loss"


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _equal(one: Inputs, other: Inputs) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _check_tokens(encoder: TokenEncoder, inputs: Inputs, features: Tensor) -> None:
    with torch.no_grad():
        tokens, mask = encoder.embed(inputs)
        assert tokens.ndim == 3, f"tokens are {tuple(tokens.shape)}, not [B, T, F]"
        assert mask.shape == tokens.shape[:2], f"mask is {tuple(mask.shape)}, not {tuple(tokens.shape[:2])}"
        assert mask.dtype == torch.bool, "mask must be bool"
        noisy = torch.where(mask.unsqueeze(-1), tokens, tokens + 1)
        pooled = encoder.pool(encoder.contextualise(noisy, mask), mask)
        torch.testing.assert_close(pooled, features, msg="features depend on tokens that the mask hides")


def _check_gradients(encoder: Encoder, prepared: list[Inputs]) -> None:
    encoder.train()
    trainable = {name: one for name, one in encoder.named_parameters() if one.requires_grad}
    if trainable:
        encoder.zero_grad()
        encoder(encoder.collate(prepared)).pow(2).sum().backward()
        reached = [one.grad is not None and bool(torch.isfinite(one.grad).all()) for one in trainable.values()]
        lost = [name for name, ok in zip(trainable, reached, strict=True) if not ok]
        assert not lost, f"no finite gradient reaches {', '.join(lost)}; freeze what is not trained"
        encoder.zero_grad()
    encoder.eval()


def _check_saving(encoder: Encoder) -> None:
    state = encoder.state_dict()
    for name, value in state.items():
        assert isinstance(value, Tensor), f"state {name!r} is no tensor: it can't be saved without pickle"
    encoder.load_state_dict({name: value.clone() for name, value in state.items()})
