"""What losses do where pairs are wrong, logits are extreme or nothing is learnt."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from .cases import CASES, SCALED, TRIPLETS, Batch, batch_of, collapsed, create, every_case, every_variant

# Agreement


@every_variant
def test_a_wrong_partner_is_not_believed_for_its_right_mates(name: str, options: dict[str, str]) -> None:
    a = torch.eye(8)[[0, 0, 0, 0, 1, 2, 3, 4]]
    b = a.clone()
    b[3] = torch.eye(8)[7]  # its group has three right partners, and it has none
    group = torch.tensor([0, 0, 0, 0, 1, 2, 3, 4])
    agreement = create(name, **options)({"a": a, "b": b}, torch.ones(8), group).agreement
    right = torch.arange(8) != 3
    assert agreement[3] < 0.25  # for the softmaxes 1 / 5: itself and four negatives, all at 0
    assert agreement[right].min() >= 0.45


@every_variant
def test_agreement_singles_out_pairs_whose_partners_were_swapped(
    name: str, options: dict[str, str], generator: torch.Generator
) -> None:
    a = F.normalize(torch.eye(16) + 0.05 * torch.randn(16, 16, generator=generator), dim=1)
    b = F.normalize(a + 0.05 * torch.randn(16, 16, generator=generator), dim=1)
    b[[3, 11]] = b[[11, 3]]
    agreement = create(name, **options)({"a": a, "b": b}, torch.ones(16), torch.arange(16)).agreement
    swapped = torch.zeros(16, dtype=torch.bool)
    swapped[[3, 11]] = True
    assert agreement[swapped].max() < agreement[~swapped].min()


@every_case
@pytest.mark.parametrize("spread", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("num_groups", [1, 5, 61])
def test_agreement_is_a_share_even_in_single_precision(
    name: str, spread: float, num_groups: int, generator: torch.Generator
) -> None:
    raw, noise = (torch.randn(61, 16, generator=generator) for _ in range(2))
    a, b = F.normalize(raw, dim=1), F.normalize(raw + spread * noise, dim=1)
    for scale in (1.0, 14.0, 100.0):
        batch = Batch(a, b, torch.tensor(scale), torch.tensor(-10.0), torch.arange(61) % num_groups, torch.ones(61))
        agreement = CASES[name].tested(batch).agreement
        assert agreement.min() >= 0
        assert agreement.max() <= 1


@pytest.mark.parametrize("name", SCALED)
def test_the_agreement_of_collapsed_views_is_that_of_chance(name: str, generator: torch.Generator) -> None:
    batch = collapsed(batch_of(generator, "grouped"))
    expected = 1 / (1 + (~batch.same).double().sum(1))
    torch.testing.assert_close(CASES[name].tested(batch).agreement, expected)


@pytest.mark.parametrize("name", SCALED)
def test_two_copies_of_one_item_are_believed_only_if_they_are_known_as_one_group(
    name: str, generator: torch.Generator
) -> None:
    views = torch.eye(8, dtype=torch.float64)
    views[1] = views[0]
    batch = batch_of(generator)._replace(a=views, b=views, scale=torch.tensor(50.0).double())
    known = batch._replace(group=torch.tensor([0, 0, 2, 3, 4, 5, 6, 7]))
    torch.testing.assert_close(CASES[name].tested(batch).agreement[:2], torch.tensor([0.5, 0.5]).double())
    torch.testing.assert_close(CASES[name].tested(known).agreement[:2], torch.tensor([1.0, 1.0]).double())


# Extreme logits


E0 = torch.eye(8)[:1]
ALTERNATE = torch.cat([E0, -E0] * 4)
EXTREMES = {
    "partners at 1, others at 0": (torch.eye(8), torch.eye(8)),
    "partners at -1, others at 0": (torch.eye(8), -torch.eye(8)),
    "partners at 0, one other at 1": (torch.eye(8), torch.eye(8).roll(1, 0)),
    "all at 1": (E0.expand(8, -1), E0.expand(8, -1)),
    "all at -1": (E0.expand(8, -1), -E0.expand(8, -1)),
    "partners at 1, half of the others at -1": (ALTERNATE, ALTERNATE),
    "partners at -1, half of the others at 1": (ALTERNATE, -ALTERNATE),
    "partners at 1, the other at -1": (ALTERNATE[:2], ALTERNATE[:2]),
    "partners at -1, the other at 1": (ALTERNATE[:2], -ALTERNATE[:2]),
}
SHARPEST = {"siglip": {"scale": 100.0}, "triplet": {}}
ENDS = [  # of the options
    ("acl", {}),
    ("info-nce", {}),
    ("siglip", {}),
    *(("triplet", {"mining": mining}) for mining in TRIPLETS),
    *(("label-smoothing", {"smoothing": smoothing}) for smoothing in (0.01, 0.99)),
    *(("gce", {"q": q}) for q in (0.01, 0.5, 1.0)),
    *(("rince", {"q": q}) for q in (0.01, 0.5, 0.8)),
    *(("rcl", {"complement": complement}) for complement in ("log", "tan", "exp", "mae")),
    *(("rcl", {"complement": "gce", "q": q}) for q in (0.01, 0.5, 1.0)),
]


@pytest.mark.parametrize(
    ("name", "options"), [pytest.param(*one, id=f"{one[0]}-{one[1] or 'default'}") for one in ENDS]
)
@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_extreme_logits_have_a_finite_loss_and_finite_gradients(
    name: str, options: dict[str, object], trust: float
) -> None:
    sharpest = SHARPEST.get(name, {"temperature": 0.01, "learn_temperature": True})
    for what, sides in EXTREMES.items():
        size = len(sides[0])
        for group in (torch.arange(size), torch.arange(size) // 2, torch.zeros(size, dtype=torch.int64)):
            objective = create(name, **options, **sharpest)
            a, b = (one.clone().requires_grad_() for one in sides)
            loss, agreement = objective({"a": a, "b": b}, trust * torch.linspace(0, 1, size), group)
            loss.backward()
            found = {"loss": loss, "agreement": agreement, "a": a.grad, "b": b.grad}
            found |= {parameter: one.grad for parameter, one in objective.named_parameters()}
            broken = [key for key, one in found.items() if one is None or not one.isfinite().all()]
            assert not broken, f"{what}, group {group.tolist()}: {broken} of {name} not finite"


@every_case
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_single_precision_is_enough(name: str, scale: float, generator: torch.Generator) -> None:
    raw, noise = (torch.randn(16, 8, generator=generator) for _ in range(2))
    views = [F.normalize(raw, dim=1), F.normalize(raw + noise, dim=1)]

    def found(dtype: torch.dtype) -> tuple[Tensor, ...]:
        a, b = (one.to(dtype).requires_grad_() for one in views)
        numbers = (torch.tensor(one, dtype=dtype) for one in (scale, -10.0))
        batch = Batch(a, b, *numbers, torch.arange(16) // 2, torch.linspace(0.1, 1, 16, dtype=dtype))
        loss, agreement = CASES[name].tested(batch)
        return loss, agreement, *torch.autograd.grad(loss, (a, b))

    for single, double in zip(found(torch.float32), found(torch.float64), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4 * double.abs().max().item())


# Chance


COLLAPSING = [("info-nce", {}), ("label-smoothing", {}), *(("triplet", {"mining": mining}) for mining in TRIPLETS)]


@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize(("name", "options"), COLLAPSING)
def test_the_loss_at_chance_is_that_of_views_that_are_all_equal(
    name: str, options: dict[str, str], batch: int, generator: torch.Generator
) -> None:
    objective = create(name, **options)
    a, b = (F.normalize(torch.randn(1, 8, generator=generator), dim=1).expand(batch, -1) for _ in range(2))
    loss = objective({"a": a, "b": b}, torch.ones(batch), torch.arange(batch)).loss
    assert objective.loss_at_chance(batch) == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("batch", [2, 16])
def test_the_loss_at_chance_of_siglip_is_the_least_that_its_bias_reaches_alone(batch: int) -> None:
    a = torch.eye(8)[:1].expand(batch, -1)
    objective = create("siglip", scale=10.0, bias=-10.0 - math.log(batch - 1))  # every logit is -log(batch - 1)
    loss = objective({"a": a, "b": a}, torch.ones(batch), torch.arange(batch)).loss
    loss.backward()
    assert objective.loss_at_chance(batch) == pytest.approx(loss.item(), rel=1e-4)
    assert objective.bias["a-b"].grad.abs() < 1e-4


@pytest.mark.parametrize("name", ["info-nce", "label-smoothing"])
def test_independent_views_of_a_high_temperature_have_the_loss_at_chance(name: str, generator: torch.Generator) -> None:
    objective = create(name, temperature=10.0)
    a, b = (F.normalize(torch.randn(32, 64, generator=generator), dim=1) for _ in range(2))
    loss = objective({"a": a, "b": b}, torch.ones(32), torch.arange(32)).loss
    assert objective.loss_at_chance(32) == pytest.approx(loss.item(), abs=0.01)


@pytest.mark.parametrize(("name", "options"), [*COLLAPSING, ("siglip", {})])
def test_views_that_say_something_have_a_lower_loss_than_that_at_chance(name: str, options: dict[str, str]) -> None:
    objective, a = create(name, **options), torch.eye(16)
    loss = objective({"a": a, "b": a}, torch.ones(16), torch.arange(16)).loss
    assert loss < objective.loss_at_chance(16) - 0.1


@pytest.mark.parametrize("name", ["acl", "gce", "rcl", "rince"])
def test_where_the_loss_at_chance_is_not_known_there_is_none(name: str) -> None:
    assert create(name).loss_at_chance(16) is None
