"""Random crops of images, as torchvision's RandomResizedCrop draws them but from a generator of numpy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)  # open_clip's: a caption should still fit the crop


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_box(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
) -> Box:
    """Draw a part of an image whose size is (width, height): its share of the area and its ratio of width to height.

    With 90 to 100 % of the area and ratios to 4:3, pictures of 3:2 or wider give one fixed crop.
    """
    width, height = size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area, shape = rng.uniform(*scale) * width * height, math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return Box(top, left, h, w)
    # too narrow for such a crop: the middle, as wide or as high as the ratios allow
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    return Box((height - h) // 2, (width - w) // 2, h, w)
