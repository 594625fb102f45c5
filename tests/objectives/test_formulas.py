"""Every loss against loops written from the papers, in float64, and against the losses of open_clip."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Alignment
from multimodal_ssl.objectives.contrastive import info_nce
from multimodal_ssl.objectives.robust import gce, rcl, rince, smoothed

from .cases import CASES, DENSITY, LOSSES, SCALED, TRIPLETS, Batch, batch_of, every_batch, every_case, scaled


def losses_and_gradients(batch: Batch, *losses: Callable[..., Alignment]) -> list[tuple[Tensor, ...]]:
    """Return the loss and the gradients by a, b and scale of each."""
    inputs = [one.clone().requires_grad_() for one in batch[:3]]
    found = [scaled(loss)(Batch(*inputs, *batch[3:])).loss for loss in losses]
    return [(loss.detach(), *torch.autograd.grad(loss, inputs)) for loss in found]


def test_every_registered_objective_has_a_case_here() -> None:
    kinds = {"rcl" if name.startswith("rcl-") else "triplet" if name in TRIPLETS else name for name in CASES}
    assert kinds == set(LOSSES)


@every_case
@every_batch
def test_loss_and_agreement_equal_the_papers_formula(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    tested, reference = CASES[name].tested(batch), CASES[name].reference(batch)
    torch.testing.assert_close(tested.agreement, reference.agreement)
    torch.testing.assert_close(tested.loss, reference.loss)


@every_case
@every_batch
def test_gradients_equal_those_through_the_papers_formula(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    inputs = [one.clone().requires_grad_() for one in batch[:4]]

    def gradients(loss: Callable[[Batch], Alignment]) -> tuple[Tensor | None, ...]:
        a, b, scale, bias = inputs
        # 2 - 2ab is the distance on the sphere only, so its gradient is compared along the sphere.
        views = batch._replace(a=F.normalize(a, dim=1), b=F.normalize(b, dim=1), scale=scale, bias=bias)
        return torch.autograd.grad(loss(views).loss, inputs, allow_unused=True)

    torch.testing.assert_close(gradients(CASES[name].tested), gradients(CASES[name].reference))


@every_case
def test_gradients_equal_finite_differences(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped", "weighted")
    count = 3 if name in SCALED else {"siglip": 4}.get(name, 2)  # a, b, scale, bias
    inputs = [one.clone().requires_grad_() for one in batch[:count]]
    assert torch.autograd.gradcheck(lambda *given: CASES[name].tested(Batch(*given, *batch[count:])).loss, inputs)


@every_case
def test_agreement_is_detached(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    tested = CASES[name].tested(batch._replace(a=batch.a.requires_grad_(), scale=batch.scale.requires_grad_()))
    assert tested.loss.requires_grad
    assert not tested.agreement.requires_grad


# The losses of others


def test_info_nce_without_groups_is_the_cross_entropy_of_clip(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    logits, target = batch.scale * batch.a @ batch.b.T, torch.arange(8)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(CASES["info-nce"].tested(batch).loss, expected)


def test_label_smoothing_without_groups_is_that_of_torch(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    logits, target = batch.scale * batch.a @ batch.b.T, torch.arange(8)
    expected = [F.cross_entropy(one, target, label_smoothing=0.1) for one in (logits, logits.T)]
    tested = scaled(functools.partial(smoothed, smoothing=0.1))(batch)
    torch.testing.assert_close(tested.loss, sum(expected) / 2)


@pytest.fixture(scope="module")
def open_clip_loss() -> ModuleType:
    """Load open_clip/loss.py alone: importing the package takes ten seconds."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).with_name("loss.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_info_nce_equals_the_loss_of_open_clip(open_clip_loss: ModuleType, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    expected = open_clip_loss.ClipLoss()(batch.a, batch.b, batch.scale)
    torch.testing.assert_close(CASES["info-nce"].tested(batch).loss, expected)


def test_siglip_equals_the_loss_of_open_clip(open_clip_loss: ModuleType, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    expected = open_clip_loss.SigLipLoss()(batch.a, batch.b, batch.scale, batch.bias)
    torch.testing.assert_close(CASES["siglip"].tested(batch).loss, expected)


# Where one loss becomes another


def test_gce_tends_to_info_nce_as_q_tends_to_0(generator: torch.Generator) -> None:
    tested, expected = losses_and_gradients(batch_of(generator), functools.partial(gce, q=1e-6), info_nce)
    torch.testing.assert_close(tested, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [1.0, DENSITY])
def test_rince_tends_to_info_nce_and_the_log_of_its_density_as_q_tends_to_0(
    density: float, generator: torch.Generator
) -> None:
    loss = functools.partial(rince, q=1e-6, density=density)
    tested, expected = losses_and_gradients(batch_of(generator), loss, info_nce)
    torch.testing.assert_close(tested[1:], expected[1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tested[0], expected[0] + math.log(density), rtol=1e-4, atol=1e-4)


def test_rince_of_q_1_is_linear_in_the_exponentials(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    powers = (batch.scale * batch.a @ batch.b.T).exp()
    positive, everything = powers.diagonal(), (powers.sum(0) + powers.sum(1)) / 2
    tested = scaled(functools.partial(rince, q=1.0, density=DENSITY))(batch)
    torch.testing.assert_close(tested.loss, (DENSITY * everything - positive).mean())


def test_label_smoothing_tends_to_info_nce_as_it_tends_to_0(generator: torch.Generator) -> None:
    loss = functools.partial(smoothed, smoothing=1e-9)
    tested, expected = losses_and_gradients(batch_of(generator, "grouped", "weighted"), loss, info_nce)
    torch.testing.assert_close(tested, expected)


def test_gce_of_q_1_is_the_mean_absolute_error(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    logits = batch.scale * batch.a @ batch.b.T
    own = (logits.softmax(0).diagonal() + logits.softmax(1).diagonal()) / 2
    torch.testing.assert_close(scaled(functools.partial(gce, q=1.0))(batch).loss, (1 - own).mean())


@every_batch
def test_what_is_not_a_positive_is_a_negative_so_rcl_with_mae_is_gce_of_q_1(
    groups: str, weights: str, generator: torch.Generator
) -> None:
    batch, by_negatives = batch_of(generator, groups, weights), functools.partial(rcl, complement="mae", q=1.0)
    tested, expected = losses_and_gradients(batch, by_negatives, functools.partial(gce, q=1.0))
    torch.testing.assert_close(tested, expected)


@pytest.mark.parametrize(("q", "complement"), [(1e-6, "log"), (1.0, "mae")])
def test_the_gce_complement_lies_between_log_and_mae(q: float, complement: str, generator: torch.Generator) -> None:
    batch, end = batch_of(generator, "grouped"), functools.partial(rcl, complement=complement, q=0.5)
    tested, expected = losses_and_gradients(batch, functools.partial(rcl, complement="gce", q=q), end)
    torch.testing.assert_close(tested, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", ["alone", "grouped"])
def test_acl_of_full_trust_is_info_nce_and_five_times_rcl_with_tan(groups: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, groups)
    active, complementary = CASES["info-nce"].tested(batch).loss, CASES["rcl-tan"].tested(batch).loss
    torch.testing.assert_close(CASES["acl"].tested(batch).loss, 2 * (active + 5 * complementary))


@pytest.mark.parametrize("name", TRIPLETS)
def test_triplets_that_keep_the_margin_cost_nothing(name: str, generator: torch.Generator) -> None:
    eye, batch = torch.eye(8, dtype=torch.float64), batch_of(generator)
    tested = CASES[name].tested(batch._replace(a=eye, b=eye))  # partners at 0, the others at 2
    assert tested.loss == 0
    assert (tested.agreement == 1).all()
