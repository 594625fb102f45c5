"""Random walks: series to test with, whole and with gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float32]


def walk(channels: int, steps: int, seed: int = 0) -> Series:
    """Return a walk [channels, steps]."""
    return np.random.default_rng(seed).standard_normal((channels, steps), np.float32).cumsum(1)


def gappy(channels: int, steps: int, seed: int = 0) -> Series:
    """Return a walk [channels, steps] of which 30 % is missing."""
    series = walk(channels, steps, seed)
    series[np.random.default_rng(seed).random(series.shape) < 0.3] = np.nan
    return series
