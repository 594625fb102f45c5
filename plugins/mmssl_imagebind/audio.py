"""The audio tower, with its mel spectrograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.compliance import kaldi
from torchaudio.transforms import Resample

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import FRAMES, MELS
from mmssl_imagebind.tower import Size
from mmssl_imagebind.views import begins
from multimodal_ssl import Inputs

RATE = 16000  # samples a second
RATE_STEP = 25  # Hz; the size of a resampling kernel grows with rate / gcd(rates)
CLIPS, SECONDS = 3, 2
WINDOW = 400  # samples, 25 ms
MEAN, STD = -4.268, 9.138  # of the training data


class ImageBindAudio(ImageBindEncoder):
    """Features of sounds: the mean over three clips of two seconds (in training of one, anywhere).

    Of several channels the first is heard, as the official code has it.
    """

    modality = "audio"

    def __init__(self, *, checkpoint: str | None, size: Size) -> None:
        super().__init__("audio", checkpoint, size)
        self._resamplers: dict[int, Resample] = {}

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a sound (`samples` [channels, samples], `rate`) into spectrograms [S, 1, 128, 204], normalised."""
        wave = self._resample(torch.from_numpy(item.samples), item.rate)
        if wave.shape[1] < WINDOW:
            wave = F.pad(wave, (0, WINDOW - wave.shape[1]))
        clips = []
        for start in begins(wave.shape[1] / RATE, SECONDS, CLIPS, rng):
            clip = wave[:, int(start * RATE) : int((start + SECONDS) * RATE)]
            clip -= clip.mean()  # in place, as the official code does: clips that overlap find it taken out
            clips.append(_spectrogram(clip))
        return torch.stack(clips).sub_(MEAN).div_(STD)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.mean_over_views(inputs)

    def _resample(self, wave: Tensor, rate: int) -> Tensor:
        """Return a copy at RATE; where the kernel would take gigabytes, a tenth of a percent off pitch at most."""
        rate = max(RATE_STEP, RATE_STEP * round(rate / RATE_STEP))
        if rate == RATE:
            return wave.clone()
        if rate not in self._resamplers:
            self._resamplers[rate] = Resample(rate, RATE, dtype=torch.float32)
        return self._resamplers[rate](wave)


def _spectrogram(wave: Tensor) -> Tensor:
    """Return the logarithm of the mel energies [1, MELS, FRAMES] of a wave [channels, samples]; 0 where there is none.

    A frame is 25 ms, one every 10 ms (AST, Gong et al. 2021).
    """
    frames = kaldi.fbank(
        wave, sample_frequency=RATE, num_mel_bins=MELS, window_type="hanning", htk_compat=True, dither=0.0
    )[:FRAMES]
    return F.pad(frames, (0, 0, 0, FRAMES - len(frames))).T.unsqueeze(0)
