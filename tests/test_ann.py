from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl import InputError, ann
from multimodal_ssl.exact import exact, exact_allowed

from .toys import units


def clusters(count: int, *, seed: int, width: int = 32) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    vectors = (
        2 * units(60, width, seed=99)[rng.integers(60, size=count)] + rng.standard_normal((count, width)) / width**0.5
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "FLAT", 1000)
    monkeypatch.setattr(ann, "TRIAL", 2000)


def test_few_vectors_are_compared_one_by_one() -> None:
    structure, measured = ann.build(clusters(900, seed=0))
    assert structure is None
    assert min(measured.recall.values()) == 1


@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_the_chosen_structure_has_the_wanted_recall_on_unseen_queries_of_both_sorts(recall: float) -> None:
    items, other = clusters(6000, seed=0), units(500, 32, seed=7)
    structure, measured = ann.build(items, recall=recall, queries={"of text": other})
    assert structure
    assert measured.tried.keys() == {kind for kind, design in ann.DESIGNS.items() if design.automatic}
    assert measured.recall.keys() == {"of its own", "of text"}
    for queries in (clusters(400, seed=5), units(400, 32, seed=8)):
        truth = exact(items, queries, 10)[0]
        scores, rows = structure.nearest(items, queries, 10)
        assert ann.recall_of(rows, scores, truth) >= recall - 0.03
        np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", items[rows], queries), rtol=1e-4)


def test_a_structure_fits_into_the_memory_or_is_refused() -> None:
    items = clusters(5000, seed=0)
    for memory in (2e6, 6e5, 1.5e5):
        structure, measured = ann.build(items, recall=0.8, memory=memory)
        assert structure
        assert len(structure.to_bytes()) == measured.bytes <= memory
    with pytest.raises(InputError, match="do not fit into 10,000 bytes: binary is the smallest"):
        ann.build(items, memory=1e4)


def test_the_smallest_of_the_about_fastest_with_the_recall_comes_first() -> None:
    tried = {
        "slow": {"recall": 1.0, "queries_per_second": 50.0, "bytes": 1.0},
        "large": {"recall": 1.0, "queries_per_second": 100.0, "bytes": 9.0},
        "small": {"recall": 0.96, "queries_per_second": 95.0, "bytes": 2.0},
        "wrong": {"recall": 0.7, "queries_per_second": 999.0, "bytes": 1.0},
    }
    assert ann._ranked(tried, 0.95) == ["small", "large", "slow", "wrong"]


def test_answers_are_a_function_of_what_was_saved() -> None:
    items, queries = clusters(3000, seed=0), clusters(50, seed=1)
    for kind in ann.DESIGNS:
        structure, _ = ann.build(items, kind=kind, recall=0.9)
        assert structure
        again = ann.Structure.from_bytes(
            structure.to_bytes(), kind=kind, count=len(items), effort=structure.effort, widen=structure.widen
        )
        for one, other in zip(structure.nearest(items, queries, 10), again.nearest(items, queries, 10), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("share", [0.9, 0.2, 0.002])
def test_comparing_the_allowed_ones_is_comparing_all_of_these(share: float) -> None:
    items, queries = clusters(3000, seed=0), clusters(40, seed=1)
    allowed = np.random.default_rng(0).random(3000) < share
    scores, rows = exact_allowed(items, queries, 10, allowed)
    cosines = np.where(allowed, queries @ items.T, -np.inf)
    expected = np.sort(cosines, axis=1)[:, ::-1][:, : min(10, allowed.sum())]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), scores, atol=1e-6)
    assert exact_allowed(items, queries, 10, np.zeros(3000, bool))[0].shape == (40, 0)
