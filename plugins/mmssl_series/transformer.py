"""A transformer over patches of time, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmssl_series.preparation import Preparation
from multimodal_ssl import InputError
from multimodal_ssl.layers import Transformer
from multimodal_ssl.types import Inputs, TokenEncoder


class SeriesTransformer(TokenEncoder):
    """A transformer over patches of time (PatchTST, Nie et al. 2023, with the channels of a patch in one token).

    Args:
        channels: of the series.
        patch: time steps of one token.
        width: F.
        depth: number of layers.
        heads: of attention.
        length: longer series are averaged and resampled to it, shorter ones padded; a multiple of patch.
        augment: if there is an rng, cut, warp, scale, shift and jitter the series and drop points.
    """

    modality = "series"

    def __init__(
        self, *, channels: int, patch: int, width: int, depth: int, heads: int, length: int, augment: bool
    ) -> None:
        super().__init__()
        if patch < 1 or length % patch:
            raise InputError(f"length must be a multiple of patch, but {length} is none of {patch}")
        if heads < 1 or width < 1 or width % heads:
            raise InputError(f"width must be a multiple of heads, but {width} is none of {heads}")
        self.preparation = Preparation(channels=channels, length=length, augment=augment)
        self.patch, self.width = patch, width
        self.projection = nn.Linear(2 * channels * patch, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length // patch, width))
        self.layers = Transformer(width, depth=depth, heads=heads)

    def prepare(self, item: NDArray[np.float32], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Return ``values`` [2 * channels, length] and ``mask`` [length], see Preparation."""
        return self.preparation(item, rng)

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        patches = inputs["values"].unfold(2, self.patch, self.patch)  # [B, 2C, T, patch]
        tokens = self.projection(patches.transpose(1, 2).flatten(2)) + self.positions
        return tokens, inputs["mask"].unfold(1, self.patch, self.patch).any(2)

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.layers(tokens, mask)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.layers.by_depth()

    def adapt(self, items: Iterable[NDArray[np.float32]]) -> None:
        """Learn mean and standard deviation of each channel."""
        self.preparation.learn(items)
