"""Mono waves at one rate, cropped; and batches of waves of several lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.transforms import Resample

from multimodal_ssl import InputError

RATE_STEP = 25  # Hz; the size of a resampling kernel grows with rate / gcd(rates)


class Waves:
    """Makes mono waves [T] (float32) of sounds, which have `samples` [channels, T] and a `rate`.

    Args:
        rate: samples per second that sounds are resampled to.
        seconds: longer sounds are cropped to so much; None leaves them as they are.
        least: a sound of fewer samples is unreadable.
        window: with an rng, longer sounds are cropped to so many seconds at least.
    """

    def __init__(self, *, rate: int, seconds: float | None, least: int, window: float | None = None) -> None:
        if seconds is not None and seconds * rate < least:
            raise InputError(f"seconds={seconds}: the model takes {least / rate:.3f} at least, give e.g. 10")
        self.rate, self.seconds, self.least, self.window = rate, seconds, least, window
        self._resamplers: dict[int, Resample] = {}

    def __call__(self, item: Any, rng: np.random.Generator | None) -> NDArray[np.float32]:
        """Return the middle of a sound or, given an rng, any part of it, as long as the seconds allow."""
        samples: NDArray[np.float32] = item.samples
        limits = [one for one in (self.seconds, None if rng is None else self.window) if one is not None]
        length = math.ceil(min(limits) * item.rate) if limits else samples.shape[1]
        room = samples.shape[1] - length
        if room > 0:
            start = room // 2 if rng is None else int(rng.integers(room + 1))
            samples = samples[:, start : start + length]
        mono: NDArray[np.float32] = samples.mean(0)
        # A tenth of a percent off pitch at most, and no kernel of gigabytes for a rate such as 44101 Hz.
        rate = max(RATE_STEP, RATE_STEP * round(item.rate / RATE_STEP))
        if self.rate not in (rate, item.rate):
            if rate not in self._resamplers:
                self._resamplers[rate] = Resample(rate, self.rate)
            mono = self._resamplers[rate](torch.from_numpy(mono)).numpy()
        if limits:
            mono = mono[: round(min(limits) * self.rate)]
        if len(mono) < self.least:
            raise ValueError(
                f"{len(mono) / self.rate:.3f} s of sound: the model takes {self.least / self.rate:.3f} at least"
            )
        return mono


def least_samples(convolutions: Iterable[tuple[int, int]]) -> int:
    """Return of how many samples convolutions, each (kernel size, stride), make one frame."""
    length = 1
    for kernel, stride in reversed(list(convolutions)):
        length = (length - 1) * stride + kernel
    return length


def by_length(lengths: Tensor, run: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Return [B, F] of a batch whose items have these lengths [B]: `run(rows, length)` gives those of one length.

    Where it gives tokens [rows, T, F], of each length another T, they come padded with zeros to the longest.
    Some networks (those with GroupNorm over time) hear the padding: alone and together a wave would differ.
    """
    parts: list[Tensor] = []
    places = []
    for length in torch.unique(lengths).tolist():
        rows = (lengths == length).nonzero().squeeze(1)
        parts += run(rows, length)
        places.append(rows)
    return pad_sequence([parts[place] for place in torch.cat(places).argsort().tolist()], batch_first=True)
