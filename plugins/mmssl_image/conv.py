"""A small residual network for images, to train from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_image.pixels import Pixels
from multimodal_ssl import Encoder, InputError, Inputs

GROUP = 16  # channels that are normalised together; smaller groups are slow on CPUs


class ConvEncoder(Encoder):
    """Residual network (He et al. 2016) of three stages of width, 2 x width and 4 x width channels.

    The stem takes every stem-th pixel, the first stage begins at a quarter of the size.

    GroupNorm (Wu and He 2018) in place of BatchNorm: features do not depend on the rest of the batch, and one process
    and two agree.
    """

    modality = "image"

    def __init__(
        self, *, size: int, channels: int, stem: Literal[2, 4], width: int, depth: int, augment: bool, flip: bool
    ) -> None:
        super().__init__()
        self.width = 4 * width
        self.pixels = Pixels(size, channels, augment, flip)
        self.layers = trunk("small-conv", channels=channels, stem=stem, width=width, depth=depth)

    def by_depth(self) -> Sequence[nn.Module]:
        return [one for one in self.layers if isinstance(one, Block)]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        return self.pixels(item, rng)

    def forward(self, inputs: Inputs) -> Tensor:
        pixels = inputs.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        return self.layers(pixels).mean((2, 3))


def trunk(name: str, *, channels: int, stem: Literal[2, 4], width: int, depth: int) -> nn.Sequential:
    """Return the layers of an encoder of this name, [B, channels, H, W] -> [B, 4 * width, H / 16, W / 16]."""
    if width < 1 or width % GROUP:
        raise InputError(f"{name}: width {width} must be a positive multiple of {GROUP}")
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 2 * stem + 1, stem, stem), _norm(width), nn.ReLU()]
    before = width
    for stage, stride in ((width, 4 // stem), (2 * width, 2), (4 * width, 2)):
        layers += [Block(before if not i else stage, stage, stride if not i else 1) for i in range(depth)]
        before = stage
    # A fifth faster on CPUs.
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot it in the signature


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = _norm(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = _norm(after)
        nn.init.zeros_(self.second_norm.weight)  # begins as the identity (Goyal et al. 2017, section 5.1)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)
