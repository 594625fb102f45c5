"""The objectives of the core, registered like any plugin's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Le, Lt

from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.hookspecs import AnyObjective, Pairs, Register, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl.types import Objective

Positive = Annotated[float, Gt(0)]
Width = Annotated[int, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
INFO_NCE: Any = "info-nce"  # the catalog opens it
RINCE_LIMIT = 80  # exp(88) is the largest float32


def info_nce(pairs: Pairs, *, temperature: Positive = 0.07, learn_temperature: bool = True) -> Objective:
    """Symmetric InfoNCE (CLIP); samples of one group are several positives (SupCon)."""
    from multimodal_ssl.objectives.contrastive import Scaled, info_nce

    return Scaled(pairs, info_nce, temperature=temperature, learn_temperature=learn_temperature, chance=math.log)


def siglip(pairs: Pairs, *, scale: Positive = 10.0, bias: float | None = None) -> Objective:
    """Sigmoid loss over all pairs of the batch (SigLIP).

    Args:
        scale: of the cosines at the start; it is learnt.
        bias: added to them at the start, and learnt; none is -log of the batch. The paper has -10, for a batch of 32k.
    """
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


def anchor(pairs: Pairs, *, anchor: str, of: AnyObjective = INFO_NCE) -> Objective:
    """ImageBind's star: an objective of the pairs with the anchor alone; what else stands together teaches nothing.

    Args:
        anchor: name of the items that all others are bound to.
        of: the objective of the pairs.
    """
    from multimodal_ssl.objectives.binding import Anchor

    star = [pair for pair in pairs if anchor in pair]
    names = sorted({name for pair in pairs for name in pair})
    _check_anchor("anchor", anchor, names)
    if lost := set(names) - {name for pair in star for name in pair}:
        raise InputError(
            f"'anchor': {', '.join(sorted(lost))} stands in no source together with the anchor {anchor!r}: give such a "
            "source, or another anchor"
        )
    return Anchor(of(star), anchor)


def pairs(
    pairs: Pairs,
    *,
    of: AnyObjective = INFO_NCE,
    weights: dict[str, Positive] | None = None,
) -> Objective:
    """All pairs that stand together, each with an objective of its own, however rarely it is met counting alike.

    Args:
        of: the objective of each pair.
        weights: of pairs that are to count more or less than 1, e.g. ``{image-text: 2}``.
    """
    from multimodal_ssl.objectives.binding import Balanced

    known = {f"{a}-{b}": (a, b) for a, b in pairs} | {f"{b}-{a}": (a, b) for a, b in pairs}
    given: dict[tuple[str, str], float] = {}
    for name, weight in (weights or {}).items():
        if name not in known:
            raise InputError(f"'pairs', option weights: no source has the pair {name!r}: {nearest(name, known)}")
        if known[name] in given:
            raise InputError(f"'pairs', option weights: {name!r} is given twice, once the other way round: keep one")
        given[known[name]] = weight
    return Balanced(pairs, of, [given.get((a, b), 1.0) for a, b in pairs])


def centroid(pairs: Pairs, *, of: AnyObjective = INFO_NCE) -> Objective:
    """Each modality against the mean of the others in its sample, which is taken as it is.

    Args:
        of: the objective of a modality and that mean.
    """
    from multimodal_ssl.objectives.binding import Centroid

    return Centroid(sorted({name for pair in pairs for name in pair}), of)


def matryoshka(pairs: Pairs, *, widths: tuple[Width, ...], of: AnyObjective = INFO_NCE) -> Objective:
    """An objective of the whole vectors and of their first dimensions, so that they can be cut.

    Args:
        widths: so many first dimensions, e.g. ``[16, 32, 64]``.
        of: the objective.
    """
    from multimodal_ssl.objectives.binding import Matryoshka

    if not widths or len(set(widths)) < len(widths):
        raise InputError(f"'matryoshka', option widths: give each width once, and one at least (given: {list(widths)})")
    return Matryoshka(of(pairs), widths)


def symile(
    pairs: Pairs,
    *,
    negatives: Literal["linear", "all"] = "linear",
    temperature: Positive = 0.07,
    learn_temperature: bool = True,
) -> Objective:
    """Symile: what all modalities of a sample together tell, where no two of them tell anything.

    Args:
        negatives: ``linear`` compares each item with B tuples at random, ``all`` with every one of the batch.
    """
    from multimodal_ssl.objectives.joint import Symile

    most = len({name for pair in pairs for name in pair})
    return Symile(most, temperature=temperature, learn_temperature=learn_temperature, negatives=negatives)


def gram(pairs: Pairs, *, anchor: str, temperature: Positive = 0.07, learn_temperature: bool = True) -> Objective:
    """GRAM: the volume that all modalities of a sample span is small, against the anchor.

    Args:
        anchor: name of the items whose vectors are exchanged for negatives.
    """
    from multimodal_ssl.objectives.joint import Gram

    names = sorted({name for pair in pairs for name in pair})
    _check_anchor("gram", anchor, names)
    return Gram(anchor, len(names), temperature=temperature, learn_temperature=learn_temperature)


def distil(
    pairs: Pairs,
    *,
    teachers: dict[str, str],
    of: AnyObjective = INFO_NCE,
    share: Annotated[float, Gt(0), Le(1)] = 0.5,
    temperature: Positive = 0.01,
) -> Objective:
    """Similarities that follow those of teacher embeddings, which stand in the data (MobileCLIP), beside an objective.

    Args:
        teachers: name of items -> name of those that are its teacher's embeddings, whose encoder has ``head: teacher``.
        of: the objective beside.
        share: of the teachers in the loss.
        temperature: of the teachers.
    """
    from multimodal_ssl.objectives.teaching import Distil

    names = sorted({name for pair in pairs for name in pair})
    for name in teachers:
        if name not in names:
            raise InputError(
                f"'distil', option teachers: no source has {name!r} in a pair: {nearest(name, names)}; of pairs and of "
                "centroid it is no part: objective: {name: distil, of: {name: pairs}, ...}"
            )
    taught = [pair for pair in pairs if set(pair) <= teachers.keys()]
    if not taught:
        raise InputError("'distil', option teachers: give those of two items at least that stand together in a source")
    return Distil(of(pairs), taught, teachers, share=share, temperature=temperature)


def _check_anchor(objective: str, anchor: str, names: Sequence[str]) -> None:
    if anchor not in names:
        raise InputError(f"{objective!r}, option anchor: no source has {anchor!r}: {nearest(anchor, names)}")


@hookimpl
def register_objectives(register: Register) -> None:
    register("acl", acl)
    register("anchor", anchor)
    register("centroid", centroid)
    register("distil", distil)
    register("gce", gce)
    register("gram", gram)
    register("info-nce", info_nce)
    register("label-smoothing", label_smoothing)
    register("matryoshka", matryoshka)
    register("pairs", pairs)
    register("rcl", rcl)
    register("rince", rince)
    register("siglip", siglip)
    register("symile", symile)
    register("triplet", triplet)
