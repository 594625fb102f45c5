"""The image tower of an open_clip model, with its own preprocessing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize, RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from mmssl_open_clip.loading import load_model
from multimodal_ssl import Encoder, Inputs


class OpenClipImage(Encoder):
    """Image features in open_clip's joint space, before normalisation (Cherti et al. 2023).

    A run keeps the trained weights, not the architecture and the preprocessing: to load it, what ``model`` and
    ``pretrained`` name must still be there (a file, a folder, or the hub's cache on this machine).

    Args:
        model: an architecture of open_clip, the path of a model config (.json), ``local-dir:folder`` or
            ``hf-hub:name``; the last two name their weights too.
        pretrained: a tag of the architecture or the path of a checkpoint; None begins with random weights.
    """

    modality = "image"

    def __init__(self, *, model: str, pretrained: str | None) -> None:
        super().__init__()
        name, both = load_model(model, pretrained)
        self.width = open_clip.get_model_config(name)["embed_dim"]
        self.tower: nn.Module = both.visual  # the text tower is let go
        preprocessing = PreprocessCfg(**both.visual.preprocess_cfg)
        *resize, _, normalise = image_transform_v2(preprocessing, is_train=False).transforms
        self.normalise = Normalize(normalise.mean, normalise.std, inplace=True)
        self.resize = Compose(resize)
        self.crop, self.to_rgb, *_ = image_transform_v2(preprocessing, is_train=True).transforms

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn an image into pixels [3, H, W] (uint8); with an rng as open_clip does it in training, a random crop.

        `forward` normalises them, a batch at once: what a worker hands over is a quarter of the floats.
        """
        image = self.resize(item) if rng is None else self.to_rgb(random_crop(item, self.crop, rng))
        return pil_to_tensor(image)

    def forward(self, inputs: Inputs) -> Tensor:
        pixels = self.normalise(inputs.float().div_(255))
        features: Tensor | tuple[Tensor, Tensor] = self.tower(pixels)
        return features[0] if isinstance(features, tuple) else features  # CoCa's tower gives its tokens as well


def random_crop(image: Image.Image, crop: RandomResizedCrop, rng: np.random.Generator) -> Image.Image:
    """Do what torchvision's RandomResizedCrop does, its numbers drawn from rng and not from torch's global state.

    With open_clip's settings (90 to 100 % of the area, ratios to 4:3) pictures of 3:2 or wider give one fixed crop.
    """
    width, height = image.size
    low, high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    for _ in range(10):
        area, ratio = rng.uniform(*crop.scale) * width * height, math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            break
    else:  # too narrow for such a crop: the middle, as wide or as high as the ratios allow
        w = min(width, round(height * crop.ratio[1]))
        h = min(height, round(width / crop.ratio[0]))
        top, left = (height - h) // 2, (width - w) // 2
    cropped: Image.Image = resized_crop(image, top, left, h, w, crop.size, crop.interpolation)
    return cropped
