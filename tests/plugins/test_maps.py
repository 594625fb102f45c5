"""Maps of depth and of heat: the modalities and their encoder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

import mmssl_image
import mmssl_sources
from mmssl_image.map_conv import MapEncoder
from mmssl_image.maps import DEPTH, PREVIEW_SIZE, THERMAL, UNKNOWN
from multimodal_ssl import Catalog, Modality
from multimodal_ssl.testing import check_encoder, check_modality

from ..toys import refusal
from .tables import open_table, write

CATALOG = Catalog.of(image=mmssl_image, sources=mmssl_sources)
Array = NDArray[Any]


def scene(seed: int = 0, *, shape: tuple[int, int] = (30, 40), near: bool = True) -> Array:
    """Return a wall some metres away and a disc before it (or a hole in it), with a corner that is unknown."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / min(shape)
    y, x, wall = rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8), rng.uniform(2, 6)
    inside = (rows - y) ** 2 + (columns - x) ** 2 < 0.04
    found = np.where(inside, wall * (0.6 if near else 1.5), wall) * rng.uniform(0.99, 1.01, shape)
    found[:5, :8] = np.nan
    return found.astype(np.float32)


def millimetres(item: Array) -> Array:
    return (np.nan_to_num(item) * 1000).round().astype(np.uint16)


def encoded(array: Array, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, array)
    else:
        Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def build(name: str = "depth-conv", **options: Any) -> MapEncoder:
    torch.manual_seed(0)
    made = CATALOG.create("encoders", name, options={"size": 24, "width": 16, **options})
    assert isinstance(made, MapEncoder)
    return made


@pytest.mark.parametrize("modality", [DEPTH, THERMAL])
def test_the_modalities_conform(modality: Modality, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(millimetres(scene()), "PNG"))
    assert CATALOG.modality(modality.name) is modality
    values = [path, str(path), path.read_bytes(), scene(), scene()[..., None], [[1.0, 2.0]], encoded(scene(), "TIFF")]
    check_modality(modality, values)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "npy"])
def test_integers_are_millimetres_and_zero_is_unknown(kind: str) -> None:
    found = DEPTH.load(encoded(millimetres(scene()), kind))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scene(), atol=6e-4)
    assert np.isnan(found[:5, :8]).all()


@pytest.mark.parametrize("kind", ["TIFF", "npy"])
def test_floats_are_metres_as_they_stand(kind: str) -> None:
    item = scene()
    item[0, 0], item[0, 1], item[0, 2] = 0, -1, np.inf
    np.testing.assert_array_equal(DEPTH.load(encoded(item, kind)), scene())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_millimetres_that_gaps_have_turned_to_floats_are_told(kind: type[np.floating[Any]]) -> None:
    item = np.where(np.isnan(scene()), np.nan, millimetres(scene())).astype(kind)
    with pytest.raises(ValueError, match=r"floats is metres, but .* look like millimetres: .* write 0, not null"):
        DEPTH.load(item)
    np.testing.assert_allclose(DEPTH.load(item / 1000), scene(), atol=6e-4)
    assert DEPTH.load(np.full((2, 2), 80.0)).max() == 80, "whole metres are metres"
    assert DEPTH.load(np.full((2, 2), 450.5)).max() == 450.5, "what is far need not be near"
    np.testing.assert_array_equal(THERMAL.load(np.full((2, 2), 3000.0)), np.full((2, 2), 3000.0))


def test_heat_keeps_its_unit_and_may_be_below_zero() -> None:
    celsius = np.array([[-20.5, 0.0], [36.6, np.nan]], np.float32)
    np.testing.assert_array_equal(THERMAL.load(encoded(celsius, "TIFF")), celsius)
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(THERMAL.load(encoded(grey, "PNG")), grey.astype(np.float32))
    np.testing.assert_array_equal(THERMAL.load(Image.fromarray(grey).convert("RGB")), grey.astype(np.float32))


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        (DEPTH, encoded(millimetres(scene()), "PNG")[:200], "truncated"),
        (DEPTH, Image.new("RGB", (4, 4), "red"), "one channel, but this picture is RGB"),
        (THERMAL, Image.new("P", (4, 4)), "picture is P"),
        (DEPTH, np.zeros((4, 4, 3), np.float32), r"numbers \[H, W\], not float32 \[4, 4, 3\]"),
        (DEPTH, np.full((4, 4), 7, np.uint8), "8 bits are too few"),
        (DEPTH, np.zeros((4, 4), np.uint16), "nothing of the depth map of shape .4, 4. is known"),
        (THERMAL, np.full((4, 4), np.nan), "nothing of the thermal map"),
        (THERMAL, np.zeros((0, 4)), r"not float64 \[0, 4\]"),
        (THERMAL, np.zeros((4, 4), bool), "not bool"),
        (THERMAL, b"no map", "neither .npy nor a picture"),
        (THERMAL, encoded(scene(), "npy")[:200], "EOF|array data"),
        (THERMAL, 7, "not a int"),
        (DEPTH, "nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_map_is_told(modality: Modality, value: object, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        modality.load(value)


def test_the_preview_is_dark_where_it_is_near_and_grey_where_it_is_unknown() -> None:
    png = DEPTH.preview(scene(shape=(96, 128))).png
    assert png is not None
    pixels = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    assert pixels.shape == (96 + 14, PREVIEW_SIZE, 3)
    assert tuple(pixels[2, 2]) == UNKNOWN
    disc, wall = scene(shape=(96, 128)) < 0.8 * np.nanmax(scene(shape=(96, 128))), pixels[:96, :128].sum(-1)
    assert wall[disc].mean() < 100 < wall[-5:].mean()
    assert (pixels[96:] < 100).any(), "the range is written below"


def test_measures_tell_what_is_unknown_and_how_far_the_rest_is() -> None:
    measures = DEPTH.measure(np.array([[1, 2, 3, np.nan]], np.float32))
    assert measures == {"width": 4, "height": 1, "unknown": 0.25, "metres": 2.0}


@pytest.mark.parametrize("name", ["depth-conv", "thermal-conv"])
def test_the_encoders_conform(name: str) -> None:
    check_encoder(build(name, flip=True), [scene(0), scene(1, shape=(60, 30)), scene(2, shape=(7, 9))])
    check_encoder(build(name, stem=4), [scene(0), np.ones((1, 1), np.float32)])


@pytest.mark.parametrize(("name", "factor", "shift"), [("depth-conv", 1000, 0), ("thermal-conv", 1.8, 32)])
def test_the_unit_does_not_matter_after_adapting(name: str, factor: float, shift: float) -> None:
    items = [scene(seed) for seed in range(4)]
    found = []
    for maps in (items, [one * factor + np.float32(shift) for one in items]):
        encoder = build(name).eval()
        encoder.adapt(maps)
        with torch.no_grad():
            found.append(encoder(encoder.collate([encoder.prepare(one) for one in maps])))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_adapting_takes_out_mean_and_deviation_of_what_is_known_and_is_saved() -> None:
    one, other = build("thermal-conv"), build("thermal-conv")
    items = [np.array([[1, 3, np.nan]], np.float32), np.array([[5, 7]], np.float32)]
    one.adapt(items)
    other.load_state_dict(one.state_dict())
    assert (other.mean.item(), other.std.item()) == pytest.approx((4, np.sqrt(5)))
    one.adapt([])
    assert one.mean.item() == pytest.approx(4)


def test_a_map_is_fitted_whole_and_unknown_pixels_take_no_part_in_what_is_known() -> None:
    wide = np.full((40, 80), 3, np.float32)
    wide[:, ::4] = np.nan
    values, known = build("thermal-conv", size=40).prepare(wide)
    assert known[:10].sum() == known[-10:].sum() == 0
    assert known[10:30].mean() > 0.7
    torch.testing.assert_close(values, 3 * known)


def test_augmentation_crops_and_mirrors() -> None:
    ramp = np.tile(np.arange(1, 41, dtype=np.float32), (40, 1))
    encoder, rng = build("thermal-conv", flip=True, size=40), np.random.default_rng(0)
    views = [encoder.prepare(ramp, rng)[0] for _ in range(40)]
    spans = [abs(float(view[0, -1] - view[0, 0])) for view in views]
    assert 39 * 0.69 - 1 < min(spans) < 32
    assert 37 < max(spans) <= 39
    assert {bool(view[0, -1] > view[0, 0]) for view in views} == {True, False}
    assert torch.equal(build("thermal-conv", augment=False).prepare(ramp, rng), build("thermal-conv").prepare(ramp))


def test_a_few_steps_tell_a_disc_before_the_wall_from_a_hole_in_it() -> None:
    encoder = build().train()
    head = torch.nn.Linear(encoder.width, 2)
    items = [scene(seed, near=seed % 2 == 0) for seed in range(96)]
    encoder.adapt(items)
    label = torch.arange(96) % 2
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for step in range(12):
        views = [encoder.prepare(one, np.random.default_rng((step, i))) for i, one in enumerate(items[:64])]
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(encoder(encoder.collate(views))), label[:64]))
        optimizer.step()
    encoder.eval()
    found = head(encoder(encoder.collate([encoder.prepare(one) for one in items[64:]]))).argmax(1)
    assert (found == label[64:]).float().mean() > 0.9


def test_tables_and_folders_feed_maps(tmp_path: Path) -> None:
    for place in range(3):
        (tmp_path / f"{place}.png").write_bytes(encoded(millimetres(scene(place)), "PNG"))
        np.save(tmp_path / f"{place}.npy", scene(place))
    rows = [{"d": f"{place}.png", "t": f"{place}.npy"} for place in range(3)]
    table = open_table(write(tmp_path / "t.csv", rows), {"depth": "d", "heat": {"column": "t", "modality": "thermal"}})
    options = {"path": tmp_path, "items": {"depth": ".png", "heat": ".npy"}, "modalities": {"heat": "thermal"}}
    folder = CATALOG.create("pairing_sources", "folder", options=options)
    for source in (table, folder):
        for place, sample in enumerate(source):
            np.testing.assert_allclose(DEPTH.open(sample.items["depth"]), scene(place), atol=6e-4)
            np.testing.assert_array_equal(THERMAL.open(sample.items["heat"]), scene(place))


def test_a_width_that_groups_do_not_divide_is_told_by_its_own_name() -> None:
    assert refusal(lambda: build(width=20)).startswith("depth-conv: width 20 must be a positive multiple of 16")
