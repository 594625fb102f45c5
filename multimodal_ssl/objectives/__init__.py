"""The objectives of the core, registered like any plugin's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Le, Lt

from multimodal_ssl.errors import InputError
from multimodal_ssl.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl.types import Objective

Pairs = Sequence[tuple[str, str]]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
RINCE_LIMIT = 80  # exp(88) is the largest float32


def info_nce(pairs: Pairs, *, temperature: Positive = 0.07, learn_temperature: bool = True) -> Objective:
    """Symmetric InfoNCE (CLIP); samples of one group are several positives (SupCon)."""
    from multimodal_ssl.objectives.contrastive import Scaled, info_nce

    return Scaled(pairs, info_nce, temperature=temperature, learn_temperature=learn_temperature, chance=math.log)


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


def acl(pairs: Pairs, *, temperature: Positive = 0.1, learn_temperature: bool = False) -> Objective:
    """Active complementary loss (CRCL) with the running trust of each sample: for pairs that are wrong in part."""
    from multimodal_ssl.objectives.contrastive import Scaled
    from multimodal_ssl.objectives.robust import acl

    return Scaled(pairs, acl, temperature=temperature, learn_temperature=learn_temperature, trusts=True)


def gce(pairs: Pairs, *, q: Share = 0.7, temperature: Positive = 0.07, learn_temperature: bool = True) -> Objective:
    """Generalised cross entropy: between InfoNCE (q near 0) and mean absolute error (q = 1); needs no state."""
    from multimodal_ssl.objectives.contrastive import Scaled
    from multimodal_ssl.objectives.robust import gce

    loss = functools.partial(gce, q=q)
    return Scaled(pairs, loss, temperature=temperature, learn_temperature=learn_temperature)


def rcl(
    pairs: Pairs,
    *,
    complement: Literal["log", "gce", "tan", "exp", "mae"] = "log",
    q: Share = 0.5,
    temperature: Positive = 0.05,
    learn_temperature: bool = False,
) -> Objective:
    """Complementary contrastive loss (RCL): learns from negatives alone."""
    from multimodal_ssl.objectives.contrastive import Scaled
    from multimodal_ssl.objectives.robust import rcl

    loss = functools.partial(rcl, complement=complement, q=q)
    return Scaled(pairs, loss, temperature=temperature, learn_temperature=learn_temperature)


def rince(
    pairs: Pairs,
    *,
    q: Share = 0.5,
    density: Share = 0.01,
    temperature: Positive = 0.1,
    learn_temperature: bool = False,
) -> Objective:
    """Robust InfoNCE (RINCE): q = 1 is symmetric, hence robust; density is its lambda."""
    from multimodal_ssl.objectives.contrastive import Scaled
    from multimodal_ssl.objectives.robust import rince

    sharpest = 0.01 if learn_temperature else max(temperature, 0.01)
    if q / sharpest > RINCE_LIMIT:
        raise InputError(
            f"'rince': exp(q / temperature) overflows at q {q} and temperature {sharpest}: "
            f"keep q / temperature at most {RINCE_LIMIT}; a learnt temperature may fall to 0.01"
        )
    loss = functools.partial(rince, q=q, density=density)
    return Scaled(pairs, loss, temperature=temperature, learn_temperature=learn_temperature)


def label_smoothing(
    pairs: Pairs,
    *,
    smoothing: Annotated[float, Gt(0), Lt(1)] = 0.1,
    temperature: Positive = 0.07,
    learn_temperature: bool = True,
) -> Objective:
    """InfoNCE whose targets give a share to every item of the batch."""
    from multimodal_ssl.objectives.contrastive import Scaled
    from multimodal_ssl.objectives.robust import smoothed

    loss = functools.partial(smoothed, smoothing=smoothing)
    return Scaled(pairs, loss, temperature=temperature, learn_temperature=learn_temperature, chance=math.log)


@hookimpl
def register_objectives(register: Register) -> None:
    register("acl", acl)
    register("gce", gce)
    register("info-nce", info_nce)
    register("label-smoothing", label_smoothing)
    register("rcl", rcl)
    register("rince", rince)
    register("siglip", siglip)
    register("triplet", triplet)
