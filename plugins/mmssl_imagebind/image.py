"""The vision tower for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor, resize

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import SIZE
from mmssl_imagebind.tower import Size
from mmssl_imagebind.views import normalise, square
from multimodal_ssl import Inputs


class ImageBindImage(ImageBindEncoder):
    """Features of pictures: the middle square of each, its shorter side scaled to 224 pixels."""

    modality = "image"

    def __init__(self, *, checkpoint: str | None, size: Size) -> None:
        super().__init__("vision", checkpoint, size)

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn an image into pixels [3, 224, 224] (uint8); with an rng a square anywhere."""
        return square(pil_to_tensor(resize(item.convert("RGB"), SIZE, InterpolationMode.BICUBIC)), rng)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.tower(normalise(inputs.float().div_(255), dim=1))
