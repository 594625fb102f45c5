"""From prepared inputs to tokens: the patches of each tower, its class token and its positions."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

SIZE = 224  # pixels of a side of pictures, depth and thermal maps
MELS, FRAMES = 128, 204  # of a spectrogram
CHANNELS, STEPS, PATCH = 6, 2000, 8  # of inertial measurements: channels, steps of time, steps in a token
TOKENS, VOCABULARY = 77, 49408  # of texts


class PatchTokens(nn.Module):
    """Patches of a grid and a class token before them, [B, C, ...] -> [B, 1 + T, width].

    Args:
        stem: the name that the checkpoint gives to the projection and its norm.
        patches: T.
    """

    def __init__(self, stem: str, projection: nn.Module, patches: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        layers = OrderedDict(proj=projection, flat=Flat(), norm_layer=nn.LayerNorm(width) if norm else nn.Identity())
        self.stem = stem
        self.add_module(stem, nn.Sequential(layers))
        self.pos_embedding_helper = Positions(1 + patches, width)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.get_submodule(self.stem)(inputs)
        return self.pos_embedding_helper(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1))


class Positions(nn.Module):
    """Adds to each token what tells its place."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, width) * width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.pos_embed


class Flat(nn.Module):
    """Lays a grid out as tokens, [B, width, ...] -> [B, T, width]."""

    def forward(self, grid: Tensor) -> Tensor:
        return grid.flatten(2).transpose(1, 2)


class Still(nn.Module):
    """Shows a picture twice, [B, 3, H, W] -> [B, 3, 2, H, W]; two frames of a video stay as they are."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels if pixels.ndim == 5 else pixels.unsqueeze(2).expand(-1, -1, 2, -1, -1)


class TextTokens(nn.Module):
    """Token ids [B, T] -> embeddings [B, T, width]; `mask` [T, T] lets each see those before it."""

    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, TOKENS, width) * 0.01)
        self.register_buffer("mask", torch.full((TOKENS, TOKENS), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.pos_embed


class InertialTokens(nn.Module):
    """Measurements [B, 6, STEPS] -> one token for PATCH steps of all channels, and a class token before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        projection = nn.Linear(CHANNELS * PATCH, width, bias=False)
        self.imu_stem = nn.Sequential(OrderedDict(proj=projection, norm_layer=nn.LayerNorm(width)))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + STEPS // PATCH, width) * 0.01)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.imu_stem(inputs.unfold(2, PATCH, PATCH).transpose(1, 2).flatten(2))
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self.pos_embed


def picture_tokens(width: int) -> nn.Module:
    """Two frames of 14 x 14 pixels are a token (ViT, inflated to videos)."""
    inflated = nn.Sequential(Still(), nn.Conv3d(3, width, (2, 14, 14), (2, 14, 14), bias=False))
    return PatchTokens("rgbt_stem", inflated, (SIZE // 14) ** 2, width, norm=False)


def sound_tokens(width: int) -> nn.Module:
    """Patches of 16 mels by 16 frames overlap by 6 (AST, Gong et al. 2021)."""
    patches = ((MELS - 16) // 10 + 1) * ((FRAMES - 16) // 10 + 1)
    return PatchTokens("rgbt_stem", nn.Conv2d(1, width, 16, 10, bias=False), patches, width, norm=True)


def map_tokens(stem: str, width: int) -> nn.Module:
    """16 x 16 values of a map [B, 1, SIZE, SIZE] are a token."""
    return PatchTokens(stem, nn.Conv2d(1, width, 16, 16, bias=False), (SIZE // 16) ** 2, width, norm=True)
