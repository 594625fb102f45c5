"""The layers of our encoders from scratch in the order of depth, which tuning by depth counts by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mmssl_audio
import mmssl_image
import mmssl_points
import mmssl_series
import mmssl_tabular
import mmssl_text
import mmssl_video
from mmssl_audio.modality import Audio
from multimodal_ssl import Catalog

rng = np.random.default_rng(0)
CATALOG = Catalog.of(
    audio=mmssl_audio, image=mmssl_image, points=mmssl_points, series=mmssl_series, tabular=mmssl_tabular,
    text=mmssl_text, video=mmssl_video,
)  # fmt: skip
ITEMS: dict[str, Any] = {
    "image": rng.integers(0, 255, (24, 24, 3), np.uint8),
    "text": "a few words",
    "series": rng.normal(size=(3, 32)).astype(np.float32),
    "audio": Audio(rng.uniform(-1, 1, (1, 8000)).astype(np.float32), 16000),
    "depth": rng.uniform(1, 2, (24, 30)).astype(np.float32),
    "thermal": rng.uniform(1, 2, (24, 30)).astype(np.float32),
    "points": rng.normal(size=(30, 3)).astype(np.float32),
    "tabular": {"a": 1.0, "b": "x", "c": None},
    "video": rng.integers(0, 255, (4, 24, 24, 3), np.uint8),
}
VIT = {"name": "small-vit", "size": 24, "width": 16, "depth": 3, "heads": 2}
ENCODERS: list[tuple[str, dict[str, Any], int]] = [
    ("small-conv", {"size": 24, "width": 16, "depth": 2}, 6),
    ("small-vit", VIT, 3),
    ("small-vit", {**VIT, "depth": 1}, 1),
    ("small-text", {"width": 16, "depth": 2, "heads": 2, "vocabulary": 300}, 2),
    ("series-conv", {"channels": 3, "width": 16, "depth": 3}, 3),
    ("series-transformer", {"channels": 3, "width": 16, "depth": 2, "heads": 2}, 2),
    ("log-mel-conv", {"width": 16, "seconds": 0.5}, 3),
    ("spectrogram-transformer", {"width": 16, "seconds": 0.5, "depth": 2}, 2),
    ("depth-conv", {"size": 24, "width": 16}, 3),
    ("thermal-conv", {"size": 24, "width": 16, "depth": 2}, 6),
    ("points-net", {"width": 16, "depth": 2}, 2),
    ("tabular-transformer", {"width": 16, "depth": 2}, 2),
    ("small-video-conv", {"frames": 4, "size": 24, "width": 16}, 3),
    ("frames", {"frames": 2, "image": VIT}, 3),
    ("frames", {"frames": 2, "image": VIT, "pooling": "transformer"}, 4),
]


@pytest.mark.parametrize(("name", "options", "count"), ENCODERS)
def test_what_is_in_no_layer_lies_below_the_first_and_each_layer_above_the_one_before(
    name: str, options: dict[str, Any], count: int
) -> None:
    torch.manual_seed(0)
    encoder = CATALOG.create("encoders", name, options={key: one for key, one in options.items() if key != "name"})
    encoder.eval()
    item = CATALOG.modality(encoder.modality).load(ITEMS[encoder.modality])
    encoder.adapt([item])
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    inputs = encoder.collate([encoder.prepare(item)])
    layers = encoder.by_depth()
    assert len(layers) == count
    owned = [id(one) for layer in layers for one in layer.parameters()]
    assert len(owned) == len(set(owned)), "two layers share a weight"
    for depth, layer in enumerate(layers):
        above = {id(one) for later in layers[depth:] for one in later.parameters()}
        below = [one for one in encoder.parameters() if id(one) not in above]
        assert below, "the first layer is not all there is"
        first = layer[0] if isinstance(layer, nn.ModuleList) else layer
        seen: list[Any] = []
        with torch.no_grad():
            with_hook(encoder, first, inputs, lambda _, args, kwargs, seen=seen: seen.append((args, kwargs)))
            features = encoder(inputs)
            kept = [one.clone() for one in below]
            for one in below:
                one.normal_()
            assert not torch.allclose(encoder(inputs), features), "nothing below the layer matters"
            again = with_hook(encoder, first, inputs, lambda *_, seen=seen: seen[0])
            torch.testing.assert_close(again, features, msg=f"something after layer {depth} is in none from it on")
            for one, before in zip(below, kept, strict=True):
                one.copy_(before)


def with_hook(encoder: nn.Module, layer: nn.Module, inputs: Any, hook: Any) -> torch.Tensor:
    """Return the features while a hook sees, or replaces, what a layer takes."""
    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        return encoder(inputs)
    finally:
        handle.remove()
