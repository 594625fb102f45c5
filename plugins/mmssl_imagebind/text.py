"""The text tower, with CLIP's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from mmssl_imagebind.encoder import ImageBindEncoder
from mmssl_imagebind.stems import TOKENS
from mmssl_imagebind.tower import Size
from mmssl_pretrained.describe import describe
from multimodal_ssl import Inputs


class ImageBindText(ImageBindEncoder):
    """Features of texts of up to 77 tokens."""

    modality = "text"

    def __init__(self, *, checkpoint: str | None, size: Size) -> None:
        super().__init__("text", checkpoint, size)
        self.tokenizer = open_clip.SimpleTokenizer()

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a text into token ids [77], and whether it was cut."""
        ids = [self.tokenizer.sot_token_id, *self.tokenizer.encode(item), self.tokenizer.eot_token_id]
        truncated = len(ids) > TOKENS
        if truncated:
            ids[TOKENS - 1 :] = ids[-1:]
        return {"tokens": torch.tensor(ids + [0] * (TOKENS - len(ids))), "truncated": torch.tensor(truncated)}

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def forward(self, inputs: Inputs) -> Tensor:
        return self.tower(inputs["tokens"])

    def describe(self) -> dict[str, Any]:
        return describe(open_clip)  # of which is the tokenizer
