"""Reads one tower out of the file of all six, official or of another size."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mmssl_imagebind.tower import KINDS, Size, Tower
from mmssl_pretrained.weights import UNLOADABLE, explain
from multimodal_ssl import InputError

PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
SHOWN = 4  # names in a message


def open_tower(name: str, checkpoint: str | None, size: Size) -> Tower:
    """Return a tower with the weights of a checkpoint, in float32, or with random ones; raise InputError."""
    if checkpoint is None:
        return Tower(name, size)
    with torch.device("meta"):
        tower = Tower(name, size)
    weights = _read(checkpoint, name)
    _compare(checkpoint, name, weights, tower.state_dict())
    tower.load_state_dict(weights, assign=True)
    return tower


def _read(path: str, name: str) -> dict[str, Tensor]:
    """Return the weights of one tower; the others are not even read."""
    try:
        if path.endswith(".safetensors"):
            with safe_open(path, "pt") as file:
                return {key: _own(file.get_tensor(key)) for key in _select(path, name, file.keys())}
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except InputError:
        raise
    except UNLOADABLE as error:
        raise InputError(
            f"can't read the ImageBind checkpoint {path} ({explain(error)}): give the path of "
            "imagebind_huge.pth, or of a .safetensors file of the same names"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} is no ImageBind checkpoint: it holds a {type(content).__name__}, not tensors by name")
    return {key: _own(content[key]) for key in _select(path, name, content)}


def _own(value: Any) -> Any:
    """Return a tensor in float32 that no longer hangs on the file."""
    return value.to(torch.float32, copy=True) if isinstance(value, Tensor) else value


def _select(path: str, name: str, keys: Iterable[Any]) -> list[str]:
    """Return the names of one tower's weights; raise InputError if the file holds anything but towers, or not it."""
    found: dict[str, list[str]] = {}
    unknown = []
    for key in map(str, keys):
        part, _, inside = key.partition(".")
        tower, _, weight = inside.partition(".")
        if part in PARTS and tower in KINDS and weight:
            found.setdefault(tower, []).append(key)
        else:
            unknown.append(key)
    if unknown:
        raise InputError(
            f"{path} is no ImageBind checkpoint: no tower has {_some(unknown)}; the names must be those of "
            "imagebind_huge.pth, such as modality_heads.vision.2.weight"
        )
    if name not in found:
        raise InputError(
            f"{path} holds no {name} tower, but {', '.join(sorted(found)) or 'nothing'}: give a checkpoint that does, "
            "such as imagebind_huge.pth"
        )
    return found[name]


def _compare(path: str, name: str, given: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError unless names and shapes are the same."""
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        what = [f"lacks {_some(missing)}"] * bool(missing) + [f"also has {_some(extra)}"] * bool(extra)
        raise InputError(
            f"the {name} tower in {path} {' and '.join(what)}: if it was made with another depth, set `depth` to it; "
            "otherwise the file is damaged or of another model"
        )
    wrong = [
        f"{key} is {_shape(given[key])}, not {list(one.shape)}"
        for key, one in wanted.items()
        if _shape(given[key]) != list(one.shape)
    ]
    if wrong:
        raise InputError(
            f"the {name} tower in {path} has another size ({_some(wrong)}): set `width`, `heads` and `output` to "
            "those that it was made with"
        )


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
