"""What weights and groups do to a loss, and what order and sides don't."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from multimodal_ssl.objectives.contrastive import weighted_mean

from .cases import CASES, GROUPS, SCALED, TRIPLETS, Batch, batch_of, collapsed, every_batch, every_case, pull

ONES = torch.ones(8, dtype=torch.float64)
MEANS = [name for name in CASES if name != "acl"]  # whose loss is a weighted mean
# Their loss falls whenever any positive rises. The others ask for equal shares, so they draw those nearer that they
# have neglected (SupCon), at the cost of mates that they haven't.
NEVER_APART = [name for name in CASES if name not in ("acl", "info-nce", "label-smoothing")]


# Weights


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("groups", GROUPS)
def test_half_a_weight_for_all_is_a_whole_weight_for_all(name: str, groups: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, groups, "weighted")
    half = CASES[name].tested(batch._replace(weight=batch.weight / 2))
    torch.testing.assert_close(half, CASES[name].tested(batch))


@every_case
def test_agreement_does_not_depend_on_weights(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped", "weighted")
    equal = CASES[name].tested(batch._replace(weight=ONES))
    assert torch.equal(CASES[name].tested(batch).agreement, equal.agreement)


@pytest.mark.parametrize("name", MEANS)
def test_a_sample_of_no_weight_draws_no_pair_together_but_is_still_a_negative(
    name: str, generator: torch.Generator
) -> None:
    similarity = 0.5 * torch.eye(8, dtype=torch.float64)
    similarity[0, 1:] = similarity[1:, 0] = 0.45  # the hardest negative of all others, within the margin
    similarity += 1e-3 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    weight, group = ONES.clone(), torch.arange(8)
    assert pull(name, similarity, group, weight)[0, 0] < -1e-3
    weight[0] = 0
    gradient = pull(name, similarity, group, weight)
    assert gradient[0, 0] == 0
    assert (gradient.diagonal()[1:] < -1e-3).all()
    assert (gradient[0, 1:] > 1e-3).all()
    assert (gradient[1:, 0] > 1e-3).all()


@pytest.mark.parametrize("name", MEANS)
def test_a_batch_that_nobody_trusts_teaches_nothing(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped")
    a, b = (one.clone().requires_grad_() for one in batch[:2])
    loss = CASES[name].tested(batch._replace(a=a, b=b, weight=0 * ONES)).loss
    assert loss == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (a, b)))


def test_acl_of_no_trust_has_no_active_term_but_its_negatives_count(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    expected = 0.0
    for p in ((batch.scale * batch.a @ batch.b.T).softmax(1), (batch.scale * batch.b @ batch.a.T).softmax(1)):
        expected += 5 * (1 - p.tan().diagonal() / p.tan().sum(1)).mean()
    torch.testing.assert_close(CASES["acl"].tested(batch._replace(weight=0 * ONES)).loss, expected)
    own = pull("acl", batch.a @ batch.b.T, batch.group, 0 * ONES)
    assert (own[~batch.same] > 0).any()


def test_acl_is_the_mean_over_all_samples_also_those_without_trust(generator: torch.Generator) -> None:
    batch = collapsed(batch_of(generator))  # every P is 1 / 8
    weight = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    trusted = 2 * (math.log(8) + 5 * 7 * math.tan(1 / 8))
    doubted = 2 * (5 * 7 / 8)
    expected = torch.tensor((trusted + 7 * doubted) / 8, dtype=torch.float64)
    torch.testing.assert_close(CASES["acl"].tested(batch._replace(weight=weight)).loss, expected)


def test_acl_of_no_trust_misleads_less_than_info_nce_the_worse_the_pair_is(generator: torch.Generator) -> None:
    similarity = torch.eye(8, dtype=torch.float64)
    similarity[0, 0] = -1  # a wrong pair among right ones
    weight = ONES.clone()
    weight[0] = 0
    trusted, doubted = (pull("acl", similarity, torch.arange(8), one)[0, 0] for one in (ONES, weight))
    assert doubted.abs() < trusted.abs() / 20


def test_a_sample_of_no_weight_has_no_row_and_no_column_of_its_own(generator: torch.Generator) -> None:
    batch, weight = batch_of(generator), ONES.clone()
    weight[0] = 0
    logits, target = batch.scale * batch.a @ batch.b.T, torch.arange(8)
    each = F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.T, target, reduction="none")
    tested = CASES["info-nce"].tested(batch._replace(weight=weight))
    torch.testing.assert_close(tested.loss, each[1:].mean() / 2)


@pytest.mark.parametrize("heavy", [0, 3])
def test_within_a_group_the_weight_of_info_nce_goes_to_the_samples_own_row_and_column(
    heavy: int, generator: torch.Generator
) -> None:
    batch, weight = batch_of(generator, "grouped"), 0 * ONES
    weight[heavy] = 1
    logits = batch.scale * batch.a @ batch.b.T
    target = batch.same[heavy].double() / batch.same[heavy].sum()
    row, column = F.cross_entropy(logits[heavy], target), F.cross_entropy(logits[:, heavy], target)
    tested = CASES["info-nce"].tested(batch._replace(weight=weight))
    torch.testing.assert_close(tested.loss, (row + column) / 2)


def test_the_weighted_mean_holds_for_small_weights_too() -> None:
    mean = weighted_mean(torch.tensor([1.0, 2.0]), torch.tensor([1e-6, 3e-6]))
    torch.testing.assert_close(mean, torch.tensor(1.75))


def test_the_weighted_mean_of_no_weight_is_zero() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = weighted_mean(values, torch.zeros(2))
    mean.backward()
    assert mean == 0
    assert values.grad is not None
    assert (values.grad == 0).all()


# Groups


@pytest.mark.parametrize(("name", "weight"), [*((name, 1.0) for name in CASES), ("acl", 0.0)])
def test_samples_of_one_group_are_not_pushed_apart(name: str, weight: float, generator: torch.Generator) -> None:
    similarity = 0.01 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    group = torch.tensor(GROUPS["grouped"])
    same = group[:, None] == group[None, :]
    gradient = pull(name, similarity, group, weight * ONES)
    assert (gradient[same] <= 0).all()
    assert (gradient[~same] >= 0).all()
    assert gradient[same].min() < -1e-3
    assert gradient[~same].max() > 1e-3


@pytest.mark.parametrize("name", NEVER_APART)
def test_however_near_mates_are_they_are_not_pushed_apart(name: str, generator: torch.Generator) -> None:
    group = torch.tensor(GROUPS["grouped"])
    same = group[:, None] == group[None, :]
    for _ in range(20):
        similarity = 2 * torch.rand(8, 8, generator=generator, dtype=torch.float64) - 1
        assert (pull(name, similarity, group, ONES)[same] <= 0).all()


@every_case
def test_without_its_group_a_mate_is_a_negative(name: str, generator: torch.Generator) -> None:
    similarity = 0.01 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    similarity[0, 3] = similarity[3, 0] = 0.02
    similarity[0, 0] = similarity[3, 3] = 0.03
    gradient = pull(name, similarity, torch.arange(8), ONES)
    assert gradient[0, 3] > 0


@every_case
def test_a_batch_of_one_group_has_finite_loss_and_gradients(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, weights="doubted")
    inputs = [one.clone().requires_grad_() for one in batch[:3]]
    tested = CASES[name].tested(Batch(*inputs, batch.bias, torch.zeros(8, dtype=torch.int64), batch.weight))
    gradients = torch.autograd.grad(tested.loss, inputs, allow_unused=True)
    assert tested.loss.isfinite()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["gce", *(name for name in SCALED if name.startswith("rcl")), *TRIPLETS])
def test_where_there_is_no_negative_there_is_nothing_to_learn(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    a, b = (one.clone().requires_grad_() for one in batch[:2])
    loss = CASES[name].tested(batch._replace(a=a, b=b, group=torch.zeros(8, dtype=torch.int64))).loss
    gradients = torch.autograd.grad(loss, (a, b))
    torch.testing.assert_close((loss, *gradients), (0 * loss, 0 * a, 0 * b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*SCALED, *TRIPLETS])
def test_where_there_is_no_negative_no_pair_is_doubted(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)._replace(group=torch.zeros(8, dtype=torch.int64))
    assert torch.equal(CASES[name].tested(batch).agreement, ONES)


# Order and sides


@every_case
@every_batch
def test_the_order_of_the_batch_does_not_matter(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    order = torch.randperm(8, generator=generator)
    moved = CASES[name].tested(
        Batch(batch.a[order], batch.b[order], *batch[2:4], batch.group[order], batch.weight[order])
    )
    here = CASES[name].tested(batch)
    torch.testing.assert_close(moved.loss, here.loss)
    torch.testing.assert_close(moved.agreement, here.agreement[order])


@every_case
@every_batch
def test_swapping_the_two_sides_does_not_matter(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    torch.testing.assert_close(CASES[name].tested(batch._replace(a=batch.b, b=batch.a)), CASES[name].tested(batch))
