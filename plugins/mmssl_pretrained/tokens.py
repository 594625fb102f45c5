"""What the last layer of a tower gives, as tokens for a head that pools them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tokens(hidden: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return tokens [B, T, F] and which of them are real [B, T] (bool): all, where no mask [B, T] is given.

    Of a map [B, F, H, W] each place is a token.
    """
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    if mask is None:
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return tokens, mask.bool()


def width_of_tokens(hidden: Any) -> int:
    """Return the width F of a hidden state, tokens [B, T, F] or a map [B, F, H, W]; 0 if it is something else."""
    if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4):
        return 0
    return hidden.shape[1] if hidden.ndim == 4 else hidden.shape[-1]


def channels_first(trunk: Any, hidden: Any) -> Any:
    """Return what a model of timm gives before its pooling, of a map [B, H, W, F] as [B, F, H, W]."""
    # Those whose channels come last say so, as timm's own readers of features ask them.
    last = isinstance(hidden, Tensor) and hidden.ndim == 4 and vars(trunk).get("output_fmt") == "NHWC"
    return hidden.movedim(-1, 1) if last else hidden
