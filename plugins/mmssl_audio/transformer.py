"""A transformer over patches of log-mel spectrograms, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_audio.mel import LogMel
from mmssl_audio.modality import Audio
from multimodal_ssl import InputError, Inputs, TokenEncoder
from multimodal_ssl.layers import Transformer


class SpectrogramTransformer(TokenEncoder):
    """Audio spectrogram transformer (AST, Gong et al. 2021) with mean pooling, its patches side by side.

    AST lets patches overlap; apart, as in SSAST (Gong et al. 2022), one that is hidden can't be read off another. That
    paper compares squares with patches of all bands and few frames, too.

    Args:
        rate: samples per second that sounds are resampled to.
        seconds: longer sounds are cropped and shorter ones padded with silence; at random places if there is an rng.
        mels: number of mel bands.
        bands: mel bands of a token; None: all of them.
        frames: frames of a token; the last ones are filled up with the mean.
        augment: if there is an rng, shift the sound, change its volume, add noise, hide bands and spans of time.
    """

    modality = "audio"
    adapt_to = 2000  # decoding takes its time, and they are seconds of frames each
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        rate: int,
        seconds: float,
        mels: int,
        bands: int | None,
        frames: int,
        width: int,
        depth: int,
        heads: int,
        augment: bool,
    ) -> None:
        super().__init__()
        bands = bands or mels
        if mels % bands or width % heads:
            name, told = "spectrogram-transformer", f"bands {bands}, width {width} of heads {heads}"
            raise InputError(f"{name}: mels {mels} must be a multiple of {told}")
        self.log_mel = LogMel(rate=rate, seconds=seconds, mels=mels)
        self.width, self.augment = width, augment
        self.missing = -self.log_mel.frames % frames
        self.register_buffer("mean", torch.zeros(mels, 1))
        self.register_buffer("std", torch.ones(mels, 1))
        self.patches = nn.Conv2d(1, width, (bands, frames), (bands, frames))
        count = mels // bands * ((self.log_mel.frames + self.missing) // frames)
        self.positions = nn.Parameter(torch.randn(count, width) * 0.02)
        self.blocks = Transformer(width, depth=depth, heads=heads)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.blocks.by_depth()

    def adapt(self, items: Iterable[Audio]) -> None:
        """Learn mean and standard deviation of each mel band, padding aside."""
        if found := self.log_mel.learn(items):
            self.mean.copy_(found[0])
            self.std.copy_(found[1])

    def prepare(self, item: Audio, rng: np.random.Generator | None = None) -> Tensor:
        """Return the log-mel spectrogram [mels, frames]."""
        return self.log_mel.prepare(item, rng, augment=self.augment)

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        x = F.pad((inputs - self.mean) / self.std, (0, self.missing)).unsqueeze(1)
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.blocks(tokens, mask)
