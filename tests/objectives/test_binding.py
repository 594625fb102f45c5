"""Objectives made of others: which pairs teach, how they are balanced, and what the parts get."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl import Catalog, InputError, objectives
from multimodal_ssl.objectives.contrastive import info_nce as info_nce_loss
from multimodal_ssl.testing import check_objective

CATALOG = Catalog.of(objectives=objectives)
PAIRS = [("image", "text"), ("image", "audio"), ("text", "audio")]


def make(name: str, pairs=PAIRS, **options):
    return CATALOG.create("objectives", name, pairs, options=options)


def views(*names: str, batch: int = 8, dim: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: F.normalize(torch.randn(batch, dim, generator=generator), dim=1).requires_grad_() for name in names}


def given(batch: int = 8) -> tuple[Tensor, Tensor]:
    return torch.linspace(0.3, 1, batch), torch.arange(batch)


def loss_of(objective, found: dict[str, Tensor]) -> Tensor:
    return objective(found, *given()).loss


def pair_loss(found: dict[str, Tensor], a: str, b: str, scale: float = 1 / 0.07) -> Tensor:
    weight, group = given()
    return info_nce_loss(found[a], found[b], torch.tensor(scale), group[:, None] == group[None], weight).loss


@pytest.mark.parametrize(
    "options",
    [
        {"name": "pairs"},
        {"name": "pairs", "of": "siglip"},
        {"name": "anchor", "anchor": "a"},
        {"name": "centroid"},
        {"name": "centroid", "of": {"name": "acl"}},
        {"name": "matryoshka", "widths": [2, 4]},
        {"name": "matryoshka", "widths": [4], "of": {"name": "pairs", "of": "gce"}},
        {"name": "symile", "negatives": "all"},
        {"name": "gram", "anchor": "a"},
    ],
)
def test_they_conform(options) -> None:
    options = dict(options)
    name = options.pop("name")
    check_objective(lambda pairs: make(name, pairs, **options))


def test_anchor_learns_from_the_pairs_with_the_anchor_alone() -> None:
    objective, found = make("anchor", anchor="image"), views("image", "text", "audio")
    expected = (pair_loss(found, "image", "text") + pair_loss(found, "image", "audio")) / 2
    torch.testing.assert_close(loss_of(objective, found), expected)


@pytest.mark.parametrize(
    ("options", "three", "two", "others"),
    [
        ({"name": "info-nce"}, 3, 1, 1),
        ({"name": "siglip"}, 3, 1, 1),
        ({"name": "anchor", "anchor": "image"}, 2, 1, 0),
        ({"name": "matryoshka", "widths": [2], "of": {"name": "anchor", "anchor": "image"}}, 2, 1, 0),
        ({"name": "pairs"}, 1, 1, 1),
        ({"name": "centroid"}, 3, 2, 2),
        ({"name": "symile"}, 1, 1, 1),
        ({"name": "gram", "anchor": "image"}, 1, 1, 0),
    ],
)
def test_each_tells_how_many_losses_it_is_the_mean_of(options, three, two, others) -> None:
    options = dict(options)
    objective = make(options.pop("name"), **options)
    assert objective.terms(("audio", "image", "text")) == three
    assert objective.terms(("audio", "image")) == two
    assert objective.terms(("audio", "text")) == others
    assert objective.terms(("image",)) == 0


def test_an_anchor_that_something_never_meets_is_refused() -> None:
    with pytest.raises(InputError, match="'anchor': depth stands in no source together with the anchor 'image'"):
        make("anchor", [*PAIRS, ("text", "depth")], anchor="image")
    with pytest.raises(InputError, match="'anchor', option anchor: no source has 'imge': did you mean 'image'"):
        make("anchor", anchor="imge")


def test_pairs_is_the_mean_where_all_stand_together() -> None:
    objective, found = make("pairs"), views("image", "text", "audio")
    expected = torch.stack([pair_loss(found, *pair) for pair in PAIRS]).mean()
    torch.testing.assert_close(loss_of(objective, found), expected)


def test_a_rare_pair_counts_as_much_as_a_common_one() -> None:
    objective, found = make("pairs", PAIRS[:2]), views("image", "text", "audio")
    parts = {"text": 0.0, "audio": 0.0}
    alone = {name: float(pair_loss(found, "image", name)) for name in parts}
    for turn in range(4000):
        name = "audio" if turn % 10 == 9 else "text"
        with torch.no_grad():
            loss = float(loss_of(objective, {"image": found["image"], name: found[name]}))
        if turn >= 1000:
            parts[name] += loss / alone[name]
    assert parts["audio"] == pytest.approx(parts["text"], rel=0.01)
    assert sum(parts.values()) == pytest.approx(3000, rel=0.01)


def test_weights_of_pairs_are_what_they_count() -> None:
    objective, found = make("pairs", weights={"text-image": 3}), views("image", "text", "audio")
    losses = [pair_loss(found, *pair) for pair in PAIRS]
    torch.testing.assert_close(loss_of(objective, found), (3 * losses[0] + losses[1] + losses[2]) / 5)
    with pytest.raises(InputError, match="'pairs', option weights: 'text-image' is given twice"):
        make("pairs", weights={"image-text": 2, "text-image": 3})
    with pytest.raises(InputError, match="'pairs', option weights: no source has the pair 'image-txt'"):
        make("pairs", weights={"image-txt": 1})


def test_how_often_pairs_were_met_is_part_of_the_state() -> None:
    first, found = make("pairs"), views("image", "text", "audio")
    for _ in range(3):
        loss_of(first, {name: found[name] for name in ("image", "text")})
    second = make("pairs")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(loss_of(second, found), loss_of(first, found))


def test_each_pair_has_a_temperature_of_its_own() -> None:
    names = {name for name, _ in make("pairs").named_parameters()}
    assert names == {f"parts.{a}-{b}.log_scale.{a}-{b}" for a, b in PAIRS}


def test_centroid_is_each_against_the_mean_of_the_others_which_learns_nothing() -> None:
    objective, found = make("centroid"), views("image", "text", "audio")
    loss = loss_of(objective, found)
    expected = 0
    for name, view in found.items():
        rest = F.normalize(sum(other for key, other in found.items() if key != name), dim=1).detach()
        expected = expected + pair_loss({name: view, "others": rest}, name, "others") / 3
    torch.testing.assert_close(loss, expected)
    for one, other in zip(
        torch.autograd.grad(loss, list(found.values())),
        torch.autograd.grad(expected, list(found.values())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_matryoshka_is_the_mean_over_the_first_dimensions() -> None:
    objective, found = make("matryoshka", PAIRS[:1], widths=[2, 3]), views("image", "text")
    parts = [
        pair_loss({name: F.normalize(view[:, :width], dim=1) for name, view in found.items()}, "image", "text")
        for width in (2, 3, 6)
    ]
    torch.testing.assert_close(loss_of(objective, found), torch.stack(parts).mean())
    with pytest.raises(InputError, match="'matryoshka', option widths: give each width once"):
        make("matryoshka", widths=[2, 2])
    with pytest.raises(InputError, match="6 of binder"):
        loss_of(make("matryoshka", PAIRS[:1], widths=[2, 6]), found)


def test_distil_follows_the_similarities_of_the_teachers() -> None:
    objective = make("distil", PAIRS[:1], teachers={"image": "it", "text": "tt"}, share=0.25, temperature=0.1)
    found = views("image", "text") | {
        name: F.normalize(torch.randn(8, 11, generator=torch.Generator().manual_seed(seed)), dim=1)
        for seed, name in enumerate(("it", "tt"), 1)
    }
    weight, _ = given()
    teacher, student = 10 * found["it"] @ found["tt"].T, 10 * found["image"] @ found["text"].T
    kl = 0
    for mine, theirs in ((student, teacher), (student.T, teacher.T)):
        p, q = theirs.softmax(1), mine.softmax(1)
        kl = kl + ((p * (p / q).log()).sum(1) * weight).sum() / weight.sum() / 2
    torch.testing.assert_close(loss_of(objective, found), 0.75 * pair_loss(found, "image", "text") + 0.25 * kl)
    taught = {name: found[name] for name in ("image", "text")}
    torch.testing.assert_close(loss_of(objective, taught), pair_loss(found, "image", "text"))


def test_teachers_of_one_item_alone_are_refused() -> None:
    with pytest.raises(InputError, match="'distil', option teachers: give those of two items at least"):
        make("distil", teachers={"image": "it"})
    with pytest.raises(InputError, match="'distil', option teachers: no source has 'img' in a pair"):
        make("distil", teachers={"img": "it", "text": "tt"})


def test_what_an_objective_is_made_of_is_checked_like_itself() -> None:
    with pytest.raises(InputError, match="no objective is named 'info-nse': did you mean 'info-nce'"):
        make("anchor", anchor="image", of="info-nse")
    with pytest.raises(InputError, match="'info-nce' has no option 'q'"):
        make("anchor", anchor="image", of={"name": "info-nce", "q": 1})
