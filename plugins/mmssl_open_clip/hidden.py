"""What open_clip's towers pool their features from, as its own readers of hidden states give it."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch import Tensor
from torch.nn import functional as F

from mmssl_pretrained.tokens import channels_first

LAST: dict[str, Any] = {"indices": 1, "intermediates_only": True}


def image_hidden(tower: Any, pixels: Tensor) -> Any:
    """Return tokens [B, T, F], the class token first, or a map [B, F, H, W]; of some models of timm something else."""
    if isinstance(tower, TimmModel):
        return channels_first(tower.trunk, tower.trunk.forward_features(pixels))
    if isinstance(tower, ModifiedResNet):
        return tower.forward_intermediates(pixels, **LAST)["image_intermediates"][0]
    norm = tower.attn_pool is None and not tower.final_ln_after_pool  # else it comes behind the pooling
    found = tower.forward_intermediates(
        pixels, **LAST, normalize_intermediates=norm, output_fmt="NLC", output_extra_tokens=True
    )
    return torch.cat([*found["image_intermediates_prefix"], *found["image_intermediates"]], 1)


def text_tokens(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens [B, T, F] of token ids [B, T], and which of them are real [B, T] (bool).

    Real is what its features can come from: no padding of Hugging Face towers, which hide it; as far as the token that
    they are read at, where one ends the text; else all. CoCa's class token, which it reads them at, is the last.
    """
    plain = isinstance(tower, open_clip.CLIP)  # it has the parts of its text tower itself
    text = tower if plain else tower.text
    if isinstance(text, HFTextEncoder):
        real = ids != text.config.pad_token_id
        return text.transformer(input_ids=ids, attention_mask=real.long()).last_hidden_state, real
    coca = not plain and text.cls_emb is not None
    found = tower.forward_intermediates(
        text=ids, text_indices=1, intermediates_only=True, normalize_intermediates=not coca,
        text_output_extra_tokens=True,
    )  # fmt: skip
    tokens = torch.cat([*found["text_intermediates"], *found.get("text_intermediates_suffix", ())], 1)
    pooling, end = (text.text_pool_type, text.text_eos_id) if plain else (text.pool_type, text.eos_id)
    real = torch.ones_like(ids, dtype=torch.bool)
    if pooling in ("argmax", "eos"):
        ends = (ids if pooling == "argmax" else (ids == end).int()).argmax(1)
        real = torch.arange(ids.shape[1], device=ids.device) <= ends.unsqueeze(1)
    return tokens, F.pad(real, (0, tokens.shape[1] - ids.shape[1]), value=True)
