"""The tower of inertial measurements. Official code and paper leave their preparation open, but for the shape."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import CHANNELS, STEPS
from mmssl_imagebind.tower import Size
from multimodal_ssl import InputError, Inputs

RATE = 400  # steps a second: 2000 of them are five seconds of Ego4D


class ImageBindImu(ImageBindEncoder):
    """Features of inertial measurements [6, T]: acceleration along x, y, z, then rotation about them, as they are.

    The tower sees the middle 2000 steps (with an rng any 2000); a shorter series is followed by zeros. What is missing
    (NaN) lies on the line between its neighbours.

    Args:
        rate: steps a second of the items, which are resampled to 400; None leaves them.
    """

    modality = "series"

    def __init__(self, *, checkpoint: str | None, size: Size, rate: float | None) -> None:
        super().__init__("imu", checkpoint, size)
        if rate is not None and rate <= 0:
            raise InputError(f"imagebind-imu: rate must be positive, not {rate}: steps a second, e.g. 200")
        self.step = 1.0 if rate is None else rate / RATE

    def prepare(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> Inputs:
        """Turn a series into measurements [6, 2000]."""
        if len(item) != CHANNELS:
            raise ValueError(f"imagebind-imu takes series of {CHANNELS} channels, not of shape {item.shape}")
        times = np.arange(0, item.shape[1], self.step)
        room = max(0, len(times) - STEPS)
        start = room // 2 if rng is None else int(rng.integers(room + 1))
        times = times[start : start + STEPS]
        values = np.zeros((CHANNELS, STEPS), np.float32)
        for channel, line in enumerate(item):
            present = np.flatnonzero(~np.isnan(line))
            if len(present):
                values[channel, : len(times)] = np.interp(times, present, line[present])
        return torch.from_numpy(values)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.tower(inputs)
