"""Single files of a model of sentence-transformers, from the hub or a local folder."""

from __future__ import annotations

import json
import textwrap
from pathlib import PurePosixPath
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from mmssl_transformers.loading import read
from multimodal_ssl import InputError

QUIET = {"_raise_exceptions_for_missing_entries": False}


T = TypeVar("T")
F = TypeVar("F", bound="File")


class File(BaseModel):
    """What a JSON file says; what else it says is kept aside."""

    model_config = ConfigDict(extra="allow", strict=True)


class Module(File):
    """An entry of modules.json."""

    type: str
    path: str


class PoolingFile(File):
    """How tokens are pooled; in old folders by a flag for each mode, which are among what else is said."""

    pooling_mode: str | list[str] | None = None
    include_prompt: bool = True


class DenseFile(File):
    """A linear layer and what follows it."""

    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


class LayerNormFile(File):
    """A LayerNorm."""

    dimension: PositiveInt


class SettingsFile(File):
    """How texts become tokens."""

    max_seq_length: PositiveInt | None = None
    do_lower_case: bool | None = None


class PromptsFile(File):
    """What is put before texts."""

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None


def read_modules(model: str) -> list[Module]:
    """Return what modules.json says."""
    return _check(model, "modules.json", list[Module], _read(model, "modules.json", "", optional=False))


def read_config(model: str, kind: type[F], name: str, path: str = "", *, optional: bool = False) -> F:
    """Return what a JSON file in the model's folder says; nothing, where it is `optional` and not there."""
    return _check(model, str(PurePosixPath(path) / name), kind, _read(model, name, path, optional=optional))


def _check(model: str, file: str, kind: type[T], content: Any) -> T:
    """Return the content of a file as what it should be; raise InputError, in one line, if it is something else."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(one) for one in first["loc"])
        given = textwrap.shorten(repr(first["input"]), 80)
        raise InputError(f"{file} of {model!r}: {f'{place}: ' if place else ''}{first['msg']}, not {given}") from error


def _read(model: str, name: str, path: str, *, optional: bool) -> Any:
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
