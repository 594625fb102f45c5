"""The transformer of every tower."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

EPSILON = 1e-6


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut, [B, T, width] -> [B, T, width].

    Args:
        bias_kv: attention sees a learnt key and value beside those of the tokens.
        drop: how often, in training, a sample goes by the shortcut alone (Huang et al. 2016).
    """

    def __init__(self, width: int, heads: int, *, bias_kv: bool, drop: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=bias_kv)
        self.norm_1, self.norm_2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )
        self.drop = StochasticDepth(drop, "row")

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        seen = self.norm_1(tokens).transpose(0, 1)  # [T, B, width]: torch has another kernel for eval mode otherwise
        seen = self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        tokens = tokens + self.drop(seen)
        return tokens + self.drop(self.mlp(self.norm_2(tokens)))


class Trunk(nn.Module):
    """Blocks one after the other, [B, T, width] -> [B, T, width].

    Args:
        norm: tokens are normalised before the first block.
        drop: of the last block; it grows evenly from 0 in the first.
    """

    def __init__(self, width: int, depth: int, heads: int, *, norm: bool, bias_kv: bool, drop: float) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(*([nn.LayerNorm(width, EPSILON)] if norm else []))
        shares = [place / max(depth - 1, 1) for place in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, bias_kv=bias_kv, drop=drop * share) for share in shares)
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and "attn" not in name:  # torch begins attention so by itself
                nn.init.xavier_uniform_(weight)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.pre_transformer_layer(tokens)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens
