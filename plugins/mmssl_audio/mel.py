"""From sounds to log-mel spectrograms of one size."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.transforms import MelSpectrogram, Resample

from mmssl_audio.modality import Audio
from multimodal_ssl import InputError

WINDOW, HOP = 0.025, 0.010  # seconds
FLOOR = 1e-5  # mel energy that counts as silence, some 80 dB below loud speech
LOWEST_RATE = 100  # Hz; a frame has a sample
RATE_STEP = 25  # Hz; the size of a resampling kernel grows with rate / gcd(rates)
SHIFT = 0.1  # of the sound may be pushed out of the window
GAIN = 6.0  # dB, up or down
SIGNAL_TO_NOISE = (15.0, 50.0)  # dB
BANDS, SPANS, HIDDEN = 2, 2, 1 / 8  # so many masks over mels and over frames, each hiding at most this share


class LogMel:
    """Makes log-mel spectrograms [mels, frames] of sounds, one frame every 10 ms, in the workers.

    There, one at a time, it takes half as long as in a batch, autocast does not touch it, and its masks come from the
    rng of the sample. It is no nn.Module: the filters stay where the workers are when the encoder moves to a GPU.

    Args:
        rate: samples per second that sounds are resampled to; half of it is the highest frequency heard.
        seconds: the time that a spectrogram covers.
        mels: number of mel bands.
    """

    def __init__(self, *, rate: int, seconds: float, mels: int) -> None:
        if rate < LOWEST_RATE or rate % RATE_STEP:
            raise InputError(
                f"rate must be a multiple of {RATE_STEP} Hz, and at least {LOWEST_RATE}, not {rate}: give e.g. 16000"
            )
        if seconds < WINDOW:
            raise InputError(f"seconds must be at least {WINDOW}, not {seconds}")
        if mels < 1:
            raise InputError(f"mels must be positive, not {mels}: give e.g. 64")
        self.rate, self.mels, self.length = rate, mels, round(seconds * rate)
        self.frames = 1 + self.length // round(HOP * rate)
        self._transform = MelSpectrogram(
            rate,
            n_fft=_fft_size(rate, mels),
            win_length=round(WINDOW * rate),
            hop_length=round(HOP * rate),
            n_mels=mels,
            pad_mode="constant",
        )
        self._resamplers: dict[int, Resample] = {}

    def prepare(self, item: Audio, rng: np.random.Generator | None, *, augment: bool) -> Tensor:
        """Return the spectrogram of a sound; with an rng at any place and, if augment, disturbed and hidden in part."""
        if rng is None or not augment:
            return self.spectrogram(self.place(item, rng))
        wave = disturb(self.place(item, rng, shift=SHIFT), rng)
        return hide(self.spectrogram(wave), rng)

    def learn(self, items: Iterable[Audio]) -> tuple[Tensor, Tensor] | None:
        """Return mean and standard deviation of each mel band [mels, 1], padding aside; None if there is no sound."""
        count = 0
        total, squares = (torch.zeros(self.mels, dtype=torch.float64) for _ in range(2))
        for item in items:
            frames = self.spectrogram(self.excerpt(item)).double()
            count += frames.shape[1]
            total += frames.sum(1)
            squares += frames.square().sum(1)
        if not count:
            return None
        mean = total / count
        variance = squares / count - mean.square()
        return mean.unsqueeze(1), variance.clamp_min(1e-2).sqrt().unsqueeze(1)

    def excerpt(self, item: Audio) -> NDArray[np.float32]:
        """Return the middle of a sound in mono [T] at this rate, as long as the window at most."""
        return self._excerpt(item, self._room(item) / 2)

    def place(self, item: Audio, rng: np.random.Generator | None = None, *, shift: float = 0.0) -> NDArray[np.float32]:
        """Return a sound in mono [T] in a window of silence.

        Without an rng what is longer than the window is cropped, and what is shorter is put, in the middle. With an
        rng that happens anywhere, and up to the share `shift` of the sound may be pushed out.
        """
        room = self._room(item)
        offset = room / 2
        if rng is not None:
            slack = shift * min(item.samples.shape[1], item.samples.shape[1] + room)
            offset = rng.uniform(min(0, room) - slack, max(0, room) + slack)
        window = np.zeros(self.length, np.float32)
        start = max(0, round(offset * self.rate / item.rate))
        wave = self._excerpt(item, offset)[: self.length - start]
        window[start : start + len(wave)] = wave
        return window

    def _room(self, item: Audio) -> float:
        """Return how much longer the window is than the sound, in samples of the sound."""
        return self.length * item.rate / self.rate - item.samples.shape[1]

    def _excerpt(self, item: Audio, offset: float) -> NDArray[np.float32]:
        """Return what a window sees of a sound that begins at an offset in it (in samples of the sound)."""
        start = max(0, round(-offset))
        mono = item.samples[:, start : start + math.ceil(self.length * item.rate / self.rate)].mean(0)
        # A tenth of a percent off pitch at most, and no kernel of gigabytes for a rate such as 44101 Hz.
        rate = max(RATE_STEP, RATE_STEP * round(item.rate / RATE_STEP))
        if rate != self.rate:
            if rate not in self._resamplers:
                self._resamplers[rate] = Resample(rate, self.rate)
            mono = self._resamplers[rate](torch.from_numpy(mono)).numpy()
        return mono[: self.length]

    def spectrogram(self, wave: NDArray[np.float32]) -> Tensor:
        """Return the natural logarithm of the mel energies [mels, frames] of a wave [T]."""
        return self._transform(torch.from_numpy(wave)).clamp_min(FLOOR).log()


def _fft_size(rate: int, mels: int) -> int:
    """Return the least power of two that holds the window and gives every mel filter a frequency."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)  # mel (O'Shaughnessy 1987)
    narrowest = 700 * (10 ** (2 * highest / (mels + 1) / 2595) - 1)  # Hz, the support of the lowest filter
    return 1 << math.ceil(math.log2(max(WINDOW * rate, rate / narrowest)))


def disturb(wave: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change the volume of a wave [T] and add white noise."""
    ratio = rng.uniform(*SIGNAL_TO_NOISE)
    noise = np.sqrt(np.mean(np.square(wave))) * 10 ** (-ratio / 20)
    gain = 10 ** (rng.uniform(-GAIN, GAIN) / 20)
    return np.float32(gain) * (wave + np.float32(noise) * rng.standard_normal(len(wave), np.float32))


def hide(spectrogram: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a spectrogram [mels, frames] with bands and spans of time at its mean (SpecAugment, Park et al. 2019)."""
    hidden, mean = spectrogram.clone(), spectrogram.mean()
    for axis, count in ((0, BANDS), (1, SPANS)):
        for _ in range(count):
            size = spectrogram.shape[axis]
            width = int(rng.integers(int(size * HIDDEN) + 1))
            hidden.narrow(axis, int(rng.integers(size - width + 1)), width).fill_(mean)
    return hidden
