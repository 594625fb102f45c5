"""From a Pillow image to a tensor of pixels, with augmentation; what all encoders from scratch share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Pixels(NamedTuple):
    """How to make pixels [channels, size, size] (uint8) of an image.

    The image is fitted into the square and its border colour fills the rest, so that nothing is cut off. Augmentation
    moves, turns, scales, shears and (if flip) mirrors it in one affine map, and changes contrast and brightness.
    """

    size: int
    channels: int
    augment: bool
    flip: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator | None) -> Tensor:
        image = image.convert("L" if self.channels == 1 else "RGB")
        augment = rng is not None and self.augment
        if image.size == (self.size, self.size) and not augment:
            return self._tensor(np.asarray(image))
        # One map from the square to the image: Pillow wants it this way round, x_in = a x_out + b y_out + c.
        scale = max(image.size) / self.size
        if scale > 2:  # bilinear sampling would alias
            image = image.reduce(int(scale))
            scale = max(image.size) / self.size
        matrix = scale * np.eye(2)
        shift = np.zeros(2)
        if augment:
            assert rng is not None
            matrix, shift = matrix @ self._random_matrix(rng), rng.uniform(-0.08, 0.08, 2) * self.size * scale
        centre = np.array(image.size) / 2 + shift - matrix @ np.full(2, self.size / 2)
        coefficients = (matrix[0, 0], matrix[0, 1], centre[0], matrix[1, 0], matrix[1, 1], centre[1])
        square = image.transform(
            (self.size, self.size),
            Image.Transform.AFFINE,
            coefficients,
            resample=Image.Resampling.BILINEAR,
            fillcolor=_border(image),
        )
        pixels = np.asarray(square)
        if augment:
            assert rng is not None
            gain, offset = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
            table = ((np.arange(256) - 128.0) * gain + 128 + offset).clip(0, 255).astype(np.uint8)
            pixels = table[pixels]
        return self._tensor(pixels)

    def _random_matrix(self, rng: np.random.Generator) -> np.ndarray:
        angle, shear, size, aspect = rng.uniform(-1, 1, 4) * (0.15, 0.15, 0.2, 0.1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.array([[np.exp(size + aspect), shear], [0, np.exp(size - aspect)]])
        mirror = np.diag([-1.0 if self.flip and rng.random() < 0.5 else 1.0, 1.0])
        return turn @ stretch @ mirror

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.array(pixels, order="C"))


def _border(image: Image.Image) -> int | tuple[int, ...]:
    """Return the mean colour of the four corners."""
    right, bottom = image.width - 1, image.height - 1
    corners = np.array([image.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))])
    mean = corners.mean(0).round().astype(int)
    return int(mean) if mean.ndim == 0 else tuple(int(one) for one in mean)
