"""The vision tower for videos."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import SIZE
from mmssl_imagebind.tower import Size
from mmssl_imagebind.views import begins, normalise
from multimodal_ssl import InputError, Inputs

CLIPS, SECONDS = 5, 2


class ImageBindVideo(ImageBindEncoder):
    """Features of videos: the mean over five clips of two seconds, of each the first and last picture, in three crops.

    In training it is one clip and one crop anywhere.

    Args:
        rate: pictures a second of the items; None takes each for one of ten seconds, whose clips lie side by side.
    """

    modality = "video"

    def __init__(self, *, checkpoint: str | None, size: Size, rate: float | None) -> None:
        super().__init__("vision", checkpoint, size)
        if rate is not None and rate <= 0:
            raise InputError(f"imagebind-video: rate must be positive, not {rate}: pictures a second, e.g. 25")
        self.rate = rate

    def prepare(self, item: NDArray[np.uint8], rng: np.random.Generator | None = None) -> Inputs:
        """Turn pictures [T, H, W, 3] into views [S, 3, 2, 224, 224], normalised."""
        rate = self.rate or len(item) / (CLIPS * SECONDS)
        starts = begins(len(item) / rate, SECONDS, CLIPS, rng)
        pairs = [item[_first_and_last(rate * start, rate * (start + SECONDS), len(item))] for start in starts]
        return torch.stack(list(itertools.chain.from_iterable(_crops(_scale(pair), rng) for pair in pairs)))

    def forward(self, inputs: Inputs) -> Tensor:
        return self.mean_over_views(inputs)


def _first_and_last(start: float, end: float, length: int) -> list[int]:
    """Return the places of the pictures between two times, which are counted in pictures."""
    first = min(math.ceil(start), length - 1)
    return [first, max(first, min(math.ceil(end), length) - 1)]


def _scale(pair: NDArray[np.uint8]) -> Tensor:
    """Return pictures [2, H, W, 3] as [3, 2, h, w], normalised, the shorter side of SIZE."""
    height, width = pair.shape[1:3]
    h, w = (math.floor(height / width * SIZE), SIZE) if width < height else (SIZE, math.floor(width / height * SIZE))
    pixels = torch.from_numpy(np.ascontiguousarray(pair)).permute(3, 0, 1, 2).float() / 255
    return normalise(F.interpolate(pixels, size=(h, w), mode="bilinear", align_corners=False), dim=0)


def _crops(video: Tensor, rng: np.random.Generator | None) -> list[Tensor]:
    """Cut squares [3, 2, SIZE, SIZE] at the beginning, the middle and the end of the longer side; or one anywhere."""
    axis = 2 if video.shape[2] > video.shape[3] else 3
    room = video.shape[axis] - SIZE
    places = [0, math.ceil(room / 2), room] if rng is None else [int(rng.integers(room + 1))]
    return [video.narrow(axis, place, SIZE) for place in places]
