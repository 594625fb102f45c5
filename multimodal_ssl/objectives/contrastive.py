"""Contrastive losses of pairs: pure functions first, thin modules over them.

Every function takes unit vectors a, b [B, D] where a[i] was seen with b[i], ``same`` [B, B] (bool: i and j are of one
group, so the diagonal is True) and ``weight`` [B], and returns an Alignment. A sample's weight weighs its own row and
column; it never removes it as a negative of others, because a wrongly paired item is still an item.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl.types import Alignment, Objective

Mining = Literal["batch-all", "batch-hard", "semi-hard"]
MAX_SCALE = 100.0  # CLIP, section 2.5: a larger logit scale makes training unstable


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return sum_i w_i v_i / sum_i w_i of values, weight [B]; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def log_softmaxes(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [B, B] of both directions; each row is a query."""
    return logits.log_softmax(1), logits.T.log_softmax(1)


@torch.no_grad()
def own_against_negatives(rows: Tensor, columns: Tensor, same: Tensor) -> Tensor:
    """Return the agreement [B]: the probability of the own partner against the negatives, the lower of both directions.

    The lower tells mismatches sooner in training than the mean. Other positives are left out, for a wrong partner among
    right ones of its group would pass for right.
    """
    odds = [one.diagonal() - one.masked_fill(same, -torch.inf).logsumexp(1) for one in (rows, columns)]
    return torch.minimum(odds[0], odds[1]).sigmoid()


def info_nce(a: Tensor, b: Tensor, scale: Tensor, same: Tensor, weight: Tensor) -> Alignment:
    """Return the symmetric InfoNCE loss (CLIP, Radford et al. 2021, fig. 3).

    With groups a row has several positives and its loss is the mean over them (SupCon, Khosla et al. 2020, eq. 2).
    """
    rows, columns = log_softmaxes(scale * a @ b.T)
    share = same / same.sum(1, keepdim=True)
    loss = -((rows * share).sum(1) + (columns * share).sum(1)) / 2
    return Alignment(weighted_mean(loss, weight), own_against_negatives(rows, columns, same))


def siglip(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, same: Tensor, weight: Tensor) -> Alignment:
    """Return the sigmoid loss (SigLIP, Zhai et al. 2023, eq. 1), every pair of one group being a positive."""
    logits = scale * a @ b.T + bias
    pair = -F.logsigmoid(torch.where(same, logits, -logits))  # [B, B]
    return Alignment(weighted_mean((pair.sum(1) + pair.sum(0)) / 2, weight), logits.detach().diagonal().sigmoid())


def triplet(
    a: Tensor,
    b: Tensor,
    margin: float,
    mining: Mining,
    same: Tensor,
    weight: Tensor,
) -> Alignment:
    """Return the triplet loss on squared distances, anchors from both sides (FaceNet, Schroff et al. 2015, eq. 3).

    batch-all: mean over the triplets with a loss above 0; batch-hard: the farthest positive and the nearest negative
    (both Hermans et al. 2017, section 2). semi-hard: for each positive the nearest negative beyond it, or the farthest
    negative where there is none beyond. Agreement is the share of negatives that are farther than the partner.
    """
    distance = 2 - 2 * a @ b.T  # |a - b|^2 of unit vectors
    loss = (_triplet(distance, margin, mining, same, weight) + _triplet(distance.T, margin, mining, same, weight)) / 2
    with torch.no_grad():
        partner, negative = distance.diagonal(), (~same).to(distance.dtype)
        farther = ((distance > partner[:, None]) * negative).sum(1) + ((distance > partner) * negative).sum(0)
        negatives = 2 * negative.sum(1)
        agreement = torch.where(negatives > 0, farther / negatives.clamp(min=1), 1.0)
    return Alignment(loss, agreement)


def _triplet(distance: Tensor, margin: float, mining: Mining, same: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of one direction: rows of distance [B, B] are anchors."""
    if mining == "batch-hard":
        positive = distance.masked_fill(~same, -math.inf).amax(1)
        negative = distance.masked_fill(same, math.inf).amin(1)
        return weighted_mean(F.relu(positive - negative + margin), weight)
    anchor, partner = same.nonzero(as_tuple=True)  # P positive pairs
    positive = distance[anchor, partner].unsqueeze(1)  # [P, 1]
    negative, is_negative = distance[anchor], ~same[anchor]  # [P, B]
    if mining == "batch-all":
        each = F.relu(positive - negative + margin) * is_negative
        active = (each > 0).sum(1)
        return weighted_mean(each.sum(1) / active.clamp(min=1), weight[anchor] * active)
    beyond = is_negative & (negative > positive)
    nearest_beyond = negative.masked_fill(~beyond, math.inf).amin(1)
    farthest = negative.masked_fill(~is_negative, -math.inf).amax(1)
    chosen = torch.where(beyond.any(1), nearest_beyond, farthest)
    chosen = torch.where(is_negative.any(1), chosen, math.inf)  # a batch of one group asks for nothing
    return weighted_mean(F.relu(positive.squeeze(1) - chosen + margin), weight[anchor])


def bounded_scale(log_scale: Tensor) -> Tensor:
    """Return the scale, at most MAX_SCALE, with the gradient of the unbounded one: it can learn to come down again."""
    scale = log_scale.exp()
    return scale + (scale.clamp(max=MAX_SCALE) - scale).detach()


class Pairwise(Objective):
    """An Objective that is the mean over those of its pairs of modalities that the batch holds."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)

    @abstractmethod
    def align(self, pair: str, a: Tensor, b: Tensor, same: Tensor, weight: Tensor) -> Alignment:
        """Compare the views a, b [B, D] of one pair, named "first-second"."""

    def terms(self, names: Collection[str]) -> int:
        return sum(first in names and second in names for first, second in self.pairs)

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        same = group[:, None] == group[None, :]
        found = [
            self.align(f"{first}-{second}", views[first], views[second], same, weight)
            for first, second in self.pairs
            if first in views and second in views
        ]
        loss = torch.stack([one.loss for one in found]).mean()
        return Alignment(loss, torch.stack([one.agreement for one in found]).mean(0))

    def per_pair(self, value: float) -> nn.ParameterDict:
        """Return one learnable scalar a pair."""
        return nn.ParameterDict({f"{a}-{b}": nn.Parameter(torch.tensor(value)) for a, b in self.pairs})


class Scaled(Pairwise):
    """A loss of scaled cosines with one temperature a pair, learnt in log space and clamped as CLIP does.

    Args:
        loss: of a, b [B, D], scale, same [B, B] and weight [B].
        chance: batch -> its value where nothing is learnt.
        trusts: whether the running trust of a sample should be its weight.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        loss: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Alignment],
        *,
        temperature: float,
        learn_temperature: bool,
        chance: Callable[[int], float] | None = None,
        trusts: bool = False,
    ) -> None:
        super().__init__(pairs)
        self.loss, self.chance, self.trusts = loss, chance, trusts
        self.log_scale = self.per_pair(-math.log(temperature)).requires_grad_(learn_temperature)

    def align(self, pair: str, a: Tensor, b: Tensor, same: Tensor, weight: Tensor) -> Alignment:
        return self.loss(a, b, bounded_scale(self.log_scale[pair]), same, weight)

    def loss_at_chance(self, batch: int) -> float | None:
        return self.chance(batch) if self.chance else None


class SigLIP(Pairwise):
    """``siglip`` with one scale and bias a pair, which starts low because most pairs are negatives (section 3.2).

    Args:
        bias: None starts at -log of the batch, where each pair is as likely to be a positive as it is.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, scale: float, bias: float | None) -> None:
        super().__init__(pairs)
        self.log_scale = self.per_pair(math.log(scale))
        self.relative = bias is None
        self.bias = self.per_pair(0.0 if bias is None else bias)

    def align(self, pair: str, a: Tensor, b: Tensor, same: Tensor, weight: Tensor) -> Alignment:
        bias = self.bias[pair] - (math.log(len(a)) if self.relative else 0)
        return siglip(a, b, bounded_scale(self.log_scale[pair]), bias, same, weight)

    def loss_at_chance(self, batch: int) -> float:
        return math.log(batch) - (batch - 1) * math.log1p(-1 / batch)  # every pair at the share of positives, 1 / B


class Triplet(Pairwise):
    """``triplet`` of every pair."""

    def __init__(self, pairs: Sequence[tuple[str, str]], *, margin: float, mining: Mining) -> None:
        super().__init__(pairs)
        self.margin, self.mining = margin, mining

    def align(self, pair: str, a: Tensor, b: Tensor, same: Tensor, weight: Tensor) -> Alignment:
        return triplet(a, b, self.margin, self.mining, same, weight)

    def loss_at_chance(self, batch: int) -> float:
        return self.margin  # mining drives views without a clue to one point
