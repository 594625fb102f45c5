"""The conformance kit for plugin authors: each check raises an AssertionError that says what is wrong.

Call them in your plugin's tests, on real items::

    def test_encoder():
        check_encoder(MyEncoder(), items)
"""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_ssl.data import Feed, Supply, attempt, batches
from multimodal_ssl.digests import raw_digest
from multimodal_ssl.errors import UnreadableError
from multimodal_ssl.plan import Plan
from multimodal_ssl.stream_order import Cursor
from multimodal_ssl.types import (
    Encoder,
    Inputs,
    MapSource,
    Modality,
    Objective,
    PairingSource,
    Sample,
    TokenEncoder,
)


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
    told = encoder.describe()
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
        assert json.loads(json.dumps(encoder.describe())) == told == encoder.describe(), (
            "describe must tell JSON, always"
        )
        alone = torch.cat([encoder(encoder.collate([one])) for one in prepared])
        torch.testing.assert_close(
            alone, features, rtol=1e-3, atol=1e-4, msg="features depend on what else is in the batch"
        )
    assert len(torch.unique(features, dim=0)) > 1, "different items have equal features"
    if encoder.token_width:
        _check_tokens(encoder, prepared)
    if isinstance(encoder, TokenEncoder):
        _check_mask(encoder, inputs, features)
    _check_gradients(encoder, [encoder.prepare(item, np.random.default_rng(index)) for index, item in enumerate(items)])
    _check_saving(encoder)


def check_pairing_source(source: PairingSource, *, limit: int = 200) -> None:
    """Check the first samples of a source: keys, items, groups, weights, its manifest, and that it repeats itself.

    `check_resume` checks how it feeds training.
    """
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
        _check_manifest(source, samples)
        _check_columns(source, limit)
    else:
        shards = itertools.chain.from_iterable(source.read(shard, 0) for shard in range(source.num_shards))
        assert [sample.key for sample in itertools.islice(shards, limit)] == keys, "shards are not what iter() yields"
        whole = [sample.key for sample in itertools.islice(source.read(0, 0), limit)]
        for start in {len(whole) // 2, max(0, len(whole) - 1), len(whole)}:
            rest = [sample.key for sample in itertools.islice(source.read(0, start), len(whole) - start)]
            assert rest == whole[start:], f"read(0, {start}) is not the rest of read(0, 0)"


def check_resume(source: PairingSource, *, steps: int = 8, batch: int = 4, workers: Sequence[int] = (0, 1, 3)) -> None:
    """Check that training reads the same bytes in the same order with any number of workers, and from any step on.

    So it is after a kill, too: nothing is kept but what a checkpoint holds. The source must be picklable, which workers
    need where processes are not forked.

    Args:
        batch: at most half of the samples that have two items or more.
    """
    names = tuple(source.modalities)
    supplies = [Supply(source, names)]
    encoders = {name: _Digests(kind) for name, kind in source.modalities.items()}
    modalities = {name: Modality(kind, object, _same, _same) for name, kind in source.modalities.items()}

    def read(start: int, stop: int, cursors: dict[int, Cursor], workers: int) -> list[tuple[Any, ...]]:
        feed = Feed(supplies, encoders, modalities, seed=1)
        tickets = Plan(supplies, batch=batch, seed=1).tickets(start=start, stop=stop, cursors=cursors)
        found = list(batches(feed, tickets, workers=workers))
        if found[-1].cursor:
            cursors[0] = Cursor.parse(json.loads(json.dumps(found[-1].cursor)))
        return [(one.keys, one.groups, one.weight.tolist(), one.inputs, one.unreadable) for one in found]

    whole = read(0, steps, {}, 0)
    supplies = [Supply(pickle.loads(pickle.dumps(source)), names)]
    for number, other in itertools.pairwise((*workers, workers[0])):
        cursors: dict[int, Cursor] = {}
        begun = read(0, steps // 2, cursors, number)
        assert begun == whole[: steps // 2], f"with {number} workers the batches differ"
        rest = read(steps // 2, steps, cursors, other)
        assert rest == whole[steps // 2 :], f"what comes after a break differs, with {other} workers after {number}"


class _Digests(Encoder):
    """Takes any item for its digest, or else its pickled bytes, and all randomness of augmentation for one number."""

    width = 1

    def __init__(self, modality: str) -> None:
        super().__init__()
        self.modality = modality

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        try:
            told: Any = raw_digest(item)
        except TypeError:
            told = pickle.dumps(item)
        return told, None if rng is None else float(rng.random())

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        return list(prepared)

    def forward(self, inputs: Inputs) -> Tensor:
        raise NotImplementedError("it stands for an encoder in preparation only")


def _same(item: Any) -> Any:
    return item


def _check_columns(source: MapSource, limit: int) -> None:
    read = [(row, one) for row, one in itertools.islice(attempt(source), limit) if isinstance(one, Sample)]
    names = tuple(read[0][1].items)
    alike = [(row, one) for row, one in read if tuple(one.items) == names]
    if found := source.columns([row for row, _ in alike], names):
        assert list(found.keys) == [one.key for _, one in alike], "columns gives other keys than source[row]"
        assert list(found.groups) == [one.group for _, one in alike], "columns gives other groups than source[row]"
        assert list(found.weights) == [one.weight for _, one in alike], "columns gives other weights than source[row]"
        assert list(found.metadata) == [one.metadata for _, one in alike], "columns gives other metadata"
        for name in names:
            for item, (_, one) in zip(found.items[name], alike, strict=True):
                loaded = isinstance(one.items[name], np.ndarray)  # else it is what `Modality.load` takes
                assert not loaded or np.array_equal(item, one.items[name]), f"columns gives another {name}"


def _check_manifest(source: MapSource, samples: Sequence[Sample]) -> None:
    assert len(source) >= len(samples), "len(source) is less than what it yields"
    manifest = source.manifest()
    shape = (len(source), len(source.modalities))
    assert manifest.present.shape == shape, f"manifest().present is {manifest.present.shape}, not [N, M] = {shape}"
    assert manifest.length is None or manifest.length.shape == shape, f"manifest().length is not [N, M] = {shape}"
    for name, known in (("group", manifest.group), ("frequency", manifest.frequency)):
        assert known is None or known.shape == shape[:1], f"manifest().{name} is not [N] = {shape[:1]}"
    assert manifest.frequency is None or (manifest.frequency >= 0).all(), "manifest().frequency is negative"
    found = iter(samples)
    seen: dict[str, int] = {}
    for index in range(len(source)):
        try:
            sample = source[index]
        except UnreadableError:
            continue
        expected = next(found, None)
        if expected is None:
            break
        assert sample.key == expected.key, "source[i] is not what iter(source) yields in its place"
        has = set(itertools.compress(source.modalities, manifest.present[index].tolist()))
        assert has == set(sample.items), f"{sample.key}: manifest().present differs from its items"
        number = index if manifest.group is None else int(manifest.group[index])
        name = sample.group or f"alone {index}"
        if manifest.group is not None:
            assert seen.setdefault(name, number) == number, f"manifest().group differs from the group of {sample.key}"
    assert len(set(seen.values())) == len(seen), "manifest().group is the same for samples of several groups"


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


def _check_tokens(encoder: Encoder, prepared: list[Inputs]) -> None:
    with torch.no_grad():
        tokens, mask = encoder.token_states(encoder.collate(prepared))
        assert tokens.shape == (len(prepared), mask.shape[1], encoder.token_width), (
            f"tokens are {tuple(tokens.shape)}, not [B, T, token_width], token_width being {encoder.token_width}"
        )
        assert mask.shape == tokens.shape[:2], f"mask is {tuple(mask.shape)}, not {tuple(tokens.shape[:2])}"
        assert mask.dtype == torch.bool, "mask must be bool"
        for one, row, real in zip(prepared, tokens, mask, strict=True):
            alone, whole = encoder.token_states(encoder.collate([one]))
            torch.testing.assert_close(
                alone[0][whole[0]], row[real], rtol=1e-3, atol=1e-4, msg="tokens depend on what else is in the batch"
            )


def _check_mask(encoder: TokenEncoder, inputs: Inputs, features: Tensor) -> None:
    with torch.no_grad():
        tokens, mask = encoder.embed(inputs)
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
