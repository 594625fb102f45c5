"""Objectives of many modalities that are made of an objective of two, or of one of fewer dimensions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl.errors import InputError
from multimodal_ssl.hookspecs import Pairs
from multimodal_ssl.types import Alignment, Objective

OTHERS = "(others)"  # the name of the centroid, which no items can have


def _first(parts: nn.ModuleDict, name: str) -> Objective:
    """Return the first of the objectives of an objective; raise InputError if they have teachers."""
    first = next(iter(parts.values()))
    assert isinstance(first, Objective), "nn.ModuleDict forgets the type"
    if first.taught_by:
        raise InputError(
            f"{name!r} has no teachers: turn it round, objective: {{name: distil, of: {{name: {name}}}, ...}}"
        )
    return first


class Anchor(Objective):
    """An objective of those pairs alone that hold the anchor: a star (ImageBind, Girdhar et al. 2023, section 3.2)."""

    def __init__(self, inner: Objective, anchor: str) -> None:
        super().__init__()
        self.inner, self.anchor = inner, anchor
        self.trusts, self.wants_groups, self.taught_by = inner.trusts, inner.wants_groups, inner.taught_by

    def terms(self, names: Collection[str]) -> int:
        return self.inner.terms(names) if self.anchor in names else 0

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        return self.inner(views, weight, group)

    def loss_at_chance(self, batch: int) -> float | None:
        return self.inner.loss_at_chance(batch)


class Balanced(Objective):
    """The weighted mean over all pairs that are present, each with an objective of its own.

    A pair counts by its weight alone, however often it is met: one that stands in a tenth of the batches counts there
    ten times as much.

    Args:
        weights: of the pairs, in their order.
    """

    met: Tensor  # [P], batches with each pair
    batches: Tensor

    def __init__(self, pairs: Pairs, make: Callable[[Pairs], Objective], weights: Sequence[float]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.parts = nn.ModuleDict({f"{a}-{b}": make([(a, b)]) for a, b in pairs})
        first = _first(self.parts, "pairs")
        self.trusts, self.wants_groups, self.chance = first.trusts, first.wants_groups, first.loss_at_chance
        self.weights = torch.tensor(weights) / (sum(weights) / len(weights))
        self.register_buffer("met", torch.zeros(len(pairs), dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.float64))

    def terms(self, names: Collection[str]) -> int:
        return int(any(a in names and b in names for a, b in self.pairs))  # it weighs them itself

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        present = [place for place, (a, b) in enumerate(self.pairs) if a in views and b in views]
        if self.training:
            self.met[present] += 1
            self.batches += 1
        found = []
        for place in present:
            a, b = self.pairs[place]
            found.append(self.parts[f"{a}-{b}"]({a: views[a], b: views[b]}, weight, group))
        often = (self.met[present] / self.batches.clamp(min=1)).clamp(min=1e-9)
        factor = self.weights.to(often)[present] / often / len(self.pairs)
        loss = (torch.stack([one.loss for one in found]) * factor.to(found[0].loss)).sum()
        return Alignment(loss, torch.stack([one.agreement for one in found]).mean(0))

    def loss_at_chance(self, batch: int) -> float | None:
        return self.chance(batch)


class Centroid(Objective):
    """Each modality against the mean of the others in its sample, which learns nothing from it: fusion as teacher."""

    def __init__(self, names: Sequence[str], make: Callable[[Pairs], Objective]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: make([(name, OTHERS)]) for name in names})
        first = _first(self.parts, "centroid")
        self.trusts, self.wants_groups, self.chance = first.trusts, first.wants_groups, first.loss_at_chance

    def terms(self, names: Collection[str]) -> int:
        return len(names) if len(names) >= 2 else 0

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        total = torch.stack(list(views.values())).sum(0)
        found = [
            self.parts[name]({name: view, OTHERS: F.normalize(total - view, dim=-1).detach()}, weight, group)
            for name, view in views.items()
        ]
        loss = torch.stack([one.loss for one in found]).mean()
        return Alignment(loss, torch.stack([one.agreement for one in found]).mean(0))

    def loss_at_chance(self, batch: int) -> float | None:
        return self.chance(batch)


class Matryoshka(Objective):
    """The mean of an objective over the whole views and their first dimensions (Kusupati et al. 2022, eq. 1, c = 1).

    Teachers' embeddings stay whole.

    Args:
        widths: so many first dimensions, each a unit vector of its own.
    """

    def __init__(self, inner: Objective, widths: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.widths = inner, tuple(widths)
        self.trusts, self.wants_groups, self.taught_by = inner.trusts, inner.wants_groups, inner.taught_by

    def terms(self, names: Collection[str]) -> int:
        return self.inner.terms(names)

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        whole: Alignment = self.inner(views, weight, group)
        losses = [whole.loss]
        learning = {name: view for name, view in views.items() if name not in self.taught_by}
        for width in self.widths:
            if width >= (dim := next(iter(learning.values())).shape[1]):
                raise InputError(
                    f"'matryoshka', option widths: {width} of binder.dim={dim} is no part: give smaller ones"
                )
            first = {name: F.normalize(view[:, :width], dim=-1) for name, view in learning.items()}
            losses.append(self.inner({**views, **first}, weight, group).loss)
        return Alignment(torch.stack(losses).mean(), whole.agreement)

    def loss_at_chance(self, batch: int) -> float | None:
        return self.inner.loss_at_chance(batch)
