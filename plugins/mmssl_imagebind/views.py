"""Where an item is looked at: clips in time, squares in space."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop

from mmssl_imagebind.stems import SIZE

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's pictures

Time = Fraction | float


def begins(duration: float, seconds: int, clips: int, rng: np.random.Generator | None) -> list[Time]:
    """Return when clips begin: the first with the item, the last so that it ends with it; given an rng, one anywhere.

    They are fractions, since what is rounded to a sample or picture must not be off by one.
    """
    latest = Fraction(max(duration - seconds, 0))
    if rng is not None:
        return [rng.uniform(0, float(latest))]
    return [latest / max(clips - 1, 1) * place for place in range(clips)]


def square(pixels: Tensor, rng: np.random.Generator | None) -> Tensor:
    """Cut a square of SIZE out of pixels [C, H, W]: the middle, or given an rng one anywhere."""
    if rng is None:
        return center_crop(pixels, [SIZE, SIZE])
    top, left = (int(rng.integers(side - SIZE + 1)) for side in pixels.shape[1:])
    return pixels[:, top : top + SIZE, left : left + SIZE]


def normalise(pixels: Tensor, *, dim: int) -> Tensor:
    """Take CLIP's mean and standard deviation out of pixels in [0, 1], whose colours are along dim, in place."""
    shape = [3 if axis == dim else 1 for axis in range(pixels.ndim)]
    mean, std = (torch.tensor(one, dtype=pixels.dtype, device=pixels.device).view(shape) for one in (MEAN, STD))
    return pixels.sub_(mean).div_(std)
