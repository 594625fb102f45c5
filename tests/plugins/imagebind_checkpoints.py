"""Checkpoints in the layout of imagebind_huge.pth, by rules that were read off its names and shapes."""

from typing import NamedTuple

import numpy as np
import torch

from mmssl_imagebind.tower import Size

SIZE = Size(width=32, depth=2, heads=4, output=24)
HUGE = {
    "vision": Size(1280, 32, 16, 1024),
    "text": Size(1024, 24, 16, 1024),
    "audio": Size(768, 12, 12, 1024),
    "depth": Size(384, 12, 8, 1024),
    "thermal": Size(768, 12, 12, 1024),
    "imu": Size(512, 6, 8, 1024),
}
KEYS = 1311
STEMS = {  # stem -> shape of its projection but for the width, tokens, whether a norm follows
    "vision": ("rgbt_stem.proj.1", (3, 2, 14, 14), 257, False),
    "audio": ("rgbt_stem.proj", (1, 16, 16), 229, True),
    "depth": ("depth_stem.proj", (1, 16, 16), 197, True),
    "thermal": ("rgbt_stem.proj", (1, 16, 16), 197, True),
    "imu": ("imu_stem.proj", (48,), 251, True),
}


class Sound(NamedTuple):
    """What the modality of sounds gives."""

    samples: np.ndarray
    rate: int


def named(tower, size):
    """Return the shapes of one tower's weights, by name."""
    width, depth, _, output = size
    before, trunk, head, after = (
        f"modality_{part}.{tower}." for part in ("preprocessors", "trunks", "heads", "postprocessors")
    )
    if tower == "text":
        found = {"token_embedding.weight": (49408, width), "pos_embed": (1, 77, width), "mask": (77, 77)}
    else:
        stem, shape, tokens, normed = STEMS[tower]
        positions = "pos_embed" if tower == "imu" else "pos_embedding_helper.pos_embed"
        found = {f"{stem}.weight": (width, *shape), "cls_token": (1, 1, width), positions: (1, tokens, width)}
        if normed:
            found |= _norm(f"{stem.split('.')[0]}.norm_layer", width)
    found = {before + key: shape for key, shape in found.items()}
    if tower == "vision":
        found |= _norm(f"{trunk}pre_transformer_layer.0", width)
    for place in range(depth):
        block = f"{trunk}blocks.{place}."
        found |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        found |= {f"{block}attn.out_proj.weight": (width, width), f"{block}attn.out_proj.bias": (width,)}
        if tower not in ("vision", "text"):
            found |= {f"{block}attn.bias_{letter}": (1, 1, width) for letter in "kv"}
        found |= {f"{block}mlp.fc1.weight": (4 * width, width), f"{block}mlp.fc1.bias": (4 * width,)}
        found |= {f"{block}mlp.fc2.weight": (width, 4 * width), f"{block}mlp.fc2.bias": (width,)}
        found |= _norm(f"{block}norm_1", width) | _norm(f"{block}norm_2", width)
    first, last = {"text": ("proj.0", "proj.1"), "imu": ("0", "3")}.get(tower, ("0", "2"))
    found |= _norm(head + first, width) | {f"{head}{last}.weight": (output, width)}
    return found if tower == "vision" else found | {f"{after}1.log_logit_scale": ()}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def checkpoint(size):
    """Return random weights of all six towers at one size, by name."""
    generator = torch.Generator().manual_seed(0)
    shapes = {key: shape for tower in HUGE for key, shape in named(tower, size).items()}
    weights = {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    weights["modality_preprocessors.text.mask"] = torch.full((77, 77), -torch.inf).triu(1)
    return weights
