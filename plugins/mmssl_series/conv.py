"""A residual network over time, to train from scratch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_series.preparation import Preparation
from multimodal_ssl import Encoder, InputError
from multimodal_ssl.types import Inputs

GROUP = 16  # channels that are normalised together


class SeriesConv(Encoder):
    """A residual network over time; its features do not depend on the padding.

    Inside, series are pictures of height 1, [B, F, 1, T] with channels last: on CPUs twice as fast as Conv1d.

    Args:
        channels: of the series.
        width: channels of the first stage; the later ones have twice as many, and F is twice those of the last.
        depth: number of stages; the stem and each but the first halve the time steps.
        length: longer series are averaged and resampled to it, shorter ones padded.
        augment: if there is an rng, cut, warp, scale, shift and jitter the series and drop points.
    """

    modality = "series"

    def __init__(self, *, channels: int, width: int, depth: int, length: int, augment: bool) -> None:
        super().__init__()
        if width < 1 or width % GROUP:
            raise InputError(f"width must be a positive multiple of {GROUP}, not {width}: give e.g. 64")
        if depth < 1:
            raise InputError(f"depth must be positive, not {depth}: give e.g. 3")
        self.preparation = Preparation(channels=channels, length=length, augment=augment)
        self.stem = _over_time(2 * channels, width, size=7, stride=2)
        widths = [width, *[2 * width] * (depth - 1)]
        self.stages = nn.ModuleList(
            [Block(width, width, stride=1), *(Block(*pair, stride=2) for pair in itertools.pairwise(widths))]
        )
        self.norm = MaskedGroupNorm(widths[-1])
        self.width = 2 * widths[-1]

    def prepare(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Return ``values`` [2 * channels, length] and ``mask`` [length], see Preparation."""
        return self.preparation(item, rng)

    def forward(self, inputs: Inputs) -> Tensor:
        values = inputs["values"].unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x, mask = self.stem(values), inputs["mask"][:, None, None, ::2]
        x, mask = x * mask, mask.to(x.dtype)
        for stage in self.stages:
            x, mask = stage(x, mask)
        x = F.relu(self.norm(x, mask)).float() * mask
        # No feature is below 0 after ReLU, so a maximum over padding too is one over the series.
        return torch.cat([x.sum((2, 3)) / mask.float().sum((2, 3)), x.amax((2, 3))], dim=1)

    def by_depth(self) -> Sequence[nn.Module]:
        *before, last = self.stages
        return [*before, nn.ModuleList([last, self.norm])]

    def adapt(self, items: Iterable[NDArray[np.float32]]) -> None:
        """Learn mean and standard deviation of each channel."""
        self.preparation.learn(items)


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, pre-activation) that keep the padding at 0."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm1, self.norm2 = MaskedGroupNorm(before), MaskedGroupNorm(after)
        self.conv1 = _over_time(before, after, size=3, stride=stride)
        self.conv2 = _over_time(after, after, size=3, stride=1)
        self.shortcut = nn.Identity() if stride == 1 else _over_time(before, after, size=1, stride=stride)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        later = mask[..., :: self.stride]
        y = self.conv1(F.relu(self.norm1(x, mask)) * mask) * later
        y = self.conv2(F.relu(self.norm2(y, later)) * later)
        return (self.shortcut(x) + y) * later, later


class MaskedGroupNorm(nn.Module):
    """GroupNorm (Wu and He 2018) over the real time steps of a sample alone; it wants 0 in the padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise x [B, F, 1, T] where mask [B, 1, 1, T]."""
        batch, width = x.shape[:2]
        steps = x.permute(0, 2, 3, 1).reshape(batch, -1, width)  # [B, T, F], a view
        count = mask.float().sum((2, 3)) * GROUP  # [B, 1]
        exact = steps.float()
        sums = torch.stack([exact.sum(1), exact.square().sum(1)])  # [2, B, F]
        mean, square = sums.view(2, batch, -1, GROUP).sum(3) / count  # [B, groups]
        scale = (square - mean.square()).clamp_min(0).add(1e-5).rsqrt()
        slope = scale.repeat_interleave(GROUP, 1) * self.weight
        shift = self.bias - mean.repeat_interleave(GROUP, 1) * slope
        y = torch.addcmul(shift[:, None].to(x.dtype), steps, slope[:, None].to(x.dtype))
        return y.view(batch, 1, -1, width).permute(0, 3, 1, 2)


def _over_time(before: int, after: int, *, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, (1, size), stride=(1, stride), padding=(0, size // 2))
