"""Loads models of timm by name, checkpoint, folder or hub name; whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from timm.models import load_state_dict
from torch import nn

from mmssl_pretrained.hub import hub_or_cache
from mmssl_pretrained.weights import UNLOADABLE, explain
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest


def load_model(model: str, pretrained: bool | str) -> nn.Module:
    """Return a model in eval mode without its classifier; raise InputError where it can't be had.

    It is loaded with the classifier first: without one, timm takes checkpoints that lack weights.
    """
    if model.startswith(("hf-hub:", "local-dir:")):
        if isinstance(pretrained, str):
            raise InputError(f"{model!r} names its own weights: leave out pretrained={pretrained!r}")
    else:
        _check_name(model)
    # Weights of a file are the tag's if one is named, those of other folders may have been trained on.
    name = model.removeprefix("hf-hub:timm/").partition("@")[0]
    if pretrained and timm.is_model_pretrained(name) and (pretrained is True or "." in name):
        _check_activation(name)
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        raise InputError(f"pretrained={pretrained!r} is no file: give the path of a checkpoint, true or false")
    try:
        with hub_or_cache(needed=model.startswith("hf-hub:") or pretrained is True):
            loaded: Any = (
                _from_checkpoint(model, pretrained)
                if isinstance(pretrained, str)
                else timm.create_model(model, pretrained=pretrained)
            )
    except UNLOADABLE as error:
        path = pretrained if isinstance(pretrained, str) else None
        what = model if path is None else f"{path} for {model}"
        foreign = path is None and isinstance(error, KeyError) and error.args == ("architecture",)
        why = "its config.json names no architecture, as timm's do" if foreign else explain(error, path)
        raise InputError(
            f"timm can't load {what} ({why}); without the model hub, give the path of a "
            "checkpoint of this architecture as `pretrained`, or a folder as `model: local-dir:folder`"
        ) from error
    loaded.reset_classifier(0)
    module: nn.Module = loaded.eval()
    return module


def _check_name(model: str) -> None:
    """Raise InputError if timm has no such architecture, or no such weights of it."""
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        raise InputError(
            f"timm has no model {model!r}: {nearest(name, timm.list_models())} (or local-dir:folder, hf-hub:owner/name)"
        )
    if tag and not timm.is_model_pretrained(model):
        raise InputError(f"timm has no weights {tag!r} of {name}: {nearest(model, timm.list_pretrained(f'{name}.*'))}")


def _check_activation(model: str) -> None:
    """Raise InputError if timm says that the weights were trained with the other activation."""
    config = timm.get_pretrained_cfg(model)
    notes, full = " ".join(config.notes or ()), f"{model.partition('.')[0]}.{config.tag}"
    if "QuickGELU" in notes and "quickgelu" not in model:
        twin = next(
            (
                one
                for one in timm.list_pretrained(f"*.{config.tag}")
                if "_quickgelu" in one and one.replace("_quickgelu", "") == full
            ),
            "",
        )
        todo = f"write model: {twin}" if twin else "choose other weights"
        raise InputError(f"the weights {config.tag!r} were trained with QuickGELU and {model} has GELU: {todo}")


def _from_checkpoint(model: str, path: str) -> nn.Module:
    """Return a model with the weights of a file, strictly all of them, whatever classes its classifier has."""
    state = load_state_dict(path, weights_only=True)
    classifiers = timm.get_pretrained_cfg(model).classifier or ()
    names = [classifiers] if isinstance(classifiers, str) else list(classifiers)
    classes = next((len(state[f"{name}.weight"]) for name in names if f"{name}.weight" in state), 0)
    overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
    return timm.create_model(model, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
