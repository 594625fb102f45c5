"""One tower of ImageBind (Girdhar et al. 2023), whose state has the names that the official checkpoint gives it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_imagebind.stems import InertialTokens, TextTokens, map_tokens, picture_tokens, sound_tokens
from mmssl_imagebind.trunk import EPSILON, Trunk
from multimodal_ssl import InputError


class Size(NamedTuple):
    """How large a tower is.

    Attributes:
        width: of its tokens.
        depth: number of blocks.
        heads: of attention.
        output: F, width of its features.
    """

    width: int
    depth: int
    heads: int
    output: int


class Kind(NamedTuple):
    """What sets a tower apart from the others.

    Attributes:
        tokens: from the width to the module that makes tokens of prepared inputs.
        norm, bias_kv, drop: of its Trunk.
        dropout: of features, in training.
        scale: that unit vectors are multiplied with in the official model, at the beginning; None: they are not.
    """

    tokens: Callable[[int], nn.Module]
    norm: bool = False
    bias_kv: bool = True
    drop: float = 0.0
    dropout: float = 0.0
    scale: float | None = None


KINDS = {
    "vision": Kind(picture_tokens, norm=True, bias_kv=False),
    "text": Kind(TextTokens, bias_kv=False, scale=1 / 0.07),
    "audio": Kind(sound_tokens, drop=0.1, scale=20.0),
    "depth": Kind(partial(map_tokens, "depth_stem"), scale=5.0),
    "thermal": Kind(partial(map_tokens, "rgbt_stem"), scale=10.0),
    "imu": Kind(InertialTokens, drop=0.7, dropout=0.5, scale=5.0),
}


class Tower(nn.Module):
    """Turns prepared inputs into unit vectors [B, F]: the embeddings of the official model but for its logit scale.

    The scale says nothing of the direction, which is all that a Binder takes; it is kept for the names' sake.

    Args:
        name: one of KINDS.
    """

    def __init__(self, name: str, size: Size) -> None:
        super().__init__()
        if min(size) < 1 or size.width % size.heads:
            raise InputError(f"ImageBind's {name} tower: width must be a multiple of heads, and all positive: {size}")
        kind, (width, depth, heads, output) = KINDS[name], size
        trunk = Trunk(width, depth, heads, norm=kind.norm, bias_kv=kind.bias_kv, drop=kind.drop)
        self.name = name
        self.modality_preprocessors = nn.ModuleDict({name: kind.tokens(width)})
        self.modality_trunks = nn.ModuleDict({name: trunk})
        self.modality_heads = nn.ModuleDict({name: _head(name, width, output, kind.dropout)})
        self.modality_postprocessors = nn.ModuleDict({name: nn.ModuleDict()})
        if kind.scale is not None:
            self.modality_postprocessors[name] = nn.ModuleDict({"1": LogitScale(kind.scale)})

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.modality_preprocessors[self.name](inputs)
        if self.name == "text":
            tokens = self.modality_trunks[self.name](tokens, self.modality_preprocessors[self.name].mask)
            # The end of a text has the highest of all ids.
            chosen = tokens[torch.arange(len(inputs), device=inputs.device), inputs.argmax(1)]
        else:
            chosen = self.modality_trunks[self.name](tokens)[:, 0]
        return F.normalize(self.modality_heads[self.name](chosen), dim=-1)

    def by_depth(self) -> list[nn.Module]:
        """Return its blocks in their order, the last together with the head."""
        trunk = self.modality_trunks[self.name]
        assert isinstance(trunk, Trunk), "nn.ModuleDict forgets the type"
        *blocks, last = trunk.blocks
        return [*blocks, nn.ModuleList([last, self.modality_heads[self.name]])]


class LogitScale(nn.Module):
    """Holds the logarithm of a factor."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(math.log(scale)))


def _head(name: str, width: int, output: int, dropout: float) -> nn.Module:
    norm, projection = nn.LayerNorm(width, EPSILON), nn.Linear(width, output, bias=False)
    if name == "text":
        return nn.Sequential(OrderedDict(proj=nn.Sequential(norm, projection)))
    layers = {"0": norm, "2": nn.Dropout(dropout), "3": projection} if dropout else {"0": norm, "2": projection}
    return nn.Sequential(OrderedDict(layers))
