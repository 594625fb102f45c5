"""Losses for pairs that are wrong in part. Arguments and conventions are those of contrastive.py.

P is the softmax of scaled cosines over rows, and over columns. Where a formula has the probability of the partner,
here stands that of all positives of the row; where it has all others, here stand the negatives alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from multimodal_ssl.objectives.contrastive import info_nce, log_softmaxes, own_against_negatives, weighted_mean
from multimodal_ssl.types import Alignment

Complement = Literal["log", "gce", "tan", "exp", "mae"]
COMPLEMENT = 5.0  # CRCL's weight of the complementary part against the active one


def gce(a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor, *, q: float) -> Alignment:
    """Return the generalised cross entropy (1 - P^q) / q (Zhang and Sabuncu 2018, eq. 6) of both directions."""
    rows, columns = log_softmaxes(scale * a @ b.T)
    losses = [-torch.expm1(q * one.masked_fill(~same, -torch.inf).logsumexp(1)) / q for one in (rows, columns)]
    return Alignment(weighted_mean((losses[0] + losses[1]) / 2, weight), own_against_negatives(rows, columns, same))


def rince(a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor, *, q: float, density: float) -> Alignment:
    """Return RINCE (Chuang et al. 2022, eq. 6): q -> 0 is InfoNCE, q = 1 is symmetric; density is its lambda."""
    logits = scale * a @ b.T
    losses = []
    for one in (logits, logits.T):
        positive, everything = one.masked_fill(~same, -torch.inf).logsumexp(1), one.logsumexp(1)
        losses.append((((everything + math.log(density)) * q).exp() - (positive * q).exp()) / q)
    agreement = own_against_negatives(*log_softmaxes(logits), same)
    return Alignment(weighted_mean((losses[0] + losses[1]) / 2, weight), agreement)


def rcl(
    a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor, *, complement: Complement, q: float
) -> Alignment:
    """Return the complementary contrastive loss, sum over negatives of f(P_ij) (RCL, Hu et al. 2023, section 3.2)."""
    rows, columns = log_softmaxes(scale * a @ b.T)
    losses = [_complement(one, complement, q).masked_fill(same, 0).sum(1) for one in (rows, columns)]
    return Alignment(weighted_mean((losses[0] + losses[1]) / 2, weight), own_against_negatives(rows, columns, same))


def acl(a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor) -> Alignment:
    """Return the active complementary loss (CRCL, Qin et al. 2023, section 3.2).

    ``weight`` is the correspondence y: 1 learns from the pair as InfoNCE does, 0 from the negatives alone, by which a
    wrong pair can't mislead much. The mean is over all samples, also those of weight 0.
    """
    rows, columns = log_softmaxes(scale * a @ b.T)
    loss = torch.zeros_like(weight)
    share = same / same.sum(1, keepdim=True)
    for one in (rows, columns):
        bounded = one.exp().tan()
        negatives = bounded.masked_fill(same, 0).sum(1)
        loss = loss - weight * (one * share).sum(1) + COMPLEMENT * negatives / bounded.sum(1) ** (1 - weight)
    return Alignment(loss.mean(), own_against_negatives(rows, columns, same))


def smoothed(a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor, *, smoothing: float) -> Alignment:
    """Return InfoNCE whose targets give a share to all items alike (label smoothing, Szegedy et al. 2016, eq. 12)."""
    rows, columns = log_softmaxes(scale * a @ b.T)
    uniform = weighted_mean(-(rows.mean(1) + columns.mean(1)) / 2, weight)
    loss, agreement = info_nce(a, b, scale, same, weight)
    return Alignment((1 - smoothing) * loss + smoothing * uniform, agreement)


def _complement(log_p: Tensor, complement: Complement, q: float) -> Tensor:
    p = log_p.exp()
    if complement == "log":
        return -torch.log1p(-p.clamp(max=1 - 1e-6))  # a float32 can't tell more; there the gradient is 0
    if complement == "gce":
        return (1 - (1 - p).clamp(min=1e-10) ** q) / q
    if complement == "tan":
        return p.tan()
    return (p - 1).exp() if complement == "exp" else p
