"""Loads open_clip models by architecture, tag, file or folder; what both towers share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import _find_checkpoint_in_dir

from mmssl_pretrained.hub import hub_or_cache
from mmssl_pretrained.weights import UNLOADABLE, count_rows, explain
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest


def load_model(model: str, pretrained: str | None) -> tuple[str, Any]:
    """Return open_clip's name of an architecture, and the model on the CPU in eval mode.

    Raises InputError where it can't be had.
    """
    brings_weights = model.startswith(("hf-hub:", "local-dir:"))
    if brings_weights:
        name = model
        if pretrained is not None:
            raise InputError(f"{model!r} names its own weights: leave out pretrained={pretrained!r}")
    else:
        name = _register(model) if model.endswith(".json") else model
        if name not in open_clip.list_models():
            raise InputError(
                f"open_clip has no architecture {model!r}: {nearest(model, open_clip.list_models())} "
                "(or the path of a model config (.json), local-dir:folder, hf-hub:name)"
            )
    if pretrained is not None:
        _check_pretrained(name, pretrained)
    path = _checkpoint(model, pretrained)
    try:
        with hub_or_cache(needed=needs_hub(name, pretrained)):
            loaded = open_clip.create_model(
                name, pretrained, pretrained_text=False, require_pretrained=brings_weights or pretrained is not None
            )
    except UNLOADABLE as error:
        what = model if pretrained is None else f"{pretrained} for {model}"
        why = explain(error, path)
        raise InputError(
            f"open_clip can't load {what} ({why}); without the model hub, give the path "
            "of a checkpoint of this architecture as `pretrained`, or a folder as `model: local-dir:folder`"
        ) from error
    if path is not None and not path.endswith((".npz", ".npy")):  # big_vision has other names
        _check_positions(name, path, loaded, chosen=model.endswith(".json"))
    return name, loaded.eval()


def _checkpoint(model: str, pretrained: str | None) -> str | None:
    """Return the path of the weights, where they are a file of the user's."""
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:"))
        found: str | None = _find_checkpoint_in_dir(folder)
        return found
    return pretrained if pretrained is not None and Path(pretrained).is_file() else None


def _check_pretrained(name: str, pretrained: str) -> None:
    """Raise InputError if there are no such weights, or they were trained with the other activation."""
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    if not tag:
        if not Path(pretrained).is_file():
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise InputError(f"{pretrained!r} is neither a file nor a tag of {name}: {nearest(pretrained, tags)}")
        _check_neighbour(name, Path(pretrained))
        return
    wanted = tag.get("quick_gelu", False)
    if wanted != open_clip.get_model_config(name).get("quick_gelu", False):
        twin = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
        todo = (
            f"write model: {twin}"
            if twin != name and twin in open_clip.list_models()
            else f'give the path of a model config with "quick_gelu": {json.dumps(wanted)}, and of the checkpoint'
        )
        raise InputError(f"{pretrained!r} was trained with quick_gelu={wanted} and {name} has {not wanted}: {todo}")


def _check_positions(name: str, path: str, loaded: Any, *, chosen: bool) -> None:
    """Raise InputError if open_clip made other positions of those in a checkpoint, which it does in silence.

    Between image sizes this is how models are tuned at another resolution, so it is taken where the size is `chosen`:
    where the user wrote the model config. Texts of another length are cut, or end, where the model never saw an end.
    """
    counts = count_rows(path, ("positional_embedding", "text.positional_embedding", "visual.positional_embedding"))
    state = loaded.state_dict()
    for key, given in counts.items():
        made = state.get(key, state.get(f"text.{key}"))
        image = key.startswith("visual.")
        if made is None or len(made) == given or (image and chosen):
            continue
        one, option = ("images", "vision_cfg.image_size") if image else ("texts", "text_cfg.context_length")
        todo = "; to interpolate them, give a model config (.json) of your own with that size" if image else ""
        raise InputError(
            f"{path} has {given} positions of {one} and {name} {len(made)}, by its {option}: give the model whose "
            f"weights these are{todo}"
        )


def _check_neighbour(name: str, pretrained: Path) -> None:
    """Raise InputError if a config beside a checkpoint, as in folders of the hub, has another activation."""
    beside = pretrained.parent / "open_clip_config.json"
    if not beside.is_file():
        return
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
        theirs, ours = _activation(said.get("model_cfg", said)), _activation(open_clip.get_model_config(name))
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # one is no model config
    for key, value in theirs.items():
        if value != ours[key]:
            raise InputError(
                f"{pretrained} was trained with {key}={value}, says {beside.name} beside it, and {name} has {ours[key]}"
                f": write model: local-dir:{pretrained.parent}, without pretrained, or name a model that has the same"
            )


def _activation(config: Any) -> dict[str, Any]:
    """Return what a model config says of activations, by its keys."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return {
        "quick_gelu": config.get("quick_gelu", False),
        "vision_cfg.act_kwargs": vision.get("act_kwargs") or {},
        "text_cfg.act_kwargs": text.get("act_kwargs") or {},
    }


def _register(path: str) -> str:
    """Make a model config known to open_clip under its file's name; return that name."""
    name = Path(path).stem
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't read the open_clip model config {path}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(
            f"{path} is no open_clip model config: it holds {json.dumps(config):.40}, not settings by name"
        )
    lacking = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if lacking:
        raise InputError(
            f"{path} is no open_clip model config: it lacks {', '.join(lacking)}; "
            "if its folder comes from the hub, write model: local-dir:folder"
        )
    known = open_clip.get_model_config(name)
    if known is None:
        open_clip.add_model_config(path)
    elif known != config:
        raise InputError(f"open_clip has another architecture that is named {name!r}: rename {path}")
    return name


def needs_hub(name: str, pretrained: str | None) -> bool:
    """Tell whether weights, or the tokenizer or the text tower that a config names, may have to come from the hub."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return name.startswith("hf-hub:")
    text = open_clip.get_model_config(name)["text_cfg"]
    tagged = pretrained is not None and bool(open_clip.get_pretrained_cfg(name, pretrained))
    return tagged or "hf_model_name" in text or "hf_tokenizer_name" in text
