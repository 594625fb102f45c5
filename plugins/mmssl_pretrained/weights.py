"""Why weights can't be loaded: in one line, and in the same words for all libraries."""

from __future__ import annotations

import errno
import pickle
import textwrap
import zipfile
from collections.abc import Collection, Mapping

import torch
from safetensors import SafetensorError, safe_open

# What libraries raise of a hub that can't be reached, a damaged file, another architecture's weights, a wrong config,
# a package that they lack.
UNLOADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    ImportError,
    EOFError,
    StopIteration,  # the first of no weights
    pickle.UnpicklingError,
    SafetensorError,
)
# What comes of weights that are none. Torch's words advise to load the pickle unchecked: they are not repeated.
DAMAGED = (SafetensorError, pickle.UnpicklingError, EOFError, IndexError)
UNLIKE = (AttributeError, TypeError, KeyError, StopIteration)  # what comes of something else than tensors by name
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")  # where training scripts keep the weights


def explain(error: Exception, path: str | None = None) -> str:
    """Return why weights can't be loaded; path is the file that they should come from, where it is known."""
    said = textwrap.shorten(str(error), 300)
    cut_short = isinstance(error, OSError) and error.errno == errno.EINVAL  # torch, of an archive without its end
    if isinstance(error, DAMAGED) or cut_short or "weights_only" in str(error):
        return (
            f"{type(error).__name__}: a file is damaged, or a pointer in its place, to be fetched with git lfs pull, "
            "or it holds more than tensors"
        )
    if path is not None and isinstance(error, UNLIKE) and (strange := _strange(path)):
        return strange
    return f"it lacks {said}" if isinstance(error, KeyError) else said or type(error).__name__


def count_rows(path: str, names: Collection[str]) -> dict[str, int]:
    """Return the first size of those tensors of a checkpoint that have one of these names; little of it is read."""
    if path.endswith(".safetensors"):
        with safe_open(path, "pt") as file:
            known = {*file.keys()}
            return {name: file.get_slice(name).get_shape()[0] for name in names if name in known}
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    found = content.get("state_dict", content)
    plain = {name.removeprefix("module."): one for name, one in found.items()}
    return {name: len(plain[name]) for name in names if name in plain}


def _strange(path: str) -> str:
    """Return what a checkpoint holds instead of tensors by name; nothing if it holds them or can't be read."""
    if path.endswith(".safetensors"):
        return ""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNLOADABLE:
        return ""
    key = next((one for one in NESTED if one in content), "") if isinstance(content, Mapping) else ""
    found = content[key] if key else content
    where = f"under {key!r} it holds" if key else "it holds"
    if not isinstance(found, Mapping):
        return f"{where} {type(found).__name__!r}, not tensors by name"
    return "" if found else f"{where} no tensors"
