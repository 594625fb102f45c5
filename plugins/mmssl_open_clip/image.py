"""The image tower of an open_clip model, with its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from mmssl_open_clip.hidden import image_hidden
from mmssl_open_clip.loading import load_model
from mmssl_pretrained.crop import random_box
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.tokens import as_tokens, width_of_tokens
from multimodal_ssl import Encoder, Inputs

GREY = Image.new("RGB", (64, 64), "grey")  # to try a model on


class OpenClipImage(Encoder):
    """Image features in open_clip's joint space, before normalisation (Cherti et al. 2023).

    A run keeps the trained weights, not the architecture and the preprocessing: to load it, what ``model`` and
    ``pretrained`` name must still be there (a file, a folder, or the hub's cache on this machine). To tune it at
    another resolution, give a copy of its model config with another ``image_size``: positions are interpolated.

    Args:
        model: an architecture of open_clip, the path of a model config (.json), ``local-dir:folder`` or
            ``hf-hub:name``; the last two name their weights too.
        pretrained: a tag of the architecture or the path of a checkpoint; None begins with random weights.
    """

    modality = "image"

    def __init__(self, *, model: str, pretrained: str | None) -> None:
        super().__init__()
        name, both = load_model(model, pretrained)
        self.config = open_clip.get_model_config(name)
        self.width = self.config["embed_dim"]
        self.tower: nn.Module = both.visual  # the text tower is let go
        self.preprocessing = preprocessing = PreprocessCfg(**both.visual.preprocess_cfg)
        *resize, _, normalise = image_transform_v2(preprocessing, is_train=False).transforms
        self.normalise = Normalize(normalise.mean, normalise.std, inplace=True)
        self.resize = Compose(resize)
        self.crop, self.to_rgb, *_ = image_transform_v2(preprocessing, is_train=True).transforms
        with torch.no_grad():
            self._token_width = width_of_tokens(
                image_hidden(self.tower, self._pixels(self.collate([self.prepare(GREY)])))
            )

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn an image into pixels [3, H, W] (uint8); with an rng as open_clip does it in training, a random crop.

        `forward` normalises them, a batch at once: what a worker hands over is a quarter of the floats.
        """
        if rng is None:
            return pil_to_tensor(self.resize(item))
        box = random_box(item.size, rng, scale=self.crop.scale, ratio=self.crop.ratio)
        return pil_to_tensor(self.to_rgb(resized_crop(item, *box, self.crop.size, self.crop.interpolation)))

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor | tuple[Tensor, Tensor] = self.tower(self._pixels(inputs))
        return features[0] if isinstance(features, tuple) else features  # CoCa's tower gives its tokens as well

    @property
    def token_width(self) -> int:
        return self._token_width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return as_tokens(image_hidden(self.tower, self._pixels(inputs)))

    def _pixels(self, inputs: Tensor) -> Tensor:
        pixels: Tensor = self.normalise(inputs.float().div_(255))
        return pixels

    def describe(self) -> dict[str, Any]:
        return describe(open_clip, config=self.config, preparation=asdict(self.preprocessing))

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self.prepare(GREY)]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)
