"""Transformer layers, and what makes one vector of many tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mean_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, F] of tokens [B, T, F] that are real [B, T] (bool)."""
    real = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * real).sum(1) / real.sum(1).clamp(min=1)


class TokenHead(nn.Module):
    """The mean of tokens, and beside it what one transformer layer over them adds.

    That begins at 0: where the space is as wide as the tokens, training begins in theirs, and not with a layer that
    knows nothing.

    Args:
        width: of the tokens.
        dim: of the space.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0)
        self.mean = nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
        self.transformer, self.added = Transformer(width, depth=1, heads=heads), nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.added.weight)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return [B, D] of tokens [B, T, F] and which of them are real [B, T] (bool)."""
        mean = mean_token(tokens, mask)
        added = self.added(mean_token(self.transformer(tokens, mask), mask))
        found: Tensor = self.mean(mean) + mean.norm(dim=-1, keepdim=True) * added
        return found


class Transformer(nn.Module):
    """Pre-norm transformer layers with a norm at the end, in which the real tokens see each other.

    Args:
        width: F.
        depth: number of layers.
        heads: of each layer; they divide the width.
    """

    def __init__(self, width: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return tokens [B, T, F] of tokens [B, T, F] and which of them are real [B, T] (bool)."""
        if bool(mask.all()):
            return self.layers(tokens)
        # Not as src_key_padding_mask: torch checks that one's shape with sympy, whose import takes two seconds.
        bias = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, float("-inf"))
        bias = bias.repeat_interleave(self.heads, 0).unsqueeze(1).expand(-1, mask.shape[1], -1)  # [B * heads, T, T]
        return self.layers(tokens, bias, is_causal=False)

    def by_depth(self) -> Sequence[nn.Module]:
        """Return the layers, the last one with the norm."""
        layers, norm = self.layers.children()
        *before, last = layers.children()
        return [*before, nn.ModuleList([last, norm])]
