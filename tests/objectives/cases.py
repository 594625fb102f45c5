"""Every loss of the core, and the loops in float64 that it must equal, written from the papers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Alignment, Catalog, Objective, objectives
from multimodal_ssl.objectives.contrastive import Mining, info_nce, siglip, triplet
from multimodal_ssl.objectives.robust import acl, gce, rcl, rince, smoothed

SCALE, BIAS, MARGIN = 5.0, -2.0, 0.3
GCE_Q, RCL_Q, RINCE_Q, DENSITY, SMOOTHING = 0.7, 0.5, 0.4, 0.2, 0.3
GROUPS = {"alone": (0, 1, 2, 3, 4, 5, 6, 7), "grouped": (0, 1, 2, 0, 3, 1, 0, 4)}
WEIGHTS = {
    "equal": (1.0,) * 8,
    "weighted": (0.2, 1.0, 0.7, 0.5, 0.9, 0.3, 1.0, 0.6),
    "doubted": (0.0, 1.0, 0.7, 0.0, 0.9, 0.3, 1.0, 0.0),
}


class Batch(NamedTuple):
    """What every loss takes; scale and bias are scalars."""

    a: Tensor
    b: Tensor
    scale: Tensor
    bias: Tensor
    group: Tensor
    weight: Tensor

    @property
    def same(self) -> Tensor:
        return self.group[:, None] == self.group[None, :]


class Case(NamedTuple):
    """A loss and the loop that it must equal."""

    tested: Callable[[Batch], Alignment]
    reference: Callable[[Batch], Alignment]


class Query(NamedTuple):
    """One item of a sample against every item of the other side."""

    sample: int
    powers: list[Tensor]  # exp(s / tau)
    p: list[Tensor]  # their softmax
    positives: list[int]
    negatives: list[int]


def batch_of(generator: torch.Generator, groups: str = "alone", weights: str = "equal") -> Batch:
    """Return 8 pairs of unit vectors in float64: 7 resemble each other, and one is opposed, so nothing is beyond it."""
    raw_a, noise = (torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    raw_b = raw_a + noise
    raw_b[2] = 0.1 * noise[2] - raw_a[2]
    return Batch(
        F.normalize(raw_a, dim=1),
        F.normalize(raw_b, dim=1),
        torch.tensor(SCALE, dtype=torch.float64),
        torch.tensor(BIAS, dtype=torch.float64),
        torch.tensor(GROUPS[groups]),
        torch.tensor(WEIGHTS[weights], dtype=torch.float64),
    )


def collapsed(batch: Batch) -> Batch:
    """Return the batch with all items of a side in one place."""
    return batch._replace(a=batch.a[:1].expand(8, -1), b=batch.b[:1].expand(8, -1))


def pull(name: str, similarity: Tensor, group: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the loss by the table a @ b.T [B, B]; below 0 where it draws a pair together."""
    table = similarity.clone().requires_grad_()
    eye = torch.eye(len(table), dtype=table.dtype)  # a @ eye.T = a, so that any table can be given
    one = Batch(table, eye, torch.tensor(SCALE).double(), torch.tensor(BIAS).double(), group, weight)
    return torch.autograd.grad(CASES[name].tested(one).loss, table)[0]


# The loops


def queries(batch: Batch) -> Iterator[Query]:
    """Yield the queries of both directions."""
    group = batch.group.tolist()
    for anchors, others in ((batch.a, batch.b), (batch.b, batch.a)):
        for i, anchor in enumerate(anchors):
            powers = [torch.exp(batch.scale * torch.dot(anchor, other)) for other in others]
            total = sum(powers)
            positives = [j for j, other in enumerate(group) if other == group[i]]
            negatives = [j for j, other in enumerate(group) if other != group[i]]
            yield Query(i, powers, [power / total for power in powers], positives, negatives)


def weighted(losses: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the weighted mean of (weight, loss)."""
    total = sum((weight * loss for weight, loss in losses), torch.zeros((), dtype=torch.float64))
    return total / sum(weight for weight, _ in losses)


def agreement_by_loop(batch: Batch) -> Tensor:
    """The own partner against the negatives alone, the lower of both directions."""
    agreement = torch.ones(len(batch.a), dtype=torch.float64)
    for query in queries(batch):
        own = query.powers[query.sample].detach()
        share = own / (own + sum(query.powers[j].detach() for j in query.negatives))
        agreement[query.sample] = min(agreement[query.sample], share)
    return agreement


def by_query(loss: Callable[[Query], Tensor]) -> Callable[[Batch], Alignment]:
    """Return the loop whose loss is the weighted mean of that of the queries."""

    def reference(batch: Batch) -> Alignment:
        losses = [(batch.weight[query.sample], loss(query)) for query in queries(batch)]
        return Alignment(weighted(losses), agreement_by_loop(batch))

    return reference


def info_nce_of(query: Query) -> Tensor:
    """CLIP, fig. 3, with the mean over several positives outside the logarithm (SupCon, eq. 2)."""
    return sum(-torch.log(query.p[j]) for j in query.positives) / len(query.positives)


def smoothed_of(query: Query) -> Tensor:
    """Cross entropy against targets that are shared by the positives and, a part of them, by all (Szegedy, eq. 12)."""
    loss = torch.zeros(())
    for j, p in enumerate(query.p):
        target = SMOOTHING / len(query.p) + (1 - SMOOTHING) * (j in query.positives) / len(query.positives)
        loss = loss - target * torch.log(p)
    return loss


def gce_of(query: Query) -> Tensor:
    """Zhang and Sabuncu 2018, eq. 6, of the probability of all positives."""
    return (1 - sum(query.p[j] for j in query.positives) ** GCE_Q) / GCE_Q


def rince_of(query: Query) -> Tensor:
    """Chuang et al. 2022, eq. 6."""
    positive, negative = (sum(query.powers[j] for j in some) for some in (query.positives, query.negatives))
    return -(positive**RINCE_Q) / RINCE_Q + (DENSITY * (positive + negative)) ** RINCE_Q / RINCE_Q


COMPLEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda p: -torch.log(1 - p),
    "gce": lambda p: (1 - (1 - p) ** RCL_Q) / RCL_Q,
    "tan": lambda p: torch.sin(p) / torch.cos(p),
    "exp": lambda p: torch.exp(-(1 - p)),
    "mae": lambda p: p,
}


def rcl_of(complement: str) -> Callable[[Query], Tensor]:
    """Hu et al. 2023: nothing but the negatives."""
    return lambda query: sum(COMPLEMENTS[complement](query.p[j]) for j in query.negatives)


def acl_by_loop(batch: Batch) -> Alignment:
    """Qin et al. 2023: directions are added, the weight is y, and the mean is over all samples."""
    total = torch.zeros((), dtype=torch.float64)
    for query in queries(batch):
        y, tangents = batch.weight[query.sample], [torch.tan(p) for p in query.p]
        complementary = sum(tangents[j] for j in query.negatives) / sum(tangents) ** (1 - y)
        total = total + y * info_nce_of(query) + 5 * complementary
    return Alignment(total / len(batch.a), agreement_by_loop(batch))


def siglip_by_loop(batch: Batch) -> Alignment:
    """SigLIP, eq. 1: every cell of the table belongs half to its row's sample and half to its column's."""
    losses, agreement = [], []
    for i in range(len(batch.a)):
        for j in range(len(batch.b)):
            z = 1 if batch.group[i] == batch.group[j] else -1
            logit = batch.scale * torch.dot(batch.a[i], batch.b[j]) + batch.bias
            cell = -torch.log(1 / (1 + torch.exp(-z * logit)))
            losses += [(batch.weight[i] / 2, cell), (batch.weight[j] / 2, cell)]
            if i == j:
                agreement.append(1 / (1 + torch.exp(-logit)))
    return Alignment(weighted(losses) * len(batch.b), torch.stack(agreement).detach())


def triplet_by_loop(batch: Batch, mining: Mining) -> Alignment:
    """FaceNet, eq. 3, and Hermans et al. 2017 over every triplet of an anchor, a positive and a negative."""
    size, group = len(batch.a), batch.group.tolist()
    directions, farther = [], [0] * size
    for anchors, others in ((batch.a, batch.b), (batch.b, batch.a)):
        distance = [[((anchor - other) ** 2).sum() for other in others] for anchor in anchors]
        losses = []
        for i in range(size):
            positives = [distance[i][j] for j in range(size) if group[j] == group[i]]
            negatives = [distance[i][j] for j in range(size) if group[j] != group[i]]
            farther[i] += sum(bool(negative > distance[i][i]) for negative in negatives)
            if mining == "batch-hard":
                chosen = [max(positives) - min(negatives)]
            elif mining == "batch-all":
                differences = [positive - negative for positive in positives for negative in negatives]
                chosen = [one for one in differences if one + MARGIN > 0]
            else:
                chosen = []
                for positive in positives:
                    beyond = [negative for negative in negatives if negative > positive]
                    chosen.append(positive - (min(beyond) if beyond else max(negatives)))
            losses += [(batch.weight[i], torch.relu(one + MARGIN)) for one in chosen]
        directions.append(weighted(losses))
    num_negatives = [2 * sum(other != one for other in group) for one in group]
    agreement = torch.tensor([n / of for n, of in zip(farther, num_negatives, strict=True)], dtype=torch.float64)
    return Alignment(sum(directions) / 2, agreement)


# The table


def scaled(loss: Callable[..., Alignment]) -> Callable[[Batch], Alignment]:
    """Return a loss of scaled cosines as one of a batch."""
    return lambda one: loss(one.a, one.b, one.scale, one.same, one.weight)


def mined(mining: Mining) -> Case:
    """Return the triplet loss of one mining."""
    return Case(
        lambda one: triplet(one.a, one.b, MARGIN, mining, one.same, one.weight),
        lambda one: triplet_by_loop(one, mining),
    )


TRIPLETS: tuple[Mining, ...] = ("batch-all", "batch-hard", "semi-hard")
SCALED = {  # losses of a softmax: a, b and the scale
    "acl": Case(scaled(acl), acl_by_loop),
    "gce": Case(scaled(functools.partial(gce, q=GCE_Q)), by_query(gce_of)),
    "info-nce": Case(scaled(info_nce), by_query(info_nce_of)),
    "label-smoothing": Case(scaled(functools.partial(smoothed, smoothing=SMOOTHING)), by_query(smoothed_of)),
    "rince": Case(scaled(functools.partial(rince, q=RINCE_Q, density=DENSITY)), by_query(rince_of)),
} | {
    f"rcl-{name}": Case(scaled(functools.partial(rcl, complement=name, q=RCL_Q)), by_query(rcl_of(name)))
    for name in COMPLEMENTS
}
CASES = (
    SCALED
    | {"siglip": Case(lambda one: siglip(one.a, one.b, one.scale, one.bias, one.same, one.weight), siglip_by_loop)}
    | {mining: mined(mining) for mining in TRIPLETS}
)

CATALOG = Catalog.of(objectives=objectives)
# Those of many modalities and those made of others have tests of their own (test_joint.py, test_binding.py).
BINDING = {"anchor", "centroid", "distil", "gram", "matryoshka", "pairs", "symile"}
LOSSES = [name for name in CATALOG.names("objectives") if name not in BINDING]
VARIANTS = (
    [pytest.param(name, {}, id=name) for name in LOSSES]
    + [pytest.param("rcl", {"complement": name}, id=f"rcl-{name}") for name in COMPLEMENTS if name != "log"]
    + [pytest.param("triplet", {"mining": name}, id=name) for name in TRIPLETS if name != "semi-hard"]
)


def create(name: str, pairs: list[tuple[str, str]] | None = None, **options: object) -> Objective:
    """Return a registered objective, of the pair a-b if not told."""
    return CATALOG.create("objectives", name, pairs or [("a", "b")], options=options)


every_case = pytest.mark.parametrize("name", CASES)
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS)  # every objective and every kind of it
every_batch = pytest.mark.parametrize(
    ("groups", "weights"), [(groups, weights) for groups in GROUPS for weights in WEIGHTS]
)
