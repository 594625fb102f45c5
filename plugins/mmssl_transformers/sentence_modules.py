"""What follows the transformer in a model of sentence-transformers: pooling, linear layers, norms."""

from __future__ import annotations

import textwrap

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_transformers.folder import DenseFile, LayerNormFile, PoolingFile, read_config, read_weights
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

# In the order in which sentence-transformers joins them, by the names of old configs and of new ones.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class TokenPooling(nn.Module):
    """Pools tokens as the Pooling of sentence-transformers does: one way or several, side by side."""

    def __init__(self, model: str, config: PoolingFile) -> None:
        super().__init__()
        flags = config.model_extra or {}
        modes = config.pooling_mode or [mode for key, mode in MODES.items() if flags.get(key)] or ["mean"]
        self.modes: list[str] = [modes] if isinstance(modes, str) else list(modes)
        self.include_prompt = config.include_prompt
        for mode in self.modes:
            if mode not in MODES.values():
                raise InputError(f"{model} pools by {mode!r}: {nearest(mode, MODES.values())}")

    def forward(self, hidden: Tensor, mask: Tensor, skipped: int) -> Tensor:
        """Return [B, F * modes] of tokens [B, T, F] padded on the right, without the first so many of each text."""
        mask = mask.clone()
        mask[:, :skipped] = 0
        real = mask.unsqueeze(-1).to(hidden.dtype)
        order = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        rows = torch.arange(len(mask), device=mask.device)
        pooled = []
        for mode in self.modes:
            if mode == "cls":
                pooled.append(hidden[rows, mask.argmax(1)])
            elif mode == "lasttoken":
                pooled.append(hidden[rows, (mask * order).argmax(1)])
            elif mode == "max":
                pooled.append(hidden.masked_fill(real == 0, float("-inf")).amax(1))
            else:
                weights = real * order.view(1, -1, 1).to(hidden.dtype) if mode == "weightedmean" else real
                count = weights.sum(1).clamp(min=1e-9)
                pooled.append((hidden * weights).sum(1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count))
        return torch.cat(pooled, dim=-1)


class Dense(nn.Module):
    """A linear layer and an activation of torch, with a shortcut if the config says so."""

    def __init__(self, model: str, config: DenseFile) -> None:
        super().__init__()
        before, after = config.in_features, config.out_features
        self.linear = nn.Linear(before, after, bias=config.bias)
        self.activation = _activation(model, config.activation_function)
        self.residual: nn.Module | None = None
        if config.use_residual:
            self.residual = nn.Identity() if before == after else nn.Linear(before, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.linear(x))
        return y if self.residual is None else y + self.residual(x)


class Normalize(nn.Module):
    """Makes unit vectors."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Norm(nn.Module):
    """A LayerNorm, under the name that its weights have in the folder."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


def make_module(model: str, kind: str, path: str) -> nn.Module:
    """Return what follows the pooling, with its weights."""
    module: nn.Module
    match kind:
        case "Normalize":
            return Normalize()
        case "Dropout":  # in training alone, and of the task it was trained for
            return nn.Identity()
        case "Dense":
            module = Dense(model, read_config(model, DenseFile, "config.json", path))
        case "LayerNorm":
            module = Norm(read_config(model, LayerNormFile, "config.json", path).dimension)
        case _:
            raise InputError(
                f"{model} has a module {kind!r} in {path!r}: Dense, LayerNorm, Dropout and Normalize are known"
            )
    weights = read_weights(model, path)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {model}/{path} do not fit its config: {' '.join(str(error).split())}"
        ) from error
    return module


def _activation(model: str, name: str) -> nn.Module:
    """Return an activation of torch by its full name."""
    kind = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"{model} has the activation {name!r}: only those of torch.nn are known")
    try:
        activation: nn.Module = kind()
        activation(torch.zeros(1, 4))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # the last: torch, of a container
        raise InputError(
            f"{model} has the activation {name!r}, which needs more than numbers ({textwrap.shorten(str(error), 150)})"
        ) from error
    return activation
