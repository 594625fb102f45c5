"""What a model offers as features of a whole item."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from multimodal_ssl import InputError

# What vision and sound transformers call the tokens that they put before the patches.
SPECIAL = ("cls_token", "class_token", "class_embedding", "distillation_token", "register_tokens")

Pooling = Literal["cls", "mean", "pooled", "projected"]


def count_special(model: nn.Module) -> int:
    """Return how many tokens a model puts before those of the item itself, the class token first."""
    named = [one for name, one in model.named_parameters() if name.rpartition(".")[2] in SPECIAL]
    return sum(one.shape[-2] if one.ndim > 1 else 1 for one in named)


def offered(model: nn.Module, outputs: Any, *, mean: bool) -> list[Pooling]:
    """Return the ways of pooling that a model has for its outputs, the best first; `mean`: whether that is one."""
    pooled = outputs.get("pooler_output") is not None
    # BERT's pooler is trained by a task on pairs of sentences; few checkpoints of vision transformers have it.
    bert = any(name.endswith("pooler.dense.weight") for name, _ in model.named_parameters())
    ways: dict[Pooling, bool] = {"pooled": pooled and not bert, "cls": count_special(model) > 0, "mean": mean}
    last: list[Pooling] = ["pooled"] if pooled and bert else []
    return [way for way, there in ways.items() if there] + last


def choose(model: str, asked: Pooling | None, ways: list[Pooling]) -> Pooling:
    """Return the way of pooling that was asked for, or the best; raise InputError if the model has no such."""
    if asked is not None and asked not in ways:
        raise InputError(f"{model} has no features for pooling: {asked}; it has {', '.join(ways) or 'none'}")
    if not ways:
        raise InputError(f"{model} gives nothing that can be pooled to one vector")
    return asked or ways[0]


def pool_tokens(hidden: Tensor, special: int, mask: Tensor | None) -> Tensor:
    """Return the mean [B, F] of a map [B, F, H, W], or of the tokens [B, T, F] behind the special ones.

    The mask [B, T] is 0 where there is padding.
    """
    if hidden.ndim == 4:
        return hidden.mean((2, 3))
    if mask is None:
        return hidden[:, special:].mean(1)
    real = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * real).sum(1) / real.sum(1)
