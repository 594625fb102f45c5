from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Objective, objectives
from multimodal_ssl.health import diagnose

from .toys import Numbers, Waves, fit_toys

PAIRS = [("a", "b")]


class Constant(Waves):
    """Sees nothing of an item."""

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        return super().prepare(1.0)


class Fog(Waves):
    """Sees nothing of an item but noise, which differs between the two of a sample."""

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        assert rng is not None
        return super().prepare(rng.uniform(0, 2 * math.pi))


def warm(pairs: Any) -> Objective:
    """Begin where independent views have the loss of guessing."""
    return objectives.info_nce(pairs, temperature=1.0)


def independent(batch: int, dim: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return views that say nothing of each other, equal weights and a group for each sample."""
    views = {name: F.normalize(torch.randn(batch, dim, generator=generator), dim=1) for name in "ab"}
    return views, torch.ones(batch), torch.arange(batch)


def test_info_nce_of_independent_views_is_its_loss_at_chance(generator: torch.Generator) -> None:
    objective = objectives.info_nce(PAIRS, temperature=1.0)
    for batch in (64, 1024):
        loss = objective(*independent(batch, 512, generator)).loss.item()
        assert loss == pytest.approx(objective.loss_at_chance(batch), rel=0.01)


def test_siglip_of_independent_views_at_its_best_bias_is_its_loss_at_chance(generator: torch.Generator) -> None:
    for batch in (64, 1024):
        data = independent(batch, 512, generator)
        losses = {
            shift: objectives.siglip(PAIRS, scale=0.1, bias=shift - math.log(batch - 1))(*data).loss.item()
            for shift in (-0.5, 0.0, 0.5)
        }
        chance = objectives.siglip(PAIRS).loss_at_chance(batch)
        assert min(losses, key=losses.__getitem__) == 0.0
        assert losses[0.0] == pytest.approx(chance, rel=0.01)


def test_triplet_of_independent_views_is_its_loss_at_chance(generator: torch.Generator) -> None:
    semi_hard = objectives.triplet(PAIRS, margin=0.3)
    loss = semi_hard(*independent(1024, 8, generator)).loss.item()
    assert loss == pytest.approx(semi_hard.loss_at_chance(1024), rel=0.02)
    point = F.normalize(torch.ones(64, 8), dim=1)
    for mining in ("batch-all", "batch-hard", "semi-hard"):
        objective = objectives.triplet(PAIRS, margin=0.3, mining=mining)
        loss = objective({"a": point, "b": point}, torch.ones(64), torch.arange(64)).loss.item()
        assert loss == pytest.approx(objective.loss_at_chance(64), rel=1e-3)


def test_what_goes_wrong_is_told_with_advice() -> None:
    assert "collapsed" in str(diagnose(1.0, 0.001, None))
    assert "nothing is learnt" in str(diagnose(math.log(256) + 0.01, 0.9, math.log(256)))
    assert diagnose(2.0, 0.9, math.log(256)) is None
    assert diagnose(2.0, 0.9, None) is None


@pytest.mark.parametrize(
    ("encoder", "lr", "advice"),
    [
        (Constant, 1e-2, "warning: the embeddings have collapsed to one point"),
        (Fog, 1e-3, "that of guessing: nothing is learnt. Check that the items of a sample belong together"),
        (Waves, 1e-2, None),
    ],
)
def test_training_that_learns_nothing_says_so_once(
    encoder: type[Waves], lr: float, advice: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"steps": 120, "batch": 32, "lr": lr, "log_every": 10}
    fit_toys(tmp_path / "run", Numbers(128), encoder=encoder, objective=warm, **train)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("warning:") == (1 if advice else 0)
    assert advice is None or advice in said
