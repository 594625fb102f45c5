"""The objectives of the core, registered like any plugin's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt

from multimodal_ssl.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl.types import Objective

Pairs = Sequence[tuple[str, str]]
Positive = Annotated[float, Gt(0)]


def info_nce(pairs: Pairs, *, temperature: Positive = 0.07, learn_temperature: bool = True) -> Objective:
    """Symmetric InfoNCE (CLIP); samples of one group are several positives (SupCon)."""
    from multimodal_ssl.objectives.contrastive import InfoNCE

    return InfoNCE(pairs, temperature=temperature, learn_temperature=learn_temperature)


def siglip(pairs: Pairs, *, scale: Positive = 10.0, bias: float = -10.0) -> Objective:
    """Sigmoid loss over all pairs of the batch (SigLIP)."""
    from multimodal_ssl.objectives.contrastive import SigLIP

    return SigLIP(pairs, scale=scale, bias=bias)


def triplet(
    pairs: Pairs, *, margin: Positive = 0.2, mining: Literal["batch-all", "batch-hard", "semi-hard"] = "semi-hard"
) -> Objective:
    """Triplet loss with mining in the batch (FaceNet)."""
    from multimodal_ssl.objectives.contrastive import Triplet

    return Triplet(pairs, margin=margin, mining=mining)


@hookimpl
def register_objectives(register: Register) -> None:
    register("info-nce", info_nce)
    register("siglip", siglip)
    register("triplet", triplet)
