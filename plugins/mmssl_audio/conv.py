"""A residual network on log-mel spectrograms, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_audio.mel import LogMel
from mmssl_audio.modality import Audio
from multimodal_ssl import Encoder, InputError
from multimodal_ssl.types import Inputs

GROUP = 16  # channels; GroupNorm with fewer to a group is some twenty times slower on CPUs (channels last, bf16)


class LogMelEncoder(Encoder):
    """A residual network on the log-mel spectrogram of a sound.

    Args:
        rate: samples per second that sounds are resampled to; half of it is the highest frequency heard.
        seconds: longer sounds are cropped and shorter ones padded with silence; at random places if there is an rng.
        mels: number of mel bands.
        width: channels of the first of three stages, each with twice the channels of the one before; F is 8 * width.
        augment: if there is an rng, shift the sound, change its volume, add noise, hide bands and spans of time.
    """

    modality = "audio"
    adapt_to = 2000  # decoding takes its time, and they are seconds of frames each
    mean: Tensor
    std: Tensor

    def __init__(self, *, rate: int, seconds: float, mels: int, width: int, augment: bool) -> None:
        super().__init__()
        if width <= 0 or width % GROUP:
            raise InputError(f"width must be a positive multiple of {GROUP}, not {width}: give e.g. 32")
        self.log_mel = LogMel(rate=rate, seconds=seconds, mels=mels)
        self.augment = augment
        self.width = 8 * width
        self.register_buffer("mean", torch.zeros(mels, 1))
        self.register_buffer("std", torch.ones(mels, 1))
        self.stem = nn.Conv2d(1, width, kernel_size=7, stride=4, padding=3)
        self.stages = nn.Sequential(
            Block(width, width, stride=1), Block(width, 2 * width, stride=2), Block(2 * width, 4 * width, stride=2)
        )
        self.norm = nn.GroupNorm(4 * width // GROUP, 4 * width)

    def prepare(self, item: Audio, rng: np.random.Generator | None = None) -> Tensor:
        """Return the log-mel spectrogram [mels, frames]."""
        return self.log_mel.prepare(item, rng, augment=self.augment)

    def forward(self, inputs: Inputs) -> Tensor:
        x = self.stem(((inputs - self.mean) / self.std).unsqueeze(1))
        x = x.contiguous(memory_format=torch.channels_last)  # faster on CPUs
        x = F.relu(self.norm(self.stages(x))).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)

    def by_depth(self) -> Sequence[nn.Module]:
        *before, last = self.stages
        return [*before, nn.ModuleList([last, self.norm])]

    def adapt(self, items: Iterable[Audio]) -> None:
        """Learn mean and standard deviation of each mel band, padding aside."""
        if found := self.log_mel.learn(items):
            self.mean.copy_(found[0])
            self.std.copy_(found[1])


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, pre-activation); GroupNorm keeps the samples apart."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(before // GROUP, before)
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(after // GROUP, after)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, kernel_size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(y)))
