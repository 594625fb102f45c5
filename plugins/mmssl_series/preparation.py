"""What both encoders of series do before the network: sample, augment, normalise, fill gaps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multimodal_ssl import InputError

CROP = 0.15  # at most this share of the time is cut off
WARP = 0.3  # at most this much faster or slower
SCALE, OFFSET, JITTER = 0.1, 0.05, 0.03  # standard deviations, of a whole channel and of each point
DROP = 0.1  # at most this share of the points goes missing


class Preparation(nn.Module):
    """Turns a series [C, T] into values [2C, L] and a mask [L].

    The first C channels are the values with the mean and standard deviation that `learn` found taken out, 0 where
    missing or past the end; the other C say where a value is present. The mask is True up to the end of the series.

    Of a series of at least 2L steps the means over blocks of T // L steps are taken first, so that what is short leaves
    a trace and what is fast does not pass for something slow.

    Mean and deviation are the module's extra state, not buffers: workers read them, and can't read those of a GPU.

    Args:
        channels: C.
        length: L; longer series are averaged and resampled to it, shorter ones padded.
        augment: if there is an rng, cut, warp, scale, shift and jitter the series and drop points.
    """

    def __init__(self, *, channels: int, length: int, augment: bool) -> None:
        super().__init__()
        if channels < 1 or length < 1:
            raise InputError(f"channels and length must be positive, not {channels} and {length}")
        self.channels, self.length, self.augment = channels, length, augment
        self.mean, self.std = np.zeros((channels, 1), np.float32), np.ones((channels, 1), np.float32)

    def forward(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Return values (float32) and mask (bool); augment if given an rng."""
        item = _averaged(self._checked(item), self.length)
        channels, steps = item.shape
        count = min(steps, self.length)
        if rng is not None and self.augment:
            series = _disturb((_sample(item, _warped(steps, count, rng)) - self.mean) / self.std, rng)
        else:
            series = item if count == steps else _sample(item, np.linspace(0, steps - 1, count))
            series = (series - self.mean) / self.std
        present = ~np.isnan(series)
        values = np.zeros((2 * channels, self.length), np.float32)
        np.copyto(values[:channels, :count], series, where=present)
        values[channels:, :count] = present
        mask = np.zeros(self.length, np.bool_)
        mask[:count] = True
        return {"values": torch.from_numpy(values), "mask": torch.from_numpy(mask)}

    def learn(self, items: Iterable[NDArray[np.float32]]) -> None:
        """Set mean and standard deviation of each channel from what is present; series that do not fit are skipped."""
        count, total, squares = (np.zeros(self.channels) for _ in range(3))
        pivot = np.zeros(self.channels)  # near the mean, else squares of large numbers swallow a small variance
        for item in items:
            try:
                series = _averaged(self._checked(item), self.length).astype(np.float64)
            except ValueError:  # training counts it as unreadable
                continue
            present = ~np.isnan(series)
            number = present.sum(1)
            pivot = np.where(count > 0, pivot, np.nansum(series, 1) / np.maximum(number, 1))
            away = np.where(present, series - pivot[:, np.newaxis], 0)
            count, total, squares = count + number, total + away.sum(1), squares + np.square(away).sum(1)
        shift = total / np.maximum(count, 1)
        mean = pivot + shift
        variance = squares / np.maximum(count, 1) - np.square(shift)
        # A channel that never changes keeps its scale; rounding leaves a little variance in it.
        std = np.sqrt(np.where(variance > 1e-13 * np.square(mean), variance, 1))
        self.mean, self.std = mean[:, np.newaxis].astype(np.float32), std[:, np.newaxis].astype(np.float32)

    def get_extra_state(self) -> Tensor:
        return torch.from_numpy(np.stack([self.mean, self.std]))

    def set_extra_state(self, state: Tensor) -> None:
        self.mean, self.std = state.cpu().numpy().copy()

    def _checked(self, item: NDArray[np.float32]) -> NDArray[np.float32]:
        if item.ndim != 2 or item.shape[0] != self.channels:
            hint = ": transpose it" if item.ndim == 2 and item.shape[1] == self.channels else ""
            raise ValueError(f"this encoder takes series of {self.channels} channels, not of shape {item.shape}{hint}")
        return item


def _averaged(item: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Return the means of what is present in equal blocks of a series [C, T], if T is at least twice the length."""
    steps = item.shape[1]
    if steps < 2 * length:
        return item
    blocks = steps // (steps // length)
    starts = np.arange(blocks) * steps // blocks
    present = ~np.isnan(item)
    count = np.add.reduceat(present, starts, axis=1, dtype=np.intp)
    total = np.add.reduceat(np.where(present, item, 0), starts, axis=1, dtype=np.float64)
    return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _sample(item: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the series at positions in steps, linear between neighbours; missing where the nearer one is."""
    left = positions.astype(np.intp)
    right = np.minimum(left + 1, item.shape[1] - 1)
    share = (positions - left).astype(np.float32)
    before, after = item[:, left], item[:, right]
    between = before + (after - before) * share
    return np.where(np.isnan(between), np.where(share < 0.5, before, after), between)


def _warped(steps: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return positions that run through most of the series, now faster, now slower."""
    cut, place, amplitude, phase = rng.random(4)
    cut *= CROP
    time = np.linspace(0, 1, count)
    wave = np.sin(2 * np.pi * (time + phase)) - np.sin(2 * np.pi * phase)
    time += (2 * amplitude - 1) * WARP / (2 * np.pi) * wave  # from 0 to 1, and rising since WARP < 1
    return (steps - 1) * (cut * place + (1 - cut) * time)


def _disturb(series: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Scale and shift the channels of a normalised series, move its points, and drop some."""
    channels = len(series)
    scale, offset = rng.standard_normal((2, channels, 1), np.float32)
    jitter = rng.standard_normal(series.shape, np.float32)
    disturbed = series * (1 + SCALE * scale) + (OFFSET * offset + JITTER * jitter)
    disturbed[rng.random(series.shape, np.float32) < DROP * rng.random()] = np.nan
    return disturbed
