from __future__ import annotations

import numpy as np
import pytest

from multimodal_ssl import neighbours as module
from multimodal_ssl.neighbours import neighbours


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def clouds(count: int, width: int = 16) -> np.ndarray:
    """Return unit vectors around 50 centres."""
    rng = np.random.default_rng(0)
    near = unit(rng, 50, width)[rng.integers(50, size=count)] + 0.3 * unit(rng, count, width)
    return near / np.linalg.norm(near, axis=1, keepdims=True)


def test_among_few_vectors_they_are_exact() -> None:
    vectors = clouds(300)
    wanted = np.argsort(-(vectors[:40] @ vectors.T), axis=1)[:, :10]
    assert (neighbours(vectors, vectors[:40], 10) == wanted).all()
    assert neighbours(vectors[:4], vectors[:40], 10).shape == (40, 4)


def test_among_many_nearly_all_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clouds(20_000)
    wanted = neighbours(vectors, vectors[:500], 10)
    monkeypatch.setattr(module, "EXACT", 1000)
    found = neighbours(vectors, vectors[:500], 10)
    assert (found[:, 0] == np.arange(500)).mean() > 0.99
    assert np.mean([np.isin(one, other).mean() for one, other in zip(wanted, found, strict=True)]) > 0.97


def test_where_too_few_are_found_the_nearest_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT", 10)
    monkeypatch.setattr(module, "PROBES", 1)
    vectors = clouds(1000)
    found = neighbours(vectors, vectors[:50], 900)
    assert found.min() >= 0
    assert all(len(set(one)) < 900 and one[-1] == one[0] for one in found)
