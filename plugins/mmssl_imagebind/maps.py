"""The towers of depth and thermal maps. Official code and paper leave their preparation open, but for the size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import SIZE
from mmssl_imagebind.tower import Size
from mmssl_imagebind.views import square
from multimodal_ssl import InputError, Inputs

NEAR, FAR = 0.065, 6.25  # metres


class ImageBindDepth(ImageBindEncoder):
    """Features of depth maps [H, W] in metres, of which the tower sees the disparity: focal * baseline / depth.

    So Omnivore, by authors of ImageBind, has it for SUN RGB-D (Girdhar et al. 2022). The numbers behind the checkpoint
    are not published. The defaults are Omnivore's mean 0.0418 and deviation 0.0295, in units of 75 pixels, times eight:
    SUN RGB-D's files hold eighths of a millimetre, and only if they were read as millimetres do these fit rooms.

    Args:
        focal: focal length of the sensor, in pixels of the map.
        baseline: between the two eyes of the sensor, in metres.
        mean, std: of disparity, in pixels; what is missing (NaN) takes the mean.
    """

    modality = "depth"

    def __init__(
        self, *, checkpoint: str | None, size: Size, focal: float, baseline: float, mean: float, std: float
    ) -> None:
        super().__init__("depth", checkpoint, size)
        if focal <= 0 or baseline <= 0 or std <= 0:
            raise InputError(
                f"imagebind-depth: focal, baseline and std must be positive, not {focal}, {baseline}, {std}"
            )
        self.scale, self.mean, self.std = focal * baseline, mean, std

    def prepare(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> Inputs:
        """Turn a map into disparities [1, 224, 224], normalised; with an rng a square anywhere."""
        disparity = self.scale / np.clip(item, NEAR, FAR)
        return _fit(np.nan_to_num((disparity - self.mean) / self.std), rng)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.tower(inputs)


class ImageBindThermal(ImageBindEncoder):
    """Features of thermal maps [H, W], of which the tower sees shades of grey from 0 to 1.

    Args:
        low, high: what becomes 0 and 1; None: the least and the greatest of each map, which a thermal camera's own
            pictures, such as those of LLVIP that it was trained on, have been scaled to as well.
    """

    modality = "thermal"

    def __init__(self, *, checkpoint: str | None, size: Size, low: float | None, high: float | None) -> None:
        super().__init__("thermal", checkpoint, size)
        if low is not None and high is not None and low >= high:
            raise InputError(f"imagebind-thermal: low must be less than high, not {low} and {high}")
        self.low, self.high = low, high

    def prepare(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> Inputs:
        """Turn a map into shades [1, 224, 224]; with an rng a square anywhere; what is missing (NaN) is 0."""
        low = float(np.nanmin(item)) if self.low is None else self.low
        high = float(np.nanmax(item)) if self.high is None else self.high
        return _fit(np.nan_to_num(np.clip((item - low) / max(high - low, 1e-6), 0, 1)), rng)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.tower(inputs)


def _fit(values: NDArray[np.floating], rng: np.random.Generator | None) -> Tensor:
    """Scale the shorter side of a map to SIZE and cut a square out of it, [1, SIZE, SIZE]."""
    grid = torch.from_numpy(values.astype(np.float32)).unsqueeze(0)
    return square(resize(grid, [SIZE], InterpolationMode.BICUBIC), rng)
