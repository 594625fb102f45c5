from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_ssl.embed import Embedded
from multimodal_ssl.space_map import Plane, choose, draw_map, pca, projection

from .toys import refusal, units


def items(**counts: int) -> dict[str, Embedded]:
    """Return so many items of each name; the keys of a smaller modality are among those of a greater."""
    return {
        name: Embedded(units(count, seed=seed), keys := [str(i) for i in range(count)], keys)
        for seed, (name, count) in enumerate(counts.items())
    }


def test_the_plane_is_that_of_the_eigenvectors_of_the_covariance() -> None:
    vectors = units(50) * np.linspace(1, 2, 8, dtype=np.float32) + 5
    places, axes = pca(vectors)
    values, axes_of = np.linalg.eigh(np.cov(vectors.astype(np.float64).T, bias=True))
    wanted = (vectors - vectors.mean(0, dtype=np.float64)) @ axes_of[:, [-1, -2]]
    assert np.abs(places) == pytest.approx(np.abs(wanted), abs=1e-6)
    assert places.var(0) == pytest.approx(values[[-1, -2]])
    shares = (values / values.sum())[[-1, -2]]
    assert axes == tuple(f"principal axis {i + 1}, {share:.1%} of the variance" for i, share in enumerate(shares))
    assert (places[np.abs(places).argmax(0), [0, 1]] > 0).all()
    assert pca(vectors[::-1].copy()).places[::-1] == pytest.approx(places, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_or_equal_items_have_a_place_too(count: int) -> None:
    assert np.isfinite(pca(units(count)).places).all()
    assert pca(np.repeat(units(1), count, 0)).axes[0].endswith(", 0.0% of the variance")


def test_a_line_needs_an_item_of_two_modalities_and_all_its_items_are_drawn() -> None:
    some = items(a=200, b=200, c=20)
    rows, joined = choose(some, dots=90, samples=30)
    assert {name: len(one) for name, one in rows.items()} == {"a": 30, "b": 30, "c": 20}
    for name, one in rows.items():
        assert len(set(one.tolist())) == len(one)
        assert {key for key in joined if key in some[name].keys} <= {some[name].keys[row] for row in one}
    assert 10 <= sum(key in some["c"].keys for key in joined) <= 20, "a rare modality has its lines"
    again, _ = choose(some, dots=90, samples=30)
    assert all((one == again[name]).all() for name, one in rows.items())
    apart = {"a": some["a"], "b": Embedded(units(9), [f"x{i}" for i in range(9)], [""] * 9)}
    assert choose(apart)[1] == []
    whole, _ = choose(some)
    assert {name: len(one) for name, one in whole.items()} == {"a": 200, "b": 200, "c": 20}


def test_every_dot_of_the_picture_is_laid_out_and_modalities_have_colours(tmp_path: Path) -> None:
    seen = []

    def project(vectors: np.ndarray) -> Plane:
        seen.append(len(vectors))
        return pca(vectors)

    draw_map(tmp_path / "new" / "map", items(a=60, b=50), project)
    assert seen == [110]
    pixels = np.asarray(Image.open(tmp_path / "new" / "map").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (np.abs(pixels - colour).sum(1) < 6).sum() > 100
    draw_map(tmp_path / "one.png", items(a=1))
    assert (tmp_path / "one.png").exists()


def test_umap_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    message = refusal(lambda: projection("umap"))
    assert "install it with `pip install 'multimodal-ssl[umap]'`" in message
    assert projection("pca") is pca


def test_umap_keeps_neighbours() -> None:
    project = projection("umap")
    vectors = np.concatenate([0.1 * units(40, seed=seed) + units(1, seed=seed + 9) for seed in (0, 1)])
    places, axes = project(vectors)
    assert places.shape == (80, 2)
    assert axes[1] == "UMAP 2"
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.diag(np.full(80, np.inf))
    assert (apart.argmin(1) // 40 == np.arange(80) // 40).all()
    assert project(vectors[:5]).places.shape == (5, 2)
    assert "needs 4 items at least (given: 3)" in refusal(lambda: project(vectors[:3]))
