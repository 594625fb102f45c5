"""What of a pretrained tower is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from multimodal_ssl import InputError


def freeze_unused(tower: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, set[str]]:
    """Freeze what the features that `run` gives do not depend on, such as BERT's pooler; return them, and the names.

    What is trained must get a gradient.
    """
    named = {name: one for name, one in tower.named_parameters() if one.requires_grad}
    with torch.enable_grad():
        features = run()
        gradients = torch.autograd.grad(features.sum(), list(named.values()), allow_unused=True)
    unused = {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}
    for name in unused:
        named[name].requires_grad_(False)
    return features.detach(), unused


def check_finite(model: str, features: Tensor) -> None:
    """Raise InputError if features are not finite: no weight could learn from them."""
    if not bool(features.isfinite().all()):
        raise InputError(
            f"{model} gives features that are not finite: its weights hold NaN or infinity, or its preparation divides "
            "by zero (image_std)"
        )


def bake(tower: nn.Module) -> None:
    """Replace weights that are computed of others at each step, as by weight norm, by what they are.

    Torch does not pickle the former, and where processes are not forked an encoder is pickled for its workers.
    """
    for module in list(tower.modules()):
        if is_parametrized(module):
            weights: Any = module.parametrizations
            for name in list(weights):
                remove_parametrizations(module, name)
            module._load_state_dict_pre_hooks.clear()  # weight norm's, for old checkpoints: a local function


def hold_statistics(tower: nn.Module) -> None:
    """Keep every BatchNorm at the statistics of pretraining: what a sample gives depends on no other of its batch."""
    for module in tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
