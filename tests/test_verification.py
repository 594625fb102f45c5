from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.metrics import auroc
from multimodal_ssl.resampling import times_drawn
from multimodal_ssl.verification import Pairs, draw_pairs, draw_roc, needed, verify, verify_items

from .toys import units


def drawn(rng: np.random.Generator, right: int, wrong: int, *, levels: int) -> Pairs:
    """Return pairs whose scores have so many levels; of the right ones they are higher."""
    is_right = np.arange(right + wrong) < right
    scores = np.floor(rng.random(right + wrong) * levels + is_right * levels * 0.4)
    groups = rng.integers(0, 20, right + wrong)
    return Pairs(scores, is_right, groups, np.where(is_right, groups, (groups + 1) % 20))


@pytest.mark.parametrize("levels", [4, 30, 10_000])
def test_rates_agree_with_a_loop_over_all_thresholds(levels: int) -> None:
    pairs = drawn(np.random.default_rng(levels), 60, 400, levels=levels)
    found = verify(pairs, fars=(0.1, 0.5))
    curve = []
    for threshold in [np.inf, *sorted(set(pairs.scores), reverse=True)]:
        accepted = pairs.scores >= threshold
        curve.append((accepted[~pairs.right].mean(), accepted[pairs.right].mean()))
    for far in (0.1, 0.5):
        assert found.tar[far].value == max(tar for rate, tar in curve if rate <= far)
        assert found.tar[far].chance == far
    assert found.auroc.value == pytest.approx(auroc(pairs.scores, pairs.right))
    before, after = next((one, other) for one, other in itertools.pairwise(curve) if other[0] >= 1 - other[1])
    step = np.linspace(0, 1, 100_001)
    far, tar = ((1 - step) * one + step * other for one, other in zip(before, after, strict=True))
    nearest = np.abs(far - (1 - tar)).argmin()
    assert found.eer.value == pytest.approx(far[nearest], abs=1e-4)
    assert set(found.roc) <= set(curve)


def test_a_known_case_has_the_known_rates() -> None:
    scores = np.array([9, 8, 5, 3, 7, *[4] * 9, *[1] * 290], float)
    right = np.arange(len(scores)) < 4
    found = verify(Pairs(scores, right, np.arange(304), np.arange(304)), fars=(0.1,))
    assert found.tar[0.1].value == 1, "the threshold 3 accepts 10 of 300"
    assert found.eer.value == pytest.approx(10 / 300)


def test_pairs_that_all_tie_are_no_better_than_chance() -> None:
    pairs = drawn(np.random.default_rng(0), 50, 400, levels=10)._replace(scores=np.ones(450))
    found = verify(pairs, fars=(0.1,))
    assert (found.auroc.value, found.eer.value) == (0.5, 0.5)
    assert found.tar[0.1].value == 0, "no threshold accepts a tenth of them"
    assert found.roc == [(0, 0), (1, 1)]


def test_pairs_told_apart_without_error_have_none() -> None:
    pairs = drawn(np.random.default_rng(0), 50, 400, levels=10)
    found = verify(pairs._replace(scores=pairs.right.astype(float)), fars=(0.1,))
    assert (found.auroc.value, found.eer.value, found.tar[0.1].value) == (1, 0, 1)


def test_a_rate_that_so_many_pairs_can_not_resolve_is_refused_or_left_out() -> None:
    pairs = drawn(np.random.default_rng(0), 50, 400, levels=10)
    assert list(verify(pairs).tar) == [0.1]
    with pytest.raises(InputError, match=r"400 wrong pairs can't resolve a FAR of 0\.01: it takes 3,000"):
        verify(pairs, fars=(0.1, 0.01))
    with pytest.raises(InputError, match="needs right pairs and wrong ones"):
        verify(pairs._replace(right=np.ones(450, bool)))
    assert [needed(far) for far in (0.1, 0.01, 0.001, 0.0001)] == [300, 3000, 30_000, 300_000]


def test_the_interval_is_as_wide_as_groups_make_it() -> None:
    rng = np.random.default_rng(1)
    few = drawn(rng, 80, 400, levels=100)
    again = Pairs(*(np.tile(one, 5) for one in few))
    one, other = verify(few, fars=(0.1,)), verify(again, fars=(0.1,))
    assert one.eer == other.eer, "the same pairs again are no more evidence"
    assert one.eer.low < one.eer.value < one.eer.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_ssl.verification.times_drawn", functools.partial(times_drawn, resamples=200))
    rng, covered = np.random.default_rng(2), 0
    a, b = np.divmod(np.arange(900), 30)
    for _ in range(100):
        own, other = rng.normal(size=30), rng.normal(size=30)
        scores = own[a] + other[b] + 1.5 * (a == b) + rng.normal(0, 2**0.5, 900)
        found = verify(Pairs(scores, a == b, a, b), fars=())
        covered += int(found.auroc.low <= 0.7021 <= found.auroc.high)  # Phi(1.5 / sqrt(8))
    assert 0.88 <= covered / 100 <= 0.99


def shelves(count: int, groups: int, *, seed: int) -> Embedded:
    rng = np.random.default_rng(seed)
    names = [str(one) for one in rng.integers(0, groups, count)]
    return Embedded(units(count, 6, seed=seed), [str(i) for i in range(count)], names)


def test_drawn_pairs_are_right_by_group_and_wrong_by_group() -> None:
    a, b = shelves(40, 8, seed=0), shelves(30, 9, seed=1)
    pairs = draw_pairs(a, b, wrong=500)
    assert ((pairs.groups == pairs.other_groups) == pairs.right).all()
    assert pairs.right.sum() == sum(group in b.groups for group in a.groups)
    assert 300 < (~pairs.right).sum() < 500
    for one, other in zip(pairs, draw_pairs(a, b, wrong=500), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(draw_pairs(a, b, wrong=500, seed=1).scores, pairs.scores)
    every = draw_pairs(a, b)
    assert (~every.right).sum() == sum(one != other for one in a.groups for other in b.groups)
    cosines = (a.vectors @ b.vectors.T)[np.array(a.groups)[:, None] != np.array(b.groups)]
    np.testing.assert_allclose(np.sort(every.scores[~every.right]), np.sort(cosines), rtol=1e-5, atol=1e-6)


def test_all_names_that_share_a_group_are_verified_and_drawn(tmp_path: Path) -> None:
    items = {"a": shelves(40, 8, seed=0), "b": shelves(30, 9, seed=1), "c": shelves(20, 3, seed=2)}
    items["c"].groups = ["elsewhere"] * 20
    found = verify_items(items)
    assert list(found) == [("a", "b")]
    assert found["a", "b"].right <= 40
    draw_roc(tmp_path / "plots" / "roc.curve", found)
    with Image.open(tmp_path / "plots" / "roc.curve") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    with pytest.raises(InputError, match="no two modalities of the evaluation share a group: a, c"):
        verify_items({name: items[name] for name in "ac"})


def test_a_resample_has_every_pair_as_often_as_its_groups_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    pairs = drawn(rng, 60, 400, levels=12)
    times = rng.integers(0, 3, (1, 20))
    monkeypatch.setattr("multimodal_ssl.verification.times_drawn", lambda _: iter([times]))
    found = verify(pairs, fars=(0.1,))
    often = np.where(pairs.right, times[0, pairs.groups], times[0, pairs.groups] * times[0, pairs.other_groups])
    monkeypatch.setattr("multimodal_ssl.verification.times_drawn", lambda _: iter([np.ones((1, 20), int)]))
    again = verify(Pairs(*(np.repeat(one, often) for one in pairs)), fars=(0.1,))
    for one, other in ((found.auroc, again.auroc), (found.eer, again.eer), (found.tar[0.1], again.tar[0.1])):
        assert one.low == one.high == pytest.approx(other.value)
