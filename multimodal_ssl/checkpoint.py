"""Checkpoints: one safetensors file a step, written whole or not at all. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from multimodal_ssl.errors import InputError
from multimodal_ssl.files import replacing
from multimodal_ssl.stream_order import Cursor
from multimodal_ssl.trust import Trust

PATTERN = "step-*.safetensors"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors so that the file is either the old one or the new one, also when the machine stops."""
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        one = tensor.detach().cpu().contiguous()
        plain[name] = one.clone() if one.numel() and one.data_ptr() in taken else one  # tied weights share memory
        taken.add(one.data_ptr())
    with replacing(path) as temporary:
        save_file(plain, temporary, dict(metadata or {}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file; raise InputError if it is damaged or missing."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # it is no dict to iterate over
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"can't read {path} ({error}): copy it again, or train again with run=OTHER") from error


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    trust: Trust,
    cursors: Mapping[int, Cursor],
) -> None:
    """Write weights, optimizer, trust and where each stream stands after `step` steps; remove checkpoints before."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": one for name, one in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{slot}.{name}"] = torch.as_tensor(value)
    tensors |= {f"trust.{name}": one for name, one in trust.tensors().items()}
    path = folder / f"step-{step:09d}.safetensors"
    save_tensors(path, tensors, {"cursors": json.dumps(cursors)})
    for old in folder.glob(PATTERN):
        if old != path:
            old.unlink()


def restore_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, trust: Trust
) -> tuple[int, dict[int, Cursor]]:
    """Load the newest checkpoint into model, optimizer and trust; return its step (0: there is none) and cursors."""
    found = sorted(folder.glob(PATTERN))
    if not found:
        return 0, {}
    tensors = load_tensors(found[-1])
    model.load_state_dict({key.removeprefix("model."): one for key, one in tensors.items() if key.startswith("model.")})
    trust.restore({key.removeprefix("trust."): one for key, one in tensors.items() if key.startswith("trust.")})
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            slot, _, name = rest.partition(".")
            parameter = parameters[name]
            # Adam's moments have the device and the memory format of their parameter.
            optimizer.state[parameter][slot] = value if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
    with safe_open(found[-1], framework="pt") as file:
        cursors = json.loads(file.metadata()["cursors"])
    step = int(found[-1].stem.removeprefix("step-"))
    return step, {int(position): Cursor.parse(one) for position, one in cursors.items()}
