"""Teacher embeddings as columns of the data: the student's similarities follow the teacher's."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl.hookspecs import Pairs
from multimodal_ssl.objectives.contrastive import bounded_scale, weighted_mean
from multimodal_ssl.types import Alignment, Objective


def distil(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return KL(teacher || student) of scaled similarities [B, B], the mean of both directions.

    MobileCLIP, Vasu et al. 2024, eq. 3.
    """
    parts = [
        F.kl_div(mine.log_softmax(1), theirs.log_softmax(1), reduction="none", log_target=True).sum(1)
        for mine, theirs in ((student, teacher), (student.T, teacher.T))
    ]
    return weighted_mean((parts[0] + parts[1]) / 2, weight)


class Distil(Objective):
    """An objective mixed with ``distil`` of the pairs of which both have a teacher in the batch.

    Args:
        pairs: of items that have teachers.
        teachers: name of items -> name of those that are its teacher's embeddings.
        share: of ``distil`` in the loss (lambda of MobileCLIP).
        temperature: of the teacher; the student's is learnt from it on.
    """

    def __init__(
        self, inner: Objective, pairs: Pairs, teachers: Mapping[str, str], *, share: float, temperature: float
    ) -> None:
        super().__init__()
        self.inner, self.pairs, self.teachers = inner, tuple(pairs), dict(teachers)
        self.taught_by = tuple(teachers.values())
        self.share, self.sharpness = share, 1 / temperature
        start = torch.tensor(-math.log(temperature))
        self.log_scale = nn.ParameterDict({f"{a}-{b}": nn.Parameter(start.clone()) for a, b in pairs})
        self.trusts, self.wants_groups = inner.trusts, inner.wants_groups

    def terms(self, names: Collection[str]) -> int:
        return self.inner.terms([name for name in names if name not in self.teachers.values()])

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        taught = {name: view for name, view in views.items() if name not in self.teachers.values()}
        loss, agreement = self.inner(taught, weight, group)
        parts = []
        for a, b in self.pairs:
            if {a, b, self.teachers[a], self.teachers[b]} <= views.keys():
                teacher = self.sharpness * views[self.teachers[a]] @ views[self.teachers[b]].T
                scale = bounded_scale(self.log_scale[f"{a}-{b}"])
                parts.append(distil(scale * views[a] @ views[b].T, teacher.detach(), weight))
        if parts:
            loss = (1 - self.share) * loss + self.share * torch.stack(parts).mean()
        return Alignment(loss, agreement)
