"""Tokens as a modality of their own, and the encoder that takes them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from multimodal_ssl.features.vectors import load as load_vectors
from multimodal_ssl.types import Inputs, Modality, Preview, TokenEncoder

Views: TypeAlias = list[NDArray[np.float32]]
"""Views of one item, each of them tokens [T, F]."""


def load(value: Any) -> Views:
    """Read tokens [T, F] from a .npy file, its bytes or an array; a list of arrays [T, F] has a view each."""
    several = isinstance(value, list) and value and all(np.ndim(one) == 2 for one in value)
    views = [load_vectors(one) for one in (value if several else [value])]
    for view in views:
        if view.ndim != 2:
            raise ValueError(f"tokens are [T, F], not of shape {view.shape}")
    return views


def preview(item: Views) -> Preview:
    """Return how many there are."""
    return Preview(text=f"{len(item[0]):,} tokens of {item[0].shape[1]} numbers")


TOKENS = Modality("tokens", list, load, preview, lambda item: {"tokens": len(item[0])})


class Tokens(TokenEncoder):
    """Takes tokens; its features are their mean.

    Args:
        width: F.
    """

    modality = "tokens"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def prepare(self, item: Views, rng: np.random.Generator | None = None) -> Tensor:
        """Return tokens [T, F]; of several views the first, or with an rng any."""
        view = item[0 if rng is None or len(item) == 1 else rng.integers(len(item))]
        if view.shape[1] != self.width:
            raise ValueError(f"the tokens have {view.shape[1]} numbers, not {self.width}")
        return torch.from_numpy(np.array(view))

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Pad to the longest."""
        lengths = torch.tensor([len(one) for one in prepared])
        return {
            "tokens": pad_sequence(list(prepared), batch_first=True),
            "mask": torch.arange(int(lengths.max())) < lengths[:, None],
        }

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return inputs["tokens"], inputs["mask"]

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Leave them as they are."""
        return tokens
