"""Losses of whole tuples of views: what no pair of them tells, all of them together may.

Every function takes unit vectors [B, D], one tensor a modality, whose i-th rows were seen together; the conventions are
those of contrastive.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from multimodal_ssl.errors import InputError
from multimodal_ssl.objectives.contrastive import (
    bounded_scale,
    log_softmaxes,
    own_against_negatives,
    weighted_mean,
)
from multimodal_ssl.types import Alignment, Objective

Negatives = Literal["linear", "all"]
MOST = 2**28  # logits of all combinations, a gigabyte
FLAT = 1e-6  # squared volume; below it all are alike, since the root has no finite slope at 0


def mip(views: Sequence[Tensor]) -> Tensor:
    """Return the multilinear inner products sum_d a_d b_d c_d ... of rows [B, D], [B] (Symile, eq. 3).

    They are scaled by D^((k - 2) / 2) for k views, so that those of random unit vectors are as large as cosines.
    """
    return functools.reduce(torch.mul, views).sum(-1) * _unit(views)


def symile(
    views: Sequence[Tensor], scale: Tensor, orders: Sequence[Tensor] | None, group: Tensor, weight: Tensor
) -> Alignment:
    """Return the loss of Symile (Saporta et al. 2024, eq. 5): each modality in turn finds its tuple among others.

    Args:
        orders: one permutation [B] a view, by which the tuples of the negatives are made: i-th rows after each of the
            others' own; None takes all B^(k - 1) tuples.
    """
    losses, agreements = [], []
    for place, anchor in enumerate(views):
        others = [one for at, one in enumerate(views) if at != place]
        if orders is None:
            logits, same, own = _all_tuples(anchor, others, group)
        else:
            logits, same, own = _shuffled(anchor, others, [one for at, one in enumerate(orders) if at != place], group)
        logits = scale * logits * _unit(views)
        rows = torch.arange(len(anchor), device=anchor.device)
        positive, rest = logits[rows, own], logits.masked_fill(same, -torch.inf)
        losses.append(-torch.log_softmax(torch.cat([positive[:, None], rest], 1), 1)[:, 0])
        agreements.append((positive - rest.logsumexp(1)).detach().sigmoid())
    return Alignment(weighted_mean(torch.stack(losses).mean(0), weight), torch.stack(agreements).amin(0))


def _unit(views: Sequence[Tensor]) -> float:
    return float(views[0].shape[-1] ** ((len(views) - 2) / 2))


def _shuffled(
    anchor: Tensor, others: Sequence[Tensor], orders: Sequence[Tensor], group: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits [B, B], which of them are no negatives, and the column of each row's own tuple."""
    own = torch.arange(len(anchor), device=anchor.device)
    product = functools.reduce(torch.mul, [one[order] for one, order in zip(others, orders, strict=True)])
    logits = anchor @ product.T
    whole = functools.reduce(torch.mul, others)
    same = torch.stack([group[:, None] == group[order][None] for order in orders]).all(0)
    diagonal = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    logits = torch.where(diagonal, (anchor * whole).sum(1)[:, None], logits)
    return logits, same | diagonal, own


def _all_tuples(anchor: Tensor, others: Sequence[Tensor], group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same of all tuples, [B, B^(k - 1)]."""
    size = len(anchor)
    if size ** (len(others) + 1) > MOST:
        raise InputError(
            f"'symile', option negatives: all tuples of {len(others) + 1} modalities in a batch of {size} are "
            f"{size ** (len(others) + 1):,}: lower train.batch, or set negatives: linear"
        )
    product, same = others[0], group[:, None] == group[None]
    for one in others[1:]:
        product = (product[:, None] * one[None]).flatten(0, 1)
        same = (same[:, :, None] & (group[:, None] == group[None])[:, None, :]).flatten(1)
    step = sum(size**power for power in range(len(others)))
    return anchor @ product.T, same, torch.arange(size, device=anchor.device) * step


class Symile(Objective):
    """``symile`` of all modalities in the batch, one temperature for each number of them.

    Args:
        most: the largest number of modalities in a batch.
    """

    def __init__(self, most: int, *, temperature: float, learn_temperature: bool, negatives: Negatives) -> None:
        super().__init__()
        self.negatives = negatives
        scale = torch.tensor(-math.log(temperature))
        self.log_scale = nn.ParameterDict({str(k): nn.Parameter(scale.clone()) for k in range(2, most + 1)})
        self.log_scale.requires_grad_(learn_temperature)

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        orders = None
        if self.negatives == "linear" and len(views) > 2:  # of two, all tuples are no more
            # Drawn by the batch itself, whatever its order: so any number of processes draws the same.
            generator = torch.Generator().manual_seed(int(group.sum()) % 2**63)
            rank = group.argsort(stable=True)
            orders = []
            for _ in views:
                order = torch.empty_like(rank)
                order[rank] = rank[torch.randperm(len(group), generator=generator).to(group.device)]
                orders.append(order)
        return symile(list(views.values()), bounded_scale(self.log_scale[str(len(views))]), orders, group, weight)

    def loss_at_chance(self, batch: int) -> float | None:
        return math.log(batch) if self.negatives == "linear" else None


def volume(anchor: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return the volume of the parallelotope of each anchor with each tuple of others, [B, B'].

    It is the root of the determinant of their Gram matrix (GRAM, Cicchetti et al. 2025, eq. 2), here a polynomial in
    its entries, which has a slope also where vectors are parallel. Volumes below 1e-3 count as that.
    """
    among = [[(a * b).sum(1)[None] for b in others] for a in others]  # [1, B']
    first = [(anchor * anchor).sum(1)[:, None], *(anchor @ one.T for one in others)]
    gram = [first, *([first[at + 1], *row] for at, row in enumerate(among))]
    return _determinant(gram).abs().clamp(min=FLAT).sqrt()


def _determinant(matrix: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the determinant by the expansion along the first row."""
    if len(matrix) == 1:
        return matrix[0][0]
    terms = [
        (-1) ** at * entry * _determinant([[*row[:at], *row[at + 1 :]] for row in matrix[1:]])
        for at, entry in enumerate(matrix[0])
    ]
    return functools.reduce(torch.add, terms)


def gram(anchor: Tensor, others: Sequence[Tensor], scale: Tensor, same: Tensor, weight: Tensor) -> Alignment:
    """Return InfoNCE of negative volumes, the anchor finding its tuple and the tuple its anchor (GRAM, eq. 4 and 5)."""
    rows, columns = log_softmaxes(-scale * volume(anchor, others))
    share = same / same.sum(1, keepdim=True)
    loss = -((rows * share).sum(1) + (columns * share).sum(1)) / 2
    return Alignment(weighted_mean(loss, weight), own_against_negatives(rows, columns, same))


class Gram(Objective):
    """``gram`` of all modalities in the batch, against the anchor; one temperature for each number of them."""

    def __init__(self, anchor: str, most: int, *, temperature: float, learn_temperature: bool) -> None:
        super().__init__()
        self.anchor = anchor
        scale = torch.tensor(-math.log(temperature))
        self.log_scale = nn.ParameterDict({str(k): nn.Parameter(scale.clone()) for k in range(2, most + 1)})
        self.log_scale.requires_grad_(learn_temperature)

    def terms(self, names: Collection[str]) -> int:
        return int(self.anchor in names and len(names) >= 2)

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        others = [view for name, view in views.items() if name != self.anchor]
        scale = bounded_scale(self.log_scale[str(len(views))])
        return gram(views[self.anchor], others, scale, group[:, None] == group[None], weight)

    def loss_at_chance(self, batch: int) -> float:
        return math.log(batch)
