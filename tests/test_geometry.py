from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from multimodal_ssl import geometry
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.geometry import (
    chance_skewness,
    distances_by_group,
    effective_rank,
    even_uniformity,
    measure_space,
    occurrences,
    sample,
    skewness,
    uniformity,
)

from .toys import units


def circle(count: int) -> np.ndarray:
    """Return so many points at equal distances on the unit circle."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_uniformity_is_that_of_a_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "TILE", 7)
    vectors = units(30)
    wide = vectors.astype(np.float64)
    pairs = [math.exp(-2 * ((x - y) ** 2).sum()) for x, y in itertools.combinations(wide, 2)]
    assert uniformity(vectors) == pytest.approx(math.log(np.mean(pairs)), abs=1e-5)


def test_uniformity_of_one_point_is_zero_and_of_a_circle_the_closed_form() -> None:
    assert uniformity(np.repeat(units(1), 50, 0)) == pytest.approx(0, abs=1e-5)
    assert uniformity(units(1)) is None
    # The mean over the circle is e^-4 I0(4); of n points it is that with each point's distance to itself among n.
    mean, count = math.exp(-4) * np.i0(4), 64
    assert even_uniformity(2) == pytest.approx(math.log(mean))
    assert uniformity(circle(count)) == pytest.approx(math.log((count * mean - 1) / (count - 1)), abs=1e-5)
    assert even_uniformity(1) == pytest.approx(math.log((1 + math.exp(-8)) / 2))
    for dim in (3, 16):
        assert uniformity(units(4000, dim)) == pytest.approx(even_uniformity(dim), abs=0.01)
    assert even_uniformity(4096) == pytest.approx(-4, abs=0.01)


def test_effective_rank_is_that_of_the_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "TILE", 11)
    for count in (5, 40):
        vectors = units(count)
        shares = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
        shares /= shares.sum()
        assert effective_rank(vectors) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank(np.repeat(units(1), 30, 0)) == pytest.approx(1, abs=1e-9)
    assert effective_rank(np.concatenate([units(1), -units(1)])) == pytest.approx(1, abs=1e-9)
    assert effective_rank(np.tile(np.eye(6, dtype=np.float32), (9, 1))) == pytest.approx(6)


def test_alignment_is_that_of_all_pairs_of_a_group() -> None:
    a, b = units(12, 5), units(9, 5, seed=1)
    groups, others = np.array([*"aaabbbccdddx"]), np.array([*"bbaccccya"])
    apart, pairs = distances_by_group(a, b, hash64(groups), hash64(others))
    rows = [(i, j) for i in range(12) for j in range(9) if groups[i] == others[j]]
    assert pairs.sum() == len(rows) == 3 * 2 + 3 * 2 + 2 * 4
    assert apart.sum() == pytest.approx(sum(((a[i] - b[j]).astype(np.float64) ** 2).sum() for i, j in rows), rel=1e-6)


def test_occurrences_are_those_of_a_sort_and_ties_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "TILE", 7)
    queries, gallery = units(30), units(25, seed=1)
    nearest = np.argsort(-(queries.astype(np.float64) @ gallery.T.astype(np.float64)), 1)[:, :10]
    assert (occurrences(queries, gallery) == np.bincount(nearest.ravel(), minlength=25)).all()
    same = np.repeat(units(1), 40, 0)
    assert occurrences(queries, same) == pytest.approx(np.full(40, 30 * 10 / 40))
    assert occurrences(queries, gallery[:8]) == pytest.approx(np.full(8, 30)), "of few items each is found"
    copied = occurrences(queries, np.concatenate([gallery, gallery[:1]]))
    assert copied[0] == copied[-1]
    assert copied.sum() == pytest.approx(300)


def test_skewness_is_zero_of_what_is_even_and_that_of_a_binomial_by_chance() -> None:
    assert skewness(np.full(40, 7.5)) == 0
    assert skewness(np.array([1.0, 2, 3])) == pytest.approx(0)
    values = np.random.default_rng(0).gamma(2, size=200_000)
    assert skewness(values) == pytest.approx(math.sqrt(2), abs=0.03), "of a gamma distribution 2 / sqrt(shape)"
    drawn = np.random.default_rng(0).binomial(50, 10 / 40, size=400_000).astype(np.float64)
    assert chance_skewness(50, 40) == pytest.approx(skewness(drawn), abs=0.01)
    assert chance_skewness(50, 8) == 0


def test_identical_sets_have_no_gap_and_a_shift_is_one() -> None:
    keys = [str(i) for i in range(50)]
    vectors = units(50)
    (one,) = measure_space({"a": Embedded(vectors, keys, keys), "b": Embedded(vectors, keys, keys)}).distances
    assert one.alignment
    assert (one.gap, one.alignment.value, one.pairs, one.groups) == (0, 0, 50, 50)
    between = [((x - y) ** 2).sum() for x, y in itertools.product(vectors.astype(np.float64), repeat=2)]
    assert one.alignment.chance == pytest.approx(np.mean(between), rel=1e-5)
    (one,) = measure_space({"a": Embedded(vectors, keys, keys), "b": Embedded(-vectors, keys, keys)}).distances
    assert one.gap == pytest.approx(2 * np.linalg.norm(vectors.mean(0)), rel=1e-5)
    assert one.alignment
    assert (one.alignment.value, one.alignment.low, one.alignment.high) == pytest.approx((4, 4, 4))


def test_the_gap_by_chance_is_what_two_samples_show() -> None:
    keys = [str(i) for i in range(60)]
    centre = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    gaps, told = [], []
    for seed in range(200):
        a, b = (units(count, seed=2 * seed + side) + centre for side, count in ((0, 60), (1, 20)))
        a, b = ((one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (a, b))
        items = {"a": Embedded(a, keys, keys), "b": Embedded(b, keys[:20], keys[:20])}
        (one,) = measure_space(items).distances
        gaps.append(one.gap)
        told.append(one.gap_by_chance)
    assert np.sqrt(np.mean(np.square(gaps))) == pytest.approx(np.mean(told), rel=0.05)


def test_the_interval_of_alignment_is_over_groups() -> None:
    keys = [str(i) for i in range(400)]
    a, b = units(400, 3), units(400, 3, seed=1)
    items = {"a": Embedded(a, keys, keys), "b": Embedded(b, keys, keys)}
    (one,) = measure_space(items).distances
    apart = ((a - b) ** 2).sum(1)
    assert one.alignment
    half = 1.96 * apart.std() / math.sqrt(400)
    assert one.alignment.high - one.alignment.low == pytest.approx(2 * half, rel=0.1)
    twice = {name: Embedded(np.repeat(one.vectors, 2, 0), keys * 2, [*map(str, np.repeat(np.arange(400), 2))]) for
             name, one in items.items()}  # fmt: skip
    (again,) = measure_space(twice).distances
    assert again.alignment
    assert (again.pairs, again.groups) == (1600, 400)
    assert (again.alignment.low, again.alignment.high) == pytest.approx((one.alignment.low, one.alignment.high))


def test_of_many_items_a_sample_is_looked_at_and_told() -> None:
    assert sample(5, 9).tolist() == [0, 1, 2, 3, 4]
    rows = sample(1000, 100)
    assert len(set(rows.tolist())) == 100
    assert (rows == sample(1000, 100)).all()
    assert (rows != sample(1000, 100, seed=1)).any()
    keys = [str(i) for i in range(2000)]
    items = {name: Embedded(units(2000, 4, seed=seed), keys, keys) for seed, name in enumerate("ab")}
    whole, part = (measure_space(items, exact=exact) for exact in (2000, 500))
    assert (whole.shapes["a"].looked_at, part.shapes["a"].looked_at) == (2000, 500)
    assert (part.hubs[0].n, part.hubs[0].gallery_size) == (500, 500)
    assert part.shapes["a"].uniformity == pytest.approx(whole.shapes["a"].uniformity, abs=0.02)
    assert part.shapes["a"].effective_rank == whole.shapes["a"].effective_rank, "which is of all"
    assert part.distances == whole.distances


def test_modalities_without_a_group_in_common_have_a_gap_but_no_alignment() -> None:
    space = measure_space(
        {"a": Embedded(units(9), ["x"] * 9, ["x"] * 9), "b": Embedded(units(9), ["y"] * 9, ["y"] * 9)}
    )
    (one,) = space.distances
    assert (one.alignment, one.pairs, one.groups, one.gap) == (None, 0, 0, 0)
    assert space.hubs[0].skewness == 0, "there are no more than ten"
    alone = measure_space({"a": Embedded(units(9), ["x"] * 9, ["x"] * 9)})
    assert (list(alone.shapes), alone.distances, alone.hubs) == (["a"], [], [])
