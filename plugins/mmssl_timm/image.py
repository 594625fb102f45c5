"""Any model of timm, with its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.data.transforms import str_to_interp_mode
from torch import Tensor, nn
from torchvision.transforms import Normalize
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from mmssl_pretrained.crop import random_box
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.tokens import as_tokens, channels_first, width_of_tokens
from mmssl_pretrained.tower import check_finite, freeze_unused, hold_statistics
from mmssl_timm.loading import load_model
from multimodal_ssl import Encoder, InputError, Inputs

GREY = Image.new("RGB", (64, 64), "grey")  # to try a model on


class TimmImage(Encoder):
    """The features before the classifier of a model of timm, in float32 and before normalisation.

    A run keeps the trained weights, not the architecture and the preprocessing: to load it, what ``model`` and
    ``pretrained`` name must still be there (a file, a folder, or the hub's cache on this machine). BatchNorm keeps the
    statistics of pretraining.

    Args:
        model: a name of timm, ``hf-hub:owner/name`` or ``local-dir:folder``; the last two name their weights too.
        pretrained: whether to begin with the model's weights, or the path of a checkpoint to begin with.
    """

    modality = "image"

    def __init__(self, *, model: str, pretrained: bool | str) -> None:
        super().__init__()
        self.tower = load_model(model, pretrained)
        self.config = config = resolve_model_data_config(self.tower)
        channels, *self.size = config["input_size"]
        self.mode = "L" if channels == 1 else "RGB"
        self.interpolation = str_to_interp_mode(config["interpolation"])
        self.transform = create_transform(**config, normalize=False)
        self.normalise = Normalize(config["mean"], config["std"], inplace=True)
        inputs = self.collate([self.prepare(GREY)])
        with torch.no_grad():
            self._token_width = width_of_tokens(self._hidden(inputs))
        features, _ = freeze_unused(self.tower, lambda: self(inputs))
        if features.ndim != 2:
            raise InputError(f"{model} gives features of shape {list(features.shape)}, not one vector for each image")
        check_finite(model, features)
        self.width = features.shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn an image into pixels [C, H, W] (uint8); with an rng, those of a random crop.

        `forward` normalises them, a batch at once: what a worker hands over is a quarter of the floats.
        """
        image = item.convert(self.mode)
        if rng is None:
            return self.transform(image)
        return pil_to_tensor(resized_crop(image, *random_box(image.size, rng), self.size, self.interpolation))

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.tower(self._pixels(inputs))
        return features

    @property
    def token_width(self) -> int:
        return self._token_width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return as_tokens(self._hidden(inputs))

    def _hidden(self, inputs: Inputs) -> Any:
        """Return what comes before the pooling: tokens [B, T, F], a map [B, F, H, W] or something else."""
        tower: Any = self.tower
        return channels_first(tower, tower.forward_features(self._pixels(inputs)))

    def _pixels(self, inputs: Tensor) -> Tensor:
        pixels: Tensor = self.normalise(inputs.float().div_(255))
        return pixels

    def train(self, mode: bool = True) -> TimmImage:
        super().train(mode)
        hold_statistics(self)
        return self

    def describe(self) -> dict[str, Any]:
        # What the folder's config sets of the architecture, such as its pooling, timm keeps here.
        built = vars(self.tower).get("_model_args")
        return describe(timm, torch, preparation=self.config, built=built, tower=repr(self.tower))

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self.prepare(GREY)]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)
