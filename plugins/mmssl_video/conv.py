"""A small residual network for videos, to train from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_video.decoding import Pictures
from multimodal_ssl import Encoder, InputError, Inputs

GROUP = 16  # channels that are normalised together; smaller groups are slow on CPUs


class VideoEncoder(Encoder):
    """Residual network of convolutions in space and then in time (R(2+1)D, Tran et al. 2018).

    Each picture stands beside its change from the one before, so that the first layer sees motion. Between layers the
    tensor lies as [B, T, H, W, C]: convolutions in space and in time are both views of it, without a copy.

    Args:
        frames: so many pictures are taken from a video, evenly.
        size: pixels of the square that each is fitted into.
        width: channels of the first of three stages, each with twice the channels of the one before; F is 8 * width.
        augment: if there is an rng, shift, scale and (if flip) mirror all pictures alike, change contrast, brightness.
    """

    modality = "video"

    def __init__(
        self, *, frames: int, size: int, channels: int, width: int, depth: int, augment: bool, flip: bool
    ) -> None:
        super().__init__()
        if width <= 0 or width % GROUP:
            raise InputError(f"small-video-conv: width {width} must be a positive multiple of {GROUP}, e.g. 32")
        self.frames, self.size, self.channels, self.augment, self.flip = frames, size, channels, augment, flip
        self.width = 8 * width
        self.stem = nn.Conv2d(2 * channels, width, 5, 2, 2)
        blocks: list[nn.Module] = []
        before = width
        for stage in (width, 2 * width, 4 * width):
            blocks += [Block(before if not i else stage, stage, 1 if i else 2) for i in range(depth)]
            before = stage
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(before)

    def by_depth(self) -> Sequence[nn.Module]:
        *before, last = self.blocks
        return [*before, nn.ModuleList([last, self.norm])]

    def prepare(self, item: Pictures, rng: np.random.Generator | None = None) -> Inputs:
        """Return pictures [frames, size, size, channels] (uint8)."""
        places = ((np.arange(self.frames) + 0.5) * len(item) / self.frames).astype(int)
        height, width = item.shape[1:3]
        shift, zoom, gain, light, mirror = np.zeros(2), 1.0, 1.0, 0.0, False
        if rng is not None and self.augment:
            shift, zoom = rng.uniform(-0.08, 0.08, 2), float(np.exp(rng.uniform(-0.15, 0.15)))
            gain, light = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
            mirror = self.flip and rng.random() < 0.5
        scale = zoom * self.size / max(height, width)
        small = max(1, round(width * scale)), max(1, round(height * scale))
        corner = [round((self.size - one) / 2 + self.size * by) for one, by in zip(small, shift, strict=True)]
        border = tuple(int(one) for one in item[places[0]].mean((0, 1)))
        canvas = np.empty((self.frames, self.size, self.size, 3), np.uint8)
        for at, place in enumerate(places):
            square = Image.new("RGB", (self.size, self.size), border)
            square.paste(Image.fromarray(item[place]).resize(small, Image.Resampling.BILINEAR), tuple(corner))
            canvas[at] = np.asarray(square)
        pixels = canvas if self.channels == 3 else canvas.mean(-1, keepdims=True)
        if rng is not None and self.augment:
            pixels = ((pixels - 128.0) * gain + 128 + light).clip(0, 255)
        pixels = pixels[:, :, ::-1] if mirror else pixels
        return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.uint8))

    def forward(self, inputs: Inputs) -> Tensor:
        pixels = inputs.float().div_(127.5).sub_(1)  # [B, T, H, W, channels]
        change = torch.zeros_like(pixels)
        change[:, 1:] = 4 * (pixels[:, 1:] - pixels[:, :-1])  # most changes are small beside the pictures themselves
        x = self.blocks(in_space(self.stem, torch.cat([pixels, change], -1)))
        x = F.relu(over_all(self.norm, x)).float().mean((2, 3))  # [B, T, C]
        return torch.cat([x.mean(1), x.amax(1)], dim=1)


class Block(nn.Module):
    """A convolution in space and one in time beside a shortcut (pre-activation; GroupNorm keeps the samples apart)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(before), _norm(after)
        self.space = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.time = nn.Conv2d(after, after, (3, 1), 1, (1, 0), bias=False)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = in_space(self.space, F.relu(over_all(self.norm1, x)))
        return in_space(self.shortcut, x) + in_time(self.time, F.relu(over_all(self.norm2, y)))


def in_space(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer of [N, C, H, W] to each picture of x [B, T, H, W, C]."""
    y = layer(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return y.unflatten(0, x.shape[:2])


def in_time(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer of [N, C, T, places] to x [B, T, H, W, C]."""
    y = layer(x.flatten(2, 3).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return y.unflatten(2, x.shape[2:4])


def over_all(layer: nn.Module, x: Tensor) -> Tensor:
    """Normalise x [B, T, H, W, C] over time and space together: what differs between pictures is left."""
    return in_time(layer, x)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)
