"""A small residual network for maps of depth and of heat, to train from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mmssl_image.conv import Block, trunk
from mmssl_image.maps import Map
from multimodal_ssl import Encoder, Inputs

CROP = 0.3  # at most this share of each side is cut off


class MapEncoder(Encoder):
    """The network of small-conv on a map beside a channel that says where it is known.

    Of depth it sees the logarithm (Eigen et al. 2014): what is relative to the distance, as the error of cameras is. So
    the unit of depth does not matter, nor that of heat, since `adapt` takes out the mean and the standard deviation.

    Args:
        size: pixels of the square that a map is fitted into; the rest of it is unknown.
        augment: if there is an rng, crop and (if flip) mirror.
    """

    adapt_to = 2000  # pictures of numbers each
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        modality: Literal["depth", "thermal"],
        size: int,
        stem: Literal[2, 4],
        width: int,
        depth: int,
        augment: bool,
        flip: bool,
    ) -> None:
        super().__init__()
        self.modality, self.size, self.augment, self.flip = modality, size, augment, flip
        self.width = 4 * width
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.layers = trunk(f"{modality}-conv", channels=2, stem=stem, width=width, depth=depth)

    def by_depth(self) -> Sequence[nn.Module]:
        return [one for one in self.layers if isinstance(one, Block)]

    def adapt(self, items: Iterable[Map]) -> None:
        """Learn mean and standard deviation of what is known."""
        count, total, squares = 0, 0.0, 0.0
        for item in items:
            values = self._scaled(item)[~np.isnan(item)].astype(np.float64)
            count, total, squares = count + len(values), total + values.sum(), squares + np.square(values).sum()
        if count:
            mean = total / count
            variance = squares / count - mean**2
            self.mean.fill_(mean)
            self.std.fill_(np.sqrt(variance) if variance > 1e-12 * mean**2 else 1)

    def prepare(self, item: Map, rng: np.random.Generator | None = None) -> Tensor:
        """Return the map, 0 where it is unknown, and whether it is known [2, size, size] (float32)."""
        height, width = item.shape
        begin, side = np.zeros(2), 1.0
        if rng is not None and self.augment:
            side -= rng.uniform(0, CROP)
            begin = rng.uniform(0, 1 - side, 2)
        box = np.concatenate([begin, begin + side]) * [width, height, width, height]
        scale = self.size / max(height, width)
        small = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (self.size - small[0]) // 2, (self.size - small[1]) // 2
        share = _resize(~np.isnan(item), small, box)
        values = _resize(np.nan_to_num(self._scaled(item)), small, box) / np.maximum(share, 0.5)
        square = np.zeros((2, self.size, self.size), np.float32)
        square[:, top : top + small[1], left : left + small[0]] = values * (share >= 0.5), share >= 0.5
        if rng is not None and self.augment and self.flip and rng.random() < 0.5:
            square = square[..., ::-1].copy()
        return torch.from_numpy(square)

    def forward(self, inputs: Inputs) -> Tensor:
        values, known = inputs.unbind(1)
        seen = torch.stack([(values - self.mean) / self.std * known, known], dim=1)
        return self.layers(seen.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def _scaled(self, item: Map) -> Map:
        return np.log(item) if self.modality == "depth" else item


def _resize(array: NDArray[np.generic], size: tuple[int, int], box: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what lies in a box (left, top, right, bottom) at another size (width, height)."""
    left, top, right, bottom = box.tolist()
    picture = Image.fromarray(array.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))
