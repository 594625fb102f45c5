"""Vectors as a modality of their own, and the encoder that takes them as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimodal_ssl.types import Encoder, Inputs, Modality, Preview

SHOWN = 4  # numbers


def load(value: Any) -> NDArray[np.float32]:
    """Read a vector [F], or views of one item [V, F], from a .npy file, its bytes, an array or a list."""
    if isinstance(value, str | os.PathLike):
        value = Path(value).read_bytes()
    if isinstance(value, bytes):
        value = np.load(io.BytesIO(value), allow_pickle=False)
    found = np.asarray(value)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"a vector holds numbers, not {found.dtype}")
    if found.ndim not in (1, 2) or not found.size:
        raise ValueError(f"a vector is [F], or [V, F] for several views, not of shape {found.shape}")
    found = found.astype(np.float32, copy=False)
    if not np.isfinite(found).all():
        raise ValueError("the vector has numbers that are not finite")
    return found


def preview(item: NDArray[np.float32]) -> Preview:
    """Return the first numbers as a text."""
    first = np.atleast_2d(item)[0]
    numbers = ", ".join(f"{one:.3g}" for one in first[:SHOWN])
    return Preview(text=f"[{numbers}{', ...' if len(first) > SHOWN else ''}] ({len(first)} numbers)")


VECTOR = Modality("vector", np.ndarray, load, preview, lambda item: {"numbers": item.shape[-1]})


class Vectors(Encoder):
    """Takes vectors for features.

    Args:
        width: F.
    """

    modality = "vector"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        """Return a vector [F]; of several views the first, or with an rng any."""
        if item.shape[-1] != self.width:
            raise ValueError(f"the vector has {item.shape[-1]} numbers, not {self.width}")
        if item.ndim == 2:
            item = item[0 if rng is None or len(item) == 1 else rng.integers(len(item))]
        return torch.from_numpy(np.array(item))

    def prepare_rows(
        self, items: NDArray[Any], slots: Sequence[int], rng: np.random.Generator | None = None
    ) -> Inputs | None:
        """Return vectors [B, F] of these, or of views [B, V, F]: the first, or with an rng any."""
        if items.shape[-1] != self.width or not np.isfinite(items).all():
            return None  # which of them is wrong is told where they are prepared one by one
        items = items.astype(np.float32, copy=False).reshape(len(items), -1, self.width)
        count = items.shape[1]
        views = 0 if rng is None or count == 1 else rng.integers(count, size=max(slots) + 1)[slots]
        return torch.from_numpy(items[np.arange(len(items)), views])

    def forward(self, inputs: Inputs) -> Tensor:
        vectors: Tensor = inputs
        return vectors
