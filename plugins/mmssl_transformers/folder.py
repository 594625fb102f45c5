"""Single files of a model, from the hub or a local folder."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from mmssl_transformers.loading import read
from multimodal_ssl import InputError

QUIET = {"_raise_exceptions_for_missing_entries": False}


def read_config(model: str, name: str, path: str = "", *, optional: bool = False) -> Any:
    """Return what a JSON file in the model's folder says; nothing, where it is `optional` and not there."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InputError(f"{model} has a module outside of its folder: {path}")
    found = read("", model, lambda: cached_file(model, name, subfolder=path, **(QUIET if optional else {})))
    if found is None and not optional:  # transformers says nothing of a config.json that is not there
        raise InputError(f"{model} lacks {PurePosixPath(path) / name}: its download or copy is not whole")
    if found is None:
        return {}
    with open(found, encoding="utf-8") as file:
        return read(f"{name} of ", model, lambda: json.load(file))


def read_weights(model: str, path: str) -> dict[str, Tensor]:
    """Return the weights of a module; those of before 2023 are no safetensors."""
    found = read("", model, lambda: cached_file(model, "model.safetensors", subfolder=path, **QUIET))
    if found is not None:
        return read(f"{path} of ", model, lambda: load_file(found))
    old = read("", model, lambda: cached_file(model, "pytorch_model.bin", subfolder=path))
    weights: dict[str, Tensor] = read(
        f"{path} of ", model, lambda: torch.load(old, map_location="cpu", weights_only=True)
    )
    return weights
