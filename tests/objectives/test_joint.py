"""Losses of tuples against the published formulas, written out as loops in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl import InputError, Objective
from multimodal_ssl.hookspecs import Pairs
from multimodal_ssl.objectives import gram as make_gram
from multimodal_ssl.objectives import symile as make_symile
from multimodal_ssl.objectives.joint import Symile, gram, mip, symile, volume
from multimodal_ssl.testing import check_objective

SCALE = torch.tensor(7.0, dtype=torch.float64)


def views(count: int, batch: int = 6, dim: int = 5, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(count, batch, dim, generator=generator, dtype=torch.float64)
    return [one.requires_grad_() for one in F.normalize(found, dim=-1)]


def alone(batch: int = 6) -> tuple[Tensor, Tensor]:
    return torch.arange(batch), torch.ones(batch, dtype=torch.float64)


def orders_of(count: int, batch: int = 6) -> list[Tensor]:
    """Shift each view by another number of rows, so that no shuffled tuple is whole by chance."""
    return [torch.arange(batch).roll(1 + shift) for shift in range(count)]


def symile_by_loops(given: list[Tensor], scale: Tensor, orders: list[Tensor] | None) -> Tensor:
    """Saporta et al. 2024, equation 5: cross entropy over MIPs, each modality being the anchor in turn."""
    batch, dim = given[0].shape
    losses = []
    for place, anchor in enumerate(given):
        others = [at for at in range(len(given)) if at != place]
        for i in range(batch):
            if orders is None:
                tuples = list(itertools.product(range(batch), repeat=len(others)))
                own = tuples.index((i,) * len(others))
            else:
                tuples = [tuple(int(orders[at][j]) for at in others) for j in range(batch)]
                tuples[i], own = (i,) * len(others), i
            logits = []
            for some in tuples:
                product = anchor[i]
                for at, j in zip(others, some, strict=True):
                    product = product * given[at][j]
                logits.append(scale * product.sum() * dim ** ((len(given) - 2) / 2))
            losses.append(-torch.stack(logits).log_softmax(0)[own])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_symile_is_the_published_loss(count: int) -> None:
    group, weight = alone()
    for orders in (orders_of(count), None)[count == 2 :]:  # of two, all tuples are as many as the shuffled ones
        given = views(count)
        loss = symile(given, SCALE, orders, group, weight).loss
        expected = symile_by_loops(given, SCALE, orders)
        assert abs(loss - expected) < 1e-12
        for one, other in zip(torch.autograd.grad(loss, given), torch.autograd.grad(expected, given), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_tuple_of_the_same_group_is_no_negative() -> None:
    given = views(3)
    group, weight = torch.tensor([0, 0, 1, 2, 3, 4]), torch.ones(6, dtype=torch.float64)
    loss = symile(given, SCALE, None, group, weight).loss
    terms = []
    for place, anchor in enumerate(given):
        a, b = (one for at, one in enumerate(given) if at != place)
        for i in range(6):
            rest = [
                SCALE * (anchor[i] * a[j] * b[k]).sum() * 5**0.5
                for j, k in itertools.product(range(6), repeat=2)
                if (j, k) == (i, i) or not (group[j] == group[i] == group[k])
            ]
            own = SCALE * (anchor[i] * a[i] * b[i]).sum() * 5**0.5
            terms.append(torch.stack(rest).logsumexp(0) - own)
    assert abs(loss - torch.stack(terms).mean()) < 1e-12


def test_mip_of_two_is_the_cosine_and_of_three_as_large_for_random_vectors() -> None:
    a, b = views(2)
    torch.testing.assert_close(mip([a, b]), (a * b).sum(1))
    three = mip(views(3, batch=4000, dim=64))
    assert three.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_all_tuples_of_a_large_batch_are_refused_in_figures() -> None:
    given = {name: torch.randn(800, 4) for name in "abc"}
    objective = Symile(3, temperature=0.1, learn_temperature=True, negatives="all")
    with pytest.raises(InputError, match=r"512,000,000: lower train.batch, or set negatives: linear"):
        objective(given, torch.ones(800), torch.arange(800))


def test_the_tuples_of_a_batch_are_the_same_in_every_process() -> None:
    objective = make_symile([("a", "b"), ("b", "c")])
    given = {name: view.float() for name, view in zip("abc", views(3), strict=True)}
    torch.manual_seed(1)
    first = objective(given, torch.ones(6), torch.arange(6)).loss
    torch.manual_seed(2)
    assert torch.equal(first, objective(given, torch.ones(6), torch.arange(6)).loss)
    assert not torch.equal(first, objective(given, torch.ones(6), torch.arange(6) + 1).loss)
    order = torch.tensor([3, 0, 5, 1, 4, 2])  # in which processes give their parts
    moved = {name: view[order] for name, view in given.items()}
    torch.testing.assert_close(objective(moved, torch.ones(6), torch.arange(6)[order]).loss, first)


def gram_determinant(vectors: Tensor) -> Tensor:
    return torch.linalg.det(vectors @ vectors.T).abs().sqrt()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_volumes_are_roots_of_gram_determinants(count: int) -> None:
    anchor, *others = views(count, dim=7)
    found = volume(anchor, others)
    for i, j in itertools.product(range(6), repeat=2):
        expected = gram_determinant(torch.stack([anchor[i], *(one[j] for one in others)]))
        assert abs(found[i, j] - expected) < 1e-9


def test_gram_is_infonce_of_negative_volumes_both_ways() -> None:
    anchor, *others = views(3)
    group, weight = alone()
    logits = -SCALE * volume(anchor, others)
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss = gram(anchor, others, SCALE, group[:, None] == group[None], weight).loss
    assert abs(loss - expected) < 1e-12
    assert torch.autograd.gradcheck(
        lambda *given: gram(given[0], given[1:], SCALE, group[:, None] == group[None], weight).loss, (anchor, *others)
    )


def test_gradients_stay_finite_where_vectors_are_parallel() -> None:
    one = views(1)[0].detach()
    given = [one.clone().requires_grad_() for _ in range(3)]
    same = torch.eye(6, dtype=torch.bool)
    gram(given[0], given[1:], SCALE, same, torch.ones(6, dtype=torch.float64)).loss.backward()
    assert all(view.grad is not None and torch.isfinite(view.grad).all() for view in given)


def test_both_conform() -> None:
    check_objective(lambda pairs: make_gram(pairs, anchor="a"))
    check_objective(lambda pairs: make_symile(pairs, negatives="all"))
    assert make_gram([("a", "b")], anchor="a").loss_at_chance(8) == math.log(8)


def test_an_anchor_that_no_source_has_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'gram', option anchor: no source has 'imgae': did you mean 'image'"):
        make_gram([("image", "text")], anchor="imgae")


def test_symile_answers_an_exclusive_or_that_pairs_say_nothing_of() -> None:
    """c = a xor b, bit by bit: any two of the three are independent."""
    from multimodal_ssl.objectives import info_nce

    bits, width = 6, 32

    def accuracy(make: Callable[[Pairs], Objective]) -> float:
        torch.manual_seed(0)
        towers = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(bits, 64), nn.ReLU(), nn.Linear(64, width)) for name in "abc"}
        )
        objective = make([("a", "b"), ("a", "c"), ("b", "c")])
        optimizer = torch.optim.AdamW([*towers.parameters(), *objective.parameters()], lr=5e-3)
        generator = torch.Generator().manual_seed(1)

        def draw(count: int) -> dict[str, Tensor]:
            a, b = (torch.randint(2, (count, bits), generator=generator).float() for _ in range(2))
            return {"a": a, "b": b, "c": (a + b) % 2}

        def embed(items: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: F.normalize(towers[name](2 * one - 1), dim=1) for name, one in items.items()}

        for _ in range(400):
            items = draw(128)
            codes = sum(items[name].long() @ (2 ** torch.arange(bits)) * 64**place for place, name in enumerate("ab"))
            loss = objective(embed(items), torch.ones(128), codes).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            items = draw(500)
            found = embed(items)
            every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)))
            gallery = F.normalize(towers["a"](2 * every - 1), dim=1)
            best = (found["b"] * found["c"] @ gallery.T).argmax(1)
            return float((every[best] == items["a"]).all(1).float().mean())

    assert accuracy(make_symile) > 0.95
    assert accuracy(info_nce) < 0.1  # chance is 1 / 64
