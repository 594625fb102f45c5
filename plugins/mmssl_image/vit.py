"""A small vision transformer, to train from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmssl_image.pixels import Pixels
from multimodal_ssl import InputError, Inputs, TokenEncoder
from multimodal_ssl.layers import Transformer


class VisionTransformer(TokenEncoder):
    """Vision transformer (Dosovitskiy et al. 2021) with mean pooling; one token a patch."""

    modality = "image"

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        augment: bool,
        flip: bool,
    ) -> None:
        super().__init__()
        if size % patch or width % heads:
            raise InputError(
                f"small-vit: size {size} must be a multiple of patch {patch}, width {width} of heads {heads}"
            )
        self.width = width
        self.pixels = Pixels(size, channels, augment, flip)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)
        self.blocks = Transformer(width, depth=depth, heads=heads)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.blocks.by_depth()

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        return self.pixels(item, rng)

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        tokens = self.patches(inputs.float() / 127.5 - 1).flatten(2).transpose(1, 2) + self.positions
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.blocks(tokens, mask)
