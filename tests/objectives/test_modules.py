"""The registered objectives: their pairs, temperatures and options."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Alignment, InputError
from multimodal_ssl.objectives.contrastive import Mining, info_nce, siglip, triplet
from multimodal_ssl.objectives.robust import acl, gce, rcl, rince, smoothed
from multimodal_ssl.testing import check_objective

from .cases import CATALOG, LOSSES, TRIPLETS, create, every_variant

PAIRS = [("image", "text"), ("image", "audio")]
NAMES = LOSSES
SCALED = [name for name in NAMES if name not in ("siglip", "triplet")]  # they have a temperature

every_name = pytest.mark.parametrize("name", NAMES)
every_scaled = pytest.mark.parametrize("name", SCALED)


def unit(generator: torch.Generator, size: int = 6, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(size, dim, generator=generator), dim=1)


@every_variant
def test_registered_objectives_pass_the_conformance_kit(name: str, options: dict[str, str]) -> None:
    check_objective(lambda pairs: create(name, pairs, **options))


def test_only_acl_lets_trust_weigh_its_samples() -> None:
    assert [name for name in NAMES if create(name).trusts] == ["acl"]


# Pairs


@every_name
def test_an_objective_is_the_mean_over_its_pairs(name: str, generator: torch.Generator) -> None:
    views = {modality: unit(generator) for modality in ("image", "text", "audio")}
    weight, group = torch.linspace(0.2, 1, 6), torch.tensor([0, 1, 2, 0, 4, 5])
    both = create(name, PAIRS)(views, weight, group)
    each = [create(name, [pair])(views, weight, group) for pair in PAIRS]
    torch.testing.assert_close(both.loss, (each[0].loss + each[1].loss) / 2)
    torch.testing.assert_close(both.agreement, (each[0].agreement + each[1].agreement) / 2)


@every_name
@pytest.mark.parametrize("pair", PAIRS)
def test_a_batch_that_lacks_a_modality_uses_only_the_pairs_that_it_holds(
    name: str, pair: tuple[str, str], generator: torch.Generator
) -> None:
    objective = create(name, PAIRS)
    views = {modality: unit(generator).requires_grad_() for modality in pair}
    weight, group = torch.ones(6), torch.arange(6)
    tested, expected = objective(views, weight, group), create(name, [pair])(views, weight, group)
    torch.testing.assert_close(tested, expected)
    tested.loss.backward()
    learnt = {key.partition(".")[2] for key, one in objective.named_parameters() if one.grad is not None}
    assert learnt <= {"-".join(pair)}


@every_name
def test_a_modality_beyond_the_pairs_is_left_alone(name: str, generator: torch.Generator) -> None:
    views = {modality: unit(generator).requires_grad_() for modality in ("image", "text", "depth")}
    create(name, PAIRS)(views, torch.ones(6), torch.arange(6)).loss.backward()
    assert views["depth"].grad is None
    assert views["image"].grad is not None


@every_name
def test_equal_numbers_in_group_mean_one_group_whatever_the_numbers(name: str, generator: torch.Generator) -> None:
    views, weight, objective = {key: unit(generator) for key in ("image", "text")}, torch.ones(6), create(name, PAIRS)
    tested = objective(views, weight, torch.tensor([7, 7, -1, 2**40, -1, 3]))
    torch.testing.assert_close(tested, objective(views, weight, torch.tensor([0, 0, 1, 2, 1, 3])))
    assert not torch.equal(tested.loss, objective(views, weight, torch.arange(6)).loss)


# Temperature, scale and bias


@every_scaled
def test_every_pair_has_a_temperature_of_its_own(name: str) -> None:
    objective = create(name, PAIRS, temperature=0.1)
    assert {key: value.exp().item() for key, value in objective.named_parameters()} == pytest.approx(
        {"log_scale.image-text": 10, "log_scale.image-audio": 10}
    )


def test_every_pair_has_a_scale_and_a_bias_of_its_own() -> None:
    objective = create("siglip", PAIRS, scale=10.0, bias=-10.0)
    assert {name: value.item() for name, value in objective.named_parameters()} == pytest.approx(
        {f"log_scale.{pair}": math.log(10) for pair in ("image-text", "image-audio")}
        | {f"bias.{pair}": -10 for pair in ("image-text", "image-audio")}
    )


@pytest.mark.parametrize("name", ["info-nce", "siglip"])
def test_the_scale_of_one_pair_does_not_touch_the_loss_of_another(name: str, generator: torch.Generator) -> None:
    objective = create(name, PAIRS)
    views = {modality: unit(generator) for modality in ("image", "text", "audio")}
    weight, group = torch.ones(6), torch.arange(6)
    text_only = {modality: views[modality] for modality in ("image", "text")}
    before, both = objective(text_only, weight, group).loss, objective(views, weight, group).loss
    with torch.no_grad():
        objective.log_scale["image-audio"] += 0.1
    assert torch.equal(objective(text_only, weight, group).loss, before)
    assert not torch.equal(objective(views, weight, group).loss, both)


@every_scaled
def test_a_temperature_is_learnt_only_if_it_is_asked_for_but_the_views_always_are(
    name: str, generator: torch.Generator
) -> None:
    for learn in (True, False):
        objective = create(name, temperature=0.2, learn_temperature=learn)
        views = {side: unit(generator).requires_grad_() for side in "ab"}
        objective(views, torch.ones(6), torch.arange(6)).loss.backward()
        assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views.values())
        assert [one.grad is not None for one in objective.parameters()] == [learn]


def test_well_aligned_views_make_the_temperature_fall(generator: torch.Generator) -> None:
    objective, a = create("info-nce", temperature=0.2), unit(generator)
    objective({"a": a, "b": a}, torch.ones(6), torch.arange(6)).loss.backward()
    assert objective.log_scale["a-b"].grad < 0


def at(scale: float) -> dict[str, dict[str, float]]:
    """Return options that ask for one scale."""
    return {name: {"temperature": 1 / scale} for name in SCALED} | {"siglip": {"scale": scale}}


@pytest.mark.parametrize("name", [*SCALED, "siglip"])
def test_the_scale_is_clamped_at_100(name: str, generator: torch.Generator) -> None:
    a, b, weight, group = unit(generator), unit(generator), torch.ones(6), torch.arange(6)
    tested = create(name, **at(1000.0)[name])({"a": a, "b": b}, weight, group)
    torch.testing.assert_close(
        tested, create(name, **at(100.0)[name])({"a": a, "b": b}, weight, group), rtol=1e-4, atol=0
    )
    lower = create(name, **at(90.0)[name])({"a": a, "b": b}, weight, group)
    assert not torch.allclose(tested.loss, lower.loss, rtol=1e-3)


@pytest.mark.parametrize("name", ["info-nce", "siglip"])
def test_a_scale_that_reached_the_clamp_can_come_down_again(name: str, generator: torch.Generator) -> None:
    # CLIP clamps the parameter itself after each step, which leaves its gradient alone.
    objective = create(name, **at(1000.0)[name])
    views = {"a": unit(generator), "b": unit(generator)}  # unrelated, so that a lower scale is better
    objective(views, torch.ones(6), torch.arange(6)).loss.backward()
    assert objective.log_scale["a-b"].grad > 0


# Options


@pytest.mark.parametrize(
    ("name", "options", "loss"),
    [
        ("acl", {}, acl),
        ("gce", {"q": 0.3}, functools.partial(gce, q=0.3)),
        ("info-nce", {}, info_nce),
        ("label-smoothing", {"smoothing": 0.4}, functools.partial(smoothed, smoothing=0.4)),
        ("rcl", {"complement": "gce", "q": 0.3}, functools.partial(rcl, complement="gce", q=0.3)),
        ("rcl", {"complement": "tan"}, functools.partial(rcl, complement="tan", q=0.5)),
        ("rince", {"q": 0.3, "density": 0.6}, functools.partial(rince, q=0.3, density=0.6)),
    ],
)
def test_an_objective_is_its_loss_at_the_temperature_and_options_that_it_was_given(
    name: str, options: dict[str, object], loss: Callable[..., Alignment], generator: torch.Generator
) -> None:
    a, b, weight, group = unit(generator), unit(generator), torch.linspace(0.2, 1, 6), torch.tensor([0, 1, 2, 3, 0, 5])
    tested = create(name, temperature=0.1, **options)({"a": a, "b": b}, weight, group)
    expected = loss(a, b, torch.tensor(10.0), group[:, None] == group, weight)
    torch.testing.assert_close(tested, expected)


@pytest.mark.parametrize(("given", "bias"), [({"bias": -3.0}, -3.0), ({}, -math.log(6))])
def test_siglip_has_the_bias_that_it_was_given_or_that_of_its_batch(
    given: dict[str, float], bias: float, generator: torch.Generator
) -> None:
    a, b, weight, same = unit(generator), unit(generator), torch.ones(6), torch.eye(6, dtype=torch.bool)
    tested = create("siglip", scale=10.0, **given)({"a": a, "b": b}, weight, torch.arange(6))
    torch.testing.assert_close(tested, siglip(a, b, torch.tensor(10.0), torch.tensor(bias), same, weight))


@pytest.mark.parametrize("mining", TRIPLETS)
@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_triplet_has_the_margin_and_mining_that_it_was_given(
    mining: Mining, margin: float, generator: torch.Generator
) -> None:
    a, b, weight, same = unit(generator), unit(generator), torch.ones(6), torch.eye(6, dtype=torch.bool)
    tested = create("triplet", margin=margin, mining=mining)({"a": a, "b": b}, weight, torch.arange(6))
    torch.testing.assert_close(tested, triplet(a, b, margin, mining, same, weight))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *((name, "temperature", value) for name in SCALED for value in (0, -1)),
        *((name, "q", value) for name in ("gce", "rcl", "rince") for value in (0, -0.5, 2)),
        *(("label-smoothing", "smoothing", value) for value in (0, 1)),
        *(("rince", "density", value) for value in (0, 2)),  # above 1 it pushes partners apart
        ("rcl", "complement", "square"),
        ("siglip", "scale", 0),
        ("triplet", "margin", 0),
        ("triplet", "mining", "hard"),
    ],
)
def test_an_option_out_of_range_is_an_input_error_that_names_it(name: str, option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"'{name}', option {option}\b.*\(given: {value!r}\)"):
        create(name, **{option: value})


def test_a_rince_that_would_overflow_is_refused() -> None:
    with pytest.raises(InputError, match=r"exp\(q / temperature\) overflows at q 1.0 and temperature 0.01"):
        CATALOG.create("objectives", "rince", PAIRS, options={"q": 1.0, "learn_temperature": True})
