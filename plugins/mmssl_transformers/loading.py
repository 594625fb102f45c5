"""Loads models of transformers by hub name or local folder, whole or not at all."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import find_adapter_config_file

from mmssl_pretrained.hub import hub_or_cache
from mmssl_pretrained.tower import check_finite, freeze_unused
from mmssl_pretrained.weights import UNLOADABLE, explain
from mmssl_transformers.joint import is_joint
from multimodal_ssl import InputError

# What comes of a file that says something else than it should.
_MALFORMED = (TypeError, KeyError, AttributeError, ArithmeticError, MemoryError, StrictDataclassError)
# Buffers that older versions saved and newer ones compute.
STRAY = re.compile(
    r"\b(position_ids|relative_position_index|relative_coords_table|masked_bias|att(entio)?n\.bias|inv_freq)$"
)

T = TypeVar("T")


def read(what: str, model: str, load: Callable[[], T], *, file: str = "config.json") -> T:
    """Return what `load` reads of a model; raise InputError, in one line, where it can't be had.

    Args:
        what: of the model, with an "of" behind it.
        model: its name.
        load: reads it.
        file: what to look at if a value in it is not as it should be.
    """
    try:
        with hub_or_cache(needed=not Path(model).exists()):
            return load()
    except _MALFORMED as error:
        raise InputError(
            f"transformers can't load {what}{model!r} ({type(error).__name__}: {textwrap.shorten(str(error), 300)}): a "
            f"value in its {file} is not as save_pretrained writes it"
        ) from error
    except UNLOADABLE as error:
        raise InputError(
            f"transformers can't load {what}{model!r} ({explain(error)}); without the model hub, give a local folder "
            "that holds config, weights and preparation, as save_pretrained writes them"
        ) from error


@contextmanager
def preparing(model: str) -> Iterator[None]:
    """Try a preparation inside; raise InputError, in one line, where it fails."""
    try:
        yield
    except InputError:
        raise
    except (*_MALFORMED, ValueError, RuntimeError, IndexError) as error:
        raise InputError(
            f"the preparation of {model} fails ({type(error).__name__}: {textwrap.shorten(str(error), 300)}): a value "
            "in its preprocessor_config.json is not as save_pretrained writes it"
        ) from error


def settings_of(tower: Any) -> dict[str, Any]:
    """Return what the features of a model depend on beside its weights; see ``Encoder.describe``."""
    return {"config": json.loads(tower.config.to_json_string())}


def load_tower(model: str, *, projected: bool = False, subfolder: str = "") -> tuple[Any, set[str]]:
    """Return a model in float32 and eval mode, and the names of the parameters that its checkpoint lacks.

    Raises InputError if it can't be had, has an adapter beside it, or its weights do not fit its config.

    Args:
        model: a name on the hub or a local folder; of an encoder-decoder, the encoder is taken.
        projected: prefer the class with a projection where the checkpoint is of one and the config names it.
        subfolder: of the model's folder.
    """
    _check_adapter(model, subfolder)
    place = {"subfolder": subfolder, "trust_remote_code": False}
    config = read("", model, lambda: AutoConfig.from_pretrained(model, **place))
    architecture = (config.architectures or [""])[0]
    named = projected and architecture.endswith("WithProjection")
    auto = getattr(transformers, architecture, AutoModel) if named else AutoModel
    tower, report = read(
        "",
        model,
        lambda: auto.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **place
        ),
    )
    if report["mismatched_keys"]:
        sizes = [f"{name} is {list(given)}, not {list(own)}" for name, given, own in sorted(report["mismatched_keys"])]
        raise InputError(f"the weights in {model} do not fit its config: {_several(sizes)}")
    strange = [
        one for one in report["unexpected_keys"] if _belongs(one, tower, bare=architecture == type(tower).__name__)
    ]
    if strange:
        raise InputError(f"the weights in {model} have more than its config says: {_several(strange)}")
    tower.eval()
    missing = set(report["missing_keys"])
    if not config.is_encoder_decoder:
        return tower, missing
    encoder = tower.get_encoder()
    names = {id(one): name for name, one in encoder.named_parameters()}
    return encoder, {names[id(one)] for name, one in tower.named_parameters() if name in missing and id(one) in names}


def _check_adapter(model: str, subfolder: str) -> None:
    """Raise InputError for a model with an adapter of peft.

    transformers would put it in by itself, frozen as all of the model then is, and where it names another model, take
    that one: what is trained, and saved in a run, would be neither.
    """
    for place in {"", subfolder}:  # transformers looks in the first, whatever the second
        if read("", model, partial(find_adapter_config_file, model, subfolder=place)) is not None:
            raise InputError(
                f"{model} has an adapter (adapter_config.json): merge it into its model first, with peft's "
                "merge_and_unload, and give the folder that save_pretrained then writes"
            )


def _belongs(key: str, tower: Any, *, bare: bool) -> bool:
    """Tell whether a key for which a model has no place is meant for it, and not for a head beside it.

    In the checkpoint of a model with a head (not `bare`), those of the model itself begin with its prefix.
    """
    prefix = f"{tower.base_model_prefix}."
    place = key.removeprefix(prefix).partition(".")[0]
    within = (bare or key.startswith(prefix)) and place in dict(tower.named_children())
    return within and not STRAY.search(key)


def settle(model: str, tower: nn.Module, missing: set[str], run: Callable[[], Tensor]) -> Tensor:
    """Return the features that `run` gives, and freeze what they do not need.

    Of a model with a joint space, the other tower and the temperature are let go. Raises InputError if the checkpoint
    lacks what the features need.
    """
    features, unused = freeze_unused(tower, run)
    if features.ndim != 2:
        raise InputError(f"{model} gives features of shape {list(features.shape)}, not one vector for each item")
    check_finite(model, features)
    lacking = missing - unused
    if lacking:
        raise InputError(f"the weights in {model} lack {_several(lacking)}")
    if is_joint(tower):
        _let_go(tower, unused)
    return features


def _let_go(module: nn.Module, unused: set[str]) -> None:
    for name, child in list(module.named_children()):
        inside = {f"{name}.{one}" for one, _ in child.named_parameters()}
        if inside and inside <= unused:
            setattr(module, name, None)
    for name, _ in list(module.named_parameters(recurse=False)):
        if name in unused:
            setattr(module, name, None)


def _several(names: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(sorted(names)), 200)
