"""The contrastive losses against double and triple loops written from the papers, in float64."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Alignment, Catalog, InputError, Objective, objectives
from multimodal_ssl.objectives.contrastive import (
    InfoNCE,
    Mining,
    SigLIP,
    Triplet,
    info_nce,
    siglip,
    triplet,
    weighted_mean,
)
from multimodal_ssl.testing import check_objective

SCALE, BIAS, MARGIN = 5.0, -2.0, 0.3
GROUPS = {"alone": (0, 1, 2, 3, 4, 5, 6, 7), "grouped": (0, 1, 2, 0, 3, 1, 0, 4)}
WEIGHTS = {"equal": (1.0,) * 8, "weighted": (0.2, 1.0, 0.7, 0.5, 0.9, 0.3, 1.0, 0.6)}
PAIRS = [("image", "text"), ("image", "audio")]


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


class Loss(NamedTuple):
    """A loss and the loop that it must equal."""

    tested: Callable[[Batch], Alignment]
    reference: Callable[[Batch], Alignment]


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


def weighted(losses: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the weighted mean of (weight, loss)."""
    total = sum((weight * loss for weight, loss in losses), torch.zeros((), dtype=torch.float64))
    return total / sum(weight for weight, _ in losses)


def info_nce_by_loop(batch: Batch) -> Alignment:
    """CLIP, fig. 3, with the mean over several positives outside the logarithm (SupCon, eq. 2)."""
    losses, agreement = [], []
    for i, group in enumerate(batch.group):
        mates = [j for j, other in enumerate(batch.group) if other == group]
        loss, belief = torch.zeros(()), torch.zeros(())
        for anchor, candidates in ((batch.a[i], batch.b), (batch.b[i], batch.a)):
            powers = [torch.exp(batch.scale * torch.dot(anchor, candidate)) for candidate in candidates]
            for j in mates:
                loss = loss - torch.log(powers[j] / sum(powers)) / len(mates) / 2
                belief = belief + powers[j] / sum(powers) / 2
        losses.append((batch.weight[i], loss))
        agreement.append(belief)
    return Alignment(weighted(losses), torch.stack(agreement))


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
    return Alignment(weighted(losses) * len(batch.b), torch.stack(agreement))


def triplet_by_loop(batch: Batch, mining: str) -> Alignment:
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


LOSSES = {
    "info-nce": Loss(lambda one: info_nce(one.a, one.b, one.scale, one.same, one.weight), info_nce_by_loop),
    "siglip": Loss(lambda one: siglip(one.a, one.b, one.scale, one.bias, one.same, one.weight), siglip_by_loop),
    "batch-all": Loss(
        lambda one: triplet(one.a, one.b, MARGIN, "batch-all", one.same, one.weight),
        lambda one: triplet_by_loop(one, "batch-all"),
    ),
    "batch-hard": Loss(
        lambda one: triplet(one.a, one.b, MARGIN, "batch-hard", one.same, one.weight),
        lambda one: triplet_by_loop(one, "batch-hard"),
    ),
    "semi-hard": Loss(
        lambda one: triplet(one.a, one.b, MARGIN, "semi-hard", one.same, one.weight),
        lambda one: triplet_by_loop(one, "semi-hard"),
    ),
}
TRIPLETS = ("batch-all", "batch-hard", "semi-hard")
CATALOG = Catalog.of(objectives=objectives)

every_loss = pytest.mark.parametrize("name", LOSSES)
every_batch = pytest.mark.parametrize(
    ("groups", "weights"), [(groups, weights) for groups in GROUPS for weights in WEIGHTS]
)


def pull(name: str, similarity: Tensor, group: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the loss by the table a @ b.T [B, B]; below 0 where it draws a pair together."""
    table = similarity.clone().requires_grad_()
    eye = torch.eye(len(table), dtype=table.dtype)  # a @ eye.T = a, so that any table can be given
    one = Batch(table, eye, torch.tensor(SCALE).double(), torch.tensor(BIAS).double(), group, weight)
    return torch.autograd.grad(LOSSES[name].tested(one).loss, table)[0]


def unit(generator: torch.Generator, size: int = 6, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(size, dim, generator=generator), dim=1)


# The pure functions


@every_loss
@every_batch
def test_loss_and_agreement_equal_the_papers_formula(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    tested, reference = LOSSES[name].tested(batch), LOSSES[name].reference(batch)
    torch.testing.assert_close(tested.agreement, reference.agreement)
    torch.testing.assert_close(tested.loss, reference.loss)


@every_loss
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

    torch.testing.assert_close(gradients(LOSSES[name].tested), gradients(LOSSES[name].reference))


@every_loss
@every_batch
def test_gradients_equal_finite_differences(name: str, groups: str, weights: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, groups, weights)
    count = {"info-nce": 3, "siglip": 4}.get(name, 2)  # a, b, scale, bias
    inputs = [one.clone().requires_grad_() for one in batch[:count]]
    assert torch.autograd.gradcheck(lambda *given: LOSSES[name].tested(Batch(*given, *batch[count:])).loss, inputs)


@every_loss
def test_agreement_is_detached(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    tested = LOSSES[name].tested(batch._replace(a=batch.a.requires_grad_(), scale=batch.scale.requires_grad_()))
    assert tested.loss.requires_grad
    assert not tested.agreement.requires_grad


def test_info_nce_without_groups_is_the_cross_entropy_of_clip(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    logits, target = batch.scale * batch.a @ batch.b.T, torch.arange(8)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(LOSSES["info-nce"].tested(batch).loss, expected)


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
    torch.testing.assert_close(LOSSES["info-nce"].tested(batch).loss, expected)


def test_siglip_equals_the_loss_of_open_clip(open_clip_loss: ModuleType, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    expected = open_clip_loss.SigLipLoss()(batch.a, batch.b, batch.scale, batch.bias)
    torch.testing.assert_close(LOSSES["siglip"].tested(batch).loss, expected)


@pytest.mark.parametrize("name", TRIPLETS)
def test_triplets_that_keep_the_margin_cost_nothing(name: str, generator: torch.Generator) -> None:
    eye, batch = torch.eye(8, dtype=torch.float64), batch_of(generator)
    tested = LOSSES[name].tested(batch._replace(a=eye, b=eye))  # partners at 0, the others at 2
    assert tested.loss == 0
    assert (tested.agreement == 1).all()


# Weights


@every_loss
@pytest.mark.parametrize("groups", GROUPS)
def test_half_a_weight_for_all_is_a_whole_weight_for_all(name: str, groups: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, groups)
    half = LOSSES[name].tested(batch._replace(weight=batch.weight / 2))
    torch.testing.assert_close(half, LOSSES[name].tested(batch))


@every_loss
def test_agreement_does_not_depend_on_weights(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped", "weighted")
    equal = LOSSES[name].tested(batch._replace(weight=torch.ones_like(batch.weight)))
    assert torch.equal(LOSSES[name].tested(batch).agreement, equal.agreement)


@every_loss
def test_a_sample_of_no_weight_draws_no_pair_together_but_is_still_a_negative(
    name: str, generator: torch.Generator
) -> None:
    similarity = 0.5 * torch.eye(8, dtype=torch.float64)
    similarity[0, 1:] = similarity[1:, 0] = 0.45  # the hardest negative of all others, within the margin
    similarity += 1e-3 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    weight = torch.ones(8, dtype=torch.float64)
    group = torch.arange(8)
    assert pull(name, similarity, group, weight)[0, 0] < -1e-3
    weight[0] = 1e-12
    gradient = pull(name, similarity, group, weight)
    assert abs(gradient[0, 0]) < 1e-9
    assert (gradient.diagonal()[1:] < -1e-3).all()
    assert (gradient[0, 1:] > 1e-3).all()
    assert (gradient[1:, 0] > 1e-3).all()


def test_a_sample_of_no_weight_has_no_row_and_no_column_of_its_own(generator: torch.Generator) -> None:
    batch = batch_of(generator)
    weight = torch.ones(8, dtype=torch.float64)
    weight[0] = 0
    logits, target = batch.scale * batch.a @ batch.b.T, torch.arange(8)
    each = F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.T, target, reduction="none")
    tested = LOSSES["info-nce"].tested(batch._replace(weight=weight))
    torch.testing.assert_close(tested.loss, each[1:].mean() / 2)


@pytest.mark.parametrize("heavy", [0, 3])
def test_within_a_group_the_weight_of_info_nce_goes_to_the_samples_own_row_and_column(
    heavy: int, generator: torch.Generator
) -> None:
    batch = batch_of(generator, "grouped")
    weight = torch.zeros(8, dtype=torch.float64)
    weight[heavy] = 1
    logits = batch.scale * batch.a @ batch.b.T
    target = batch.same[heavy].double() / batch.same[heavy].sum()
    row, column = F.cross_entropy(logits[heavy], target), F.cross_entropy(logits[:, heavy], target)
    tested = LOSSES["info-nce"].tested(batch._replace(weight=weight))
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


# Groups and order


@every_loss
def test_samples_of_one_group_are_never_pushed_apart(name: str, generator: torch.Generator) -> None:
    # Near 0 no positive outweighs its mates; beyond that InfoNCE draws those nearer that it has neglected (SupCon).
    similarity = 0.01 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    group = torch.tensor(GROUPS["grouped"])
    same = group[:, None] == group[None, :]
    gradient = pull(name, similarity, group, torch.ones(8, dtype=torch.float64))
    assert (gradient[same] <= 0).all()
    assert (gradient[~same] >= 0).all()
    assert gradient[same].min() < -1e-3
    assert gradient[~same].max() > 1e-3


@every_loss
def test_without_its_group_a_mate_is_a_negative(name: str, generator: torch.Generator) -> None:
    similarity = 0.01 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    similarity[0, 3] = similarity[3, 0] = 0.02
    similarity[0, 0] = similarity[3, 3] = 0.03
    gradient = pull(name, similarity, torch.arange(8), torch.ones(8, dtype=torch.float64))
    assert gradient[0, 3] > 0


@every_loss
@every_batch
def test_the_order_of_the_batch_does_not_matter(
    name: str, groups: str, weights: str, generator: torch.Generator
) -> None:
    batch = batch_of(generator, groups, weights)
    order = torch.randperm(8, generator=generator)
    moved = LOSSES[name].tested(
        Batch(batch.a[order], batch.b[order], *batch[2:4], batch.group[order], batch.weight[order])
    )
    here = LOSSES[name].tested(batch)
    torch.testing.assert_close(moved.loss, here.loss)
    torch.testing.assert_close(moved.agreement, here.agreement[order])


@every_loss
def test_swapping_the_two_sides_does_not_matter(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped", "weighted")
    torch.testing.assert_close(LOSSES[name].tested(batch._replace(a=batch.b, b=batch.a)), LOSSES[name].tested(batch))


@every_loss
def test_a_batch_of_one_group_has_finite_loss_and_gradients(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)
    a, b = (one.clone().requires_grad_() for one in batch[:2])
    tested = LOSSES[name].tested(batch._replace(a=a, b=b, group=torch.zeros(8, dtype=torch.int64)))
    gradients = torch.autograd.grad(tested.loss, (a, b))
    assert tested.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    if name in TRIPLETS:
        assert tested.loss == 0
        assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("name", ["info-nce", *TRIPLETS])
def test_where_there_is_no_negative_no_pair_is_doubted(name: str, generator: torch.Generator) -> None:
    batch = batch_of(generator)._replace(group=torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(LOSSES[name].tested(batch).agreement, torch.ones(8, dtype=torch.float64))


# Agreement


@every_loss
@pytest.mark.parametrize("spread", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("num_groups", [1, 5, 61])
def test_agreement_is_a_share_even_in_single_precision(
    name: str, spread: float, num_groups: int, generator: torch.Generator
) -> None:
    raw, noise = (torch.randn(61, 16, generator=generator) for _ in range(2))
    a, b = F.normalize(raw, dim=1), F.normalize(raw + spread * noise, dim=1)
    for scale in (1.0, 14.0, 100.0):
        batch = Batch(a, b, torch.tensor(scale), torch.tensor(-10.0), torch.arange(61) % num_groups, torch.ones(61))
        agreement = LOSSES[name].tested(batch).agreement
        assert agreement.min() >= 0
        assert agreement.max() <= 1


def test_info_nce_gives_collapsed_views_the_agreement_of_chance(generator: torch.Generator) -> None:
    batch = batch_of(generator, "grouped")
    collapsed = batch._replace(a=batch.a[:1].expand(8, -1), b=batch.b[:1].expand(8, -1))
    torch.testing.assert_close(LOSSES["info-nce"].tested(collapsed).agreement, batch.same.double().mean(1))


def test_info_nce_believes_two_copies_of_one_item_only_if_it_knows_that_they_are_one_group(
    generator: torch.Generator,
) -> None:
    views = torch.eye(8, dtype=torch.float64)
    views[1] = views[0]
    batch = batch_of(generator)._replace(a=views, b=views, scale=torch.tensor(100.0).double())
    known = batch._replace(group=torch.tensor([0, 0, 2, 3, 4, 5, 6, 7]))
    torch.testing.assert_close(LOSSES["info-nce"].tested(batch).agreement[:2], torch.tensor([0.5, 0.5]).double())
    torch.testing.assert_close(LOSSES["info-nce"].tested(known).agreement[:2], torch.tensor([1.0, 1.0]).double())


# The registered objectives


@pytest.mark.parametrize("name", CATALOG.names("objectives"))
def test_registered_objectives_pass_the_conformance_kit(name: str) -> None:
    check_objective(lambda pairs: CATALOG.create("objectives", name, pairs, options={}))


@pytest.mark.parametrize("mining", TRIPLETS)
def test_every_mining_passes_the_conformance_kit(mining: str) -> None:
    check_objective(lambda pairs: CATALOG.create("objectives", "triplet", pairs, options={"mining": mining}))


@pytest.mark.parametrize("name", CATALOG.names("objectives"))
def test_agreement_singles_out_pairs_whose_partners_were_swapped(name: str, generator: torch.Generator) -> None:
    a = F.normalize(torch.eye(16) + 0.05 * torch.randn(16, 16, generator=generator), dim=1)
    b = F.normalize(a + 0.05 * torch.randn(16, 16, generator=generator), dim=1)
    b[[3, 11]] = b[[11, 3]]
    objective = CATALOG.create("objectives", name, [("a", "b")], options={})
    agreement = objective({"a": a, "b": b}, torch.ones(16), torch.arange(16)).agreement
    swapped = torch.zeros(16, dtype=torch.bool)
    swapped[[3, 11]] = True
    assert agreement[swapped].max() < agreement[~swapped].min()


def test_every_pair_has_a_temperature_of_its_own() -> None:
    objective = InfoNCE(PAIRS, temperature=0.1, learn_temperature=True)
    assert {name: value.exp().item() for name, value in objective.named_parameters()} == pytest.approx(
        {"log_scale.image-text": 10, "log_scale.image-audio": 10}
    )


def test_every_pair_has_a_scale_and_a_bias_of_its_own() -> None:
    objective = SigLIP(PAIRS, scale=10.0, bias=-10.0)
    assert {name: value.item() for name, value in objective.named_parameters()} == pytest.approx(
        {f"log_scale.{pair}": math.log(10) for pair in ("image-text", "image-audio")}
        | {f"bias.{pair}": -10 for pair in ("image-text", "image-audio")}
    )


def make_info_nce(pairs: list[tuple[str, str]]) -> Objective:
    return InfoNCE(pairs, temperature=0.2, learn_temperature=True)


def make_siglip(pairs: list[tuple[str, str]]) -> Objective:
    return SigLIP(pairs, scale=5.0, bias=-2.0)


def make_triplet(pairs: list[tuple[str, str]]) -> Objective:
    return Triplet(pairs, margin=0.3, mining="semi-hard")


every_module = pytest.mark.parametrize("make", [make_info_nce, make_siglip, make_triplet])


@every_module
def test_an_objective_is_the_mean_over_its_pairs(
    make: Callable[[list[tuple[str, str]]], Objective], generator: torch.Generator
) -> None:
    views = {name: unit(generator) for name in ("image", "text", "audio")}
    weight, group = torch.linspace(0.2, 1, 6), torch.tensor([0, 1, 2, 3, 4, 5])
    both = make(PAIRS)(views, weight, group)
    each = [make([pair])(views, weight, group) for pair in PAIRS]
    torch.testing.assert_close(both.loss, (each[0].loss + each[1].loss) / 2)
    torch.testing.assert_close(both.agreement, (each[0].agreement + each[1].agreement) / 2)


@every_module
@pytest.mark.parametrize("pair", PAIRS)
def test_a_batch_that_lacks_a_modality_uses_only_the_pairs_that_it_holds(
    make: Callable[[list[tuple[str, str]]], Objective], pair: tuple[str, str], generator: torch.Generator
) -> None:
    objective = make(PAIRS)
    views = {name: unit(generator).requires_grad_() for name in pair}
    weight, group = torch.ones(6), torch.arange(6)
    tested, expected = objective(views, weight, group), make([pair])(views, weight, group)
    torch.testing.assert_close(tested, expected)
    tested.loss.backward()
    learnt = {name.partition(".")[2] for name, one in objective.named_parameters() if one.grad is not None}
    assert learnt <= {"-".join(pair)}


@every_module
def test_a_modality_beyond_the_pairs_is_left_alone(
    make: Callable[[list[tuple[str, str]]], Objective], generator: torch.Generator
) -> None:
    views = {name: unit(generator).requires_grad_() for name in ("image", "text", "depth")}
    make(PAIRS)(views, torch.ones(6), torch.arange(6)).loss.backward()
    assert views["depth"].grad is None
    assert views["image"].grad is not None


@every_module
def test_equal_numbers_in_group_mean_one_group_whatever_the_numbers(
    make: Callable[[list[tuple[str, str]]], Objective], generator: torch.Generator
) -> None:
    views, weight = {name: unit(generator) for name in ("image", "text")}, torch.ones(6)
    objective = make(PAIRS)
    tested = objective(views, weight, torch.tensor([7, 7, -1, 2**40, -1, 3]))
    torch.testing.assert_close(tested, objective(views, weight, torch.tensor([0, 0, 1, 2, 1, 3])))
    assert not torch.equal(tested.loss, objective(views, weight, torch.arange(6)).loss)


def test_the_temperature_of_one_pair_does_not_touch_the_loss_of_another(generator: torch.Generator) -> None:
    objective = InfoNCE(PAIRS, temperature=0.2, learn_temperature=True)
    views = {name: unit(generator) for name in ("image", "text", "audio")}
    weight, group = torch.ones(6), torch.arange(6)
    text_only = {name: views[name] for name in ("image", "text")}
    before, both = objective(text_only, weight, group).loss, objective(views, weight, group).loss
    with torch.no_grad():
        objective.log_scale["image-audio"] += 1
    assert torch.equal(objective(text_only, weight, group).loss, before)
    assert not torch.equal(objective(views, weight, group).loss, both)


def test_the_loss_of_a_module_is_the_function_at_its_temperature(generator: torch.Generator) -> None:
    a, b, weight, same = unit(generator), unit(generator), torch.ones(6), torch.eye(6, dtype=torch.bool)
    views = {"image": a, "text": b}
    tested = InfoNCE(PAIRS, temperature=0.1, learn_temperature=True)(views, weight, torch.arange(6))
    torch.testing.assert_close(tested.loss, info_nce(a, b, torch.tensor(10.0), same, weight).loss)
    tested = SigLIP(PAIRS, scale=10.0, bias=-3.0)(views, weight, torch.arange(6))
    torch.testing.assert_close(tested.loss, siglip(a, b, torch.tensor(10.0), torch.tensor(-3.0), same, weight).loss)


@pytest.mark.parametrize("mining", TRIPLETS)
@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_the_triplet_module_has_the_margin_and_mining_that_it_was_given(
    mining: Mining, margin: float, generator: torch.Generator
) -> None:
    a, b, weight, same = unit(generator), unit(generator), torch.ones(6), torch.eye(6, dtype=torch.bool)
    tested = Triplet(PAIRS, margin=margin, mining=mining)({"image": a, "text": b}, weight, torch.arange(6))
    torch.testing.assert_close(tested, triplet(a, b, margin, mining, same, weight))


def test_well_aligned_views_make_the_temperature_fall(generator: torch.Generator) -> None:
    objective, a = InfoNCE([("a", "b")], temperature=0.2, learn_temperature=True), unit(generator)
    objective({"a": a, "b": a}, torch.ones(6), torch.arange(6)).loss.backward()
    assert objective.log_scale["a-b"].grad < 0


def test_a_temperature_that_is_not_learnt_has_no_gradient_but_the_views_have(generator: torch.Generator) -> None:
    objective = InfoNCE(PAIRS, temperature=0.2, learn_temperature=False)
    assert not [name for name, one in objective.named_parameters() if one.requires_grad]
    views = {name: unit(generator).requires_grad_() for name in ("image", "text")}
    objective(views, torch.ones(6), torch.arange(6)).loss.backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views.values())
    assert all(one.grad is None for one in objective.parameters())


def clamped(name: str) -> Objective:
    """Return an objective whose scale asks for 1000."""
    if name == "info-nce":
        return InfoNCE([("a", "b")], temperature=1e-3, learn_temperature=True)
    return SigLIP([("a", "b")], scale=1000.0, bias=0.0)


def test_the_scale_is_clamped_at_100(generator: torch.Generator) -> None:
    a, b = unit(generator), unit(generator)
    views, weight, same = {"a": a, "b": b}, torch.ones(6), torch.eye(6, dtype=torch.bool)
    hundred, group = torch.tensor(100.0), torch.arange(6)
    tested = clamped("info-nce")(views, weight, group)
    torch.testing.assert_close(tested, info_nce(a, b, hundred, same, weight))
    tested = clamped("siglip")(views, weight, group)
    torch.testing.assert_close(tested, siglip(a, b, hundred, torch.tensor(0.0), same, weight))


@pytest.mark.parametrize("name", ["info-nce", "siglip"])
def test_a_scale_that_reached_the_clamp_can_come_down_again(name: str, generator: torch.Generator) -> None:
    # CLIP clamps the parameter itself after each step, which leaves its gradient alone.
    objective = clamped(name)
    views = {"a": unit(generator), "b": unit(generator)}  # unrelated, so that a lower scale is better
    objective(views, torch.ones(6), torch.arange(6)).loss.backward()
    assert objective.log_scale["a-b"].grad > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [("info-nce", {"temperature": 0}), ("info-nce", {"temperature": -1}), ("siglip", {"scale": 0})],
)
def test_a_temperature_or_scale_that_is_not_above_zero_is_an_input_error(name: str, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        CATALOG.create("objectives", name, [("a", "b")], options=options)
