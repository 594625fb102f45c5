"""The fusion of CLAP's feature extractor without its dice: windows in the middle, or drawn from an rng."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MELS = 64  # of the shrunken view, whatever the extractor's own number


def fuse(extractor: Any, wave: NDArray[np.float32], rng: np.random.Generator | None) -> dict[str, Tensor]:
    """Return the whole of a long wave [T], shrunk, and three windows of it (Wu et al. 2023, section 3.3).

    The windows begin in the middle of the first, second and last third or, given an rng, anywhere in them. Nothing is
    returned for a wave of one window or less: there the extractor itself draws nothing.
    """
    if len(wave) <= extractor.nb_max_samples:
        return {}
    frames = extractor.nb_max_samples // extractor.hop_length + 1
    mel = extractor._np_extract_fbank_features(wave, extractor.mel_filters)
    if len(mel) == frames:
        return {}
    thirds = [one if len(one) else np.zeros(1, int) for one in np.array_split(np.arange(len(mel) - frames + 1), 3)]
    starts = [int(one[len(one) // 2] if rng is None else rng.choice(one)) for one in thirds]
    whole = F.interpolate(torch.tensor(mel[None, None]), size=[frames, MELS], mode="bilinear", align_corners=False)
    fused = np.stack([whole[0, 0].numpy(), *(mel[start : start + frames] for start in starts)])
    return {"input_features": torch.tensor(fused), "is_longer": torch.tensor([True])}
