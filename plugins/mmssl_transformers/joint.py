"""Models with a joint space, such as CLIP, SigLIP and CLAP: their parts, and features in that space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from multimodal_ssl import InputError

Kind = Literal["image", "text", "audio"]

PARTS = {"image": "vision_model", "text": "text_model", "audio": "audio_model"}


def is_joint(model: Any) -> bool:
    """Tell whether a model is the whole of one with a joint space of texts and something else."""
    return any(_makes(model, kind) for kind in ("image", "audio")) and _makes(model, "text")


def projects(model: Any, kind: Kind) -> bool:
    """Tell whether a model has features of this kind in a joint space."""
    return (is_joint(model) and _makes(model, kind)) or type(model).__name__.endswith("WithProjection")


def project(model: Any, kind: Kind, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return features in the joint space [B, D], as the library gives them (CLAP's are unit vectors)."""
    if is_joint(model):
        # transformers 5: an output object, whose pooler_output is projected already.
        features: Tensor = getattr(model, f"get_{kind}_features")(**inputs).pooler_output
        return features
    projected: Tensor = model(**inputs)[f"{kind}_embeds"]
    return projected


def part(name: str, model: Any, kind: Kind) -> Any:
    """Return what a model, of this name, has for this kind of item before any projection."""
    if not is_joint(model):
        return model
    parts = dict(model.named_children())
    if PARTS[kind] not in parts:
        raise InputError(f"{name} has no {PARTS[kind]}, but {', '.join(parts)}: set pooling to projected")
    return parts[PARTS[kind]]


def within(missing: set[str], model: Any, kind: Kind) -> set[str]:
    """Return which of the parameters that a model lacks are those of the part for this kind of item."""
    if not is_joint(model):
        return missing
    prefix = f"{PARTS[kind]}."
    return {name.removeprefix(prefix) for name in missing if name.startswith(prefix)}


def _makes(model: Any, kind: str) -> bool:
    return callable(getattr(type(model), f"get_{kind}_features", None))
