"""The modality ``series`` and how a series is prepared: padded, resampled, scaled and augmented."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mmssl_series.modality import MARGIN, PICTURE, SERIES
from mmssl_series.preparation import CROP, Preparation
from multimodal_ssl.testing import check_modality

from .walks import Series, gappy, walk

NAN = float("nan")


def npy(array: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def plain(channels: int, length: int) -> Preparation:
    return Preparation(channels=channels, length=length, augment=False)


def test_the_modality_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, walk(2, 9))
    values = [path, str(path), npy(gappy(3, 50)), walk(1, 1), [1, 2, None], [[1.0, 2.0], [None, NAN]], np.arange(4)]
    check_modality(SERIES, [*values, np.ones((2, 3000)), np.full((1, 4), np.nan)])


def test_every_way_in_gives_the_same_floats(tmp_path: Path) -> None:
    series = gappy(2, 20)
    path = tmp_path / "a.npy"
    np.save(path, series.astype(np.float64))
    lists = [[None if np.isnan(value) else value for value in line] for line in series.tolist()]
    for value in (series, path, str(path), npy(series), npy(np.asfortranarray(series)), series.tolist(), lists):
        found = SERIES.load(value)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, series)


def test_one_dimension_is_one_channel_over_time() -> None:
    np.testing.assert_array_equal(SERIES.load([1, None, 3]), np.array([[1, np.nan, 3]], np.float32))
    np.testing.assert_array_equal(SERIES.load(np.array([True, False])), np.array([[1, 0]], np.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"empty: its shape is \(1, 0\)"),
        (np.zeros((3, 0)), r"empty: its shape is \(3, 0\)"),
        (np.zeros((2, 3, 4)), r"not of shape \(2, 3, 4\)"),
        (np.array(3.0), r"not of shape \(\)"),
        ([[1.0, float("inf")], [float("-inf"), 0.0]], r"2 values of the series of shape \(2, 2\) are infinite"),
        (np.array([1e300]), r"shape \(1, 1\) are infinite"),
        ([[1, 2], [3]], "equally long"),
        ([["a", "b"]], "list of numbers"),
        (np.array([1j]), "complex128"),
        (np.array(["1", "2"]), "of numbers"),
        (npy(np.array([1, None], dtype=object)), "allow_pickle"),
        (b"no array", "magic string"),
        (npy(np.zeros(9))[:-5], "."),
        ({"a": 1}, "expected an array, a list"),
    ],
)
def test_what_is_no_series_is_said(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SERIES.load(value)


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone\.npy"):
        SERIES.load(tmp_path / "gone.npy")


def picture(series: Series) -> NDArray[np.uint8]:
    png = SERIES.preview(series).png
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_preview_draws_each_channel_over_its_own_range_and_leaves_gaps() -> None:
    ramp = np.linspace(0, 1, 100, dtype=np.float32)
    series = np.stack([ramp, 1e6 * ramp[::-1]])
    series[:, 40:60] = np.nan
    drawn = picture(series)
    assert drawn.shape == (96, 192, 3)
    ink = np.asarray((drawn < 255).any(2))
    assert not ink[:, 82:110].any()
    left = ink[:, MARGIN]
    assert left[MARGIN]
    assert left[PICTURE[1] - 1 - MARGIN], "both channels reach the whole height"
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) >= 3, "white and a colour for each channel"


@pytest.mark.parametrize("series", [[5.0], [None, 5.0, None], [2.0] * 30])
def test_the_preview_shows_a_lone_point_and_a_constant(series: list[float | None]) -> None:
    assert (picture(SERIES.load(series)) < 255).any()


def test_the_preview_of_nothing_is_white() -> None:
    assert (picture(np.full((2, 5), np.nan, np.float32)) == 255).all()


def test_a_short_series_is_padded_and_masked() -> None:
    series = gappy(2, 5)
    out = plain(2, 8)(series)
    values, mask = out["values"].numpy(), out["mask"].numpy()
    assert mask.tolist() == [True] * 5 + [False] * 3
    np.testing.assert_array_equal(values[:2, :5], np.nan_to_num(series))
    np.testing.assert_array_equal(values[2:, :5], ~np.isnan(series))
    assert not values[:, 5:].any()


@pytest.mark.parametrize("steps", [9, 12, 15])
def test_a_long_series_is_resampled_as_numpy_interpolates(steps: int) -> None:
    series = walk(3, steps)
    out = plain(3, 8)(series)
    at = np.linspace(0, steps - 1, 8)
    reference = [np.interp(at, np.arange(steps), line) for line in series]
    np.testing.assert_allclose(out["values"][:3].numpy(), reference, rtol=1e-4, atol=1e-4)
    assert out["mask"].all()
    assert (out["values"][3:] == 1).all()


@pytest.mark.parametrize(("steps", "blocks"), [(16, 8), (20, 10), (100, 8), (1001, 8)])
def test_a_series_of_twice_the_length_is_averaged_over_equal_blocks_first(steps: int, blocks: int) -> None:
    series = gappy(3, steps)
    series[1, : steps // 3] = np.nan
    edges = [block * steps // blocks for block in range(blocks + 1)]
    means = np.full((3, blocks), np.nan, np.float32)
    for channel in range(3):
        for block in range(blocks):
            there = series[channel, edges[block] : edges[block + 1]]
            if not np.isnan(there).all():
                means[channel, block] = np.nanmean(there)
    found, reference = plain(3, 8)(series), plain(3, 8)(means)
    torch.testing.assert_close(found, reference)
    assert not found["values"][4, :2].any(), "a block where all is missing is missing"


def test_what_is_short_leaves_a_trace_in_a_long_series_and_what_is_fast_is_not_taken_for_slow() -> None:
    event, fast = np.zeros((2, 1, 10_007), np.float32)
    event[0, 5003] = 100
    fast[0] = np.resize([1, -1], 10_007)
    assert plain(1, 100)(event)["values"][0].max() > 0.5
    assert plain(1, 100)(fast)["values"][0].abs().max() < 0.02


def test_what_is_learnt_of_long_series_is_what_the_network_sees() -> None:
    preparation = plain(1, 50)
    items = [np.random.default_rng(seed).standard_normal((1, 5000), np.float32) for seed in range(20)]
    preparation.learn(items)
    assert np.std([preparation(item)["values"][0].numpy() for item in items]) == pytest.approx(1, abs=1e-3)


def test_a_channel_that_changes_little_about_a_large_mean_is_not_constant() -> None:
    latitude = (48.137 + 0.0005 * walk(1, 400) / 10).astype(np.float32)
    preparation = plain(2, 100)
    preparation.learn(
        np.concatenate([latitude, np.full_like(latitude, 7.1e6)])[:, at : at + 100] for at in (0, 100, 200)
    )
    exact = latitude[0, :300].astype(np.float64).std()
    np.testing.assert_allclose(preparation.std[:, 0], [exact, 1], rtol=1e-4)


def test_a_channel_may_begin_late_in_what_is_learnt() -> None:
    items = [np.full((2, 5), 1e6, np.float32) for _ in range(4)]
    for seed, item in enumerate(items):
        item += walk(2, 5, seed)
    items[0][1] = np.nan
    preparation = plain(2, 8)
    preparation.learn(items)
    together = np.concatenate(items, axis=1).astype(np.float64)
    np.testing.assert_allclose(preparation.std[:, 0], np.nanstd(together, 1), rtol=1e-5)


def test_in_resampling_a_gap_takes_no_more_than_the_points_nearest_to_it() -> None:
    series = np.arange(31, dtype=np.float32)[np.newaxis].copy()
    series[0, [3, 12, 13]] = np.nan
    out = plain(1, 21)(series)  # positions 0, 1.5, 3, 4.5, ...
    at = np.linspace(0, 30, 21)
    nearest = np.where(at % 1 < 0.5, np.floor(at), np.ceil(at)).astype(int)
    present = ~np.isnan(series[0, nearest])
    np.testing.assert_array_equal(out["values"][1].numpy(), present)
    found, position = out["values"][0].numpy()[present], at[present]
    assert np.abs(found - position).max() <= 0.5
    assert not out["values"][0].numpy()[~present].any()


def test_what_is_learnt_are_mean_and_deviation_of_what_is_present() -> None:
    items = [gappy(2, steps, seed) * 7 + 1000 for seed, steps in enumerate((5, 50, 20))]
    preparation = plain(2, 50)
    preparation.learn(iter(items))
    together = np.concatenate(items, axis=1).astype(np.float64)
    np.testing.assert_allclose(preparation.mean[:, 0], np.nanmean(together, 1), rtol=1e-5)
    np.testing.assert_allclose(preparation.std[:, 0], np.nanstd(together, 1), rtol=1e-4)
    values = np.concatenate([preparation(item)["values"].numpy() for item in items], axis=1)
    for channel in range(2):
        present = values[channel][values[2 + channel] == 1]
        assert present.mean() == pytest.approx(0, abs=1e-4)
        assert present.std() == pytest.approx(1, abs=1e-4)


def test_a_constant_or_ever_missing_channel_keeps_its_scale() -> None:
    preparation = plain(3, 4)
    constant, missing = np.full(4, 1013.25), np.full(4, np.nan)
    preparation.learn([np.stack([constant, missing, np.arange(4)]).astype(np.float32)] * 3)
    np.testing.assert_allclose(preparation.std[:, 0], np.array([1, 1, np.arange(4).std()]), rtol=1e-6)
    assert preparation.mean[:, 0].tolist() == [1013.25, 0, 1.5]
    preparation.learn([])
    assert torch.isfinite(preparation(walk(3, 4))["values"]).all()


def test_all_chance_comes_from_the_rng() -> None:
    preparation, series = Preparation(channels=3, length=32, augment=True), gappy(3, 50)

    def values(seed: int) -> NDArray[np.float32]:
        return np.asarray(preparation(series, np.random.default_rng(seed))["values"])

    torch.manual_seed(1)
    first = values(5)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, values(5))
    assert not np.array_equal(first, values(6))


def test_augmentation_can_be_switched_off() -> None:
    series = walk(3, 20)
    for augment in (True, False):
        preparation = Preparation(channels=3, length=32, augment=augment)
        alike = torch.equal(preparation(series)["values"], preparation(series, np.random.default_rng(0))["values"])
        assert alike is not augment


@pytest.mark.parametrize("steps", [1, 2, 20, 32, 200])
def test_an_augmented_series_is_still_itself(steps: int) -> None:
    preparation = Preparation(channels=1, length=32, augment=True)
    ramp = np.linspace(-1, 1, steps, dtype=np.float32)[np.newaxis]
    kept = []
    for seed in range(30):
        out = preparation(ramp, np.random.default_rng(seed))
        values, present = out["values"].numpy()
        assert int(out["mask"].sum()) == min(steps, 32)
        assert np.isfinite(values).all()
        assert not present[min(steps, 32) :].any()
        there = values[present == 1]
        kept.append(len(there) / min(steps, 32))
        if steps >= 20:
            assert np.corrcoef(np.flatnonzero(present), there)[0, 1] > 0.95, "time runs forward"
            assert np.ptp(there) > 2 * (1 - CROP) * 0.5
            assert np.abs(there).max() < 2
    assert np.mean(kept) > 0.85
    assert min(kept) < 1, "some points are dropped"


def test_points_that_are_missing_stay_missing_when_augmented() -> None:
    series = np.ones((2, 32), np.float32)
    series[1] = np.nan
    values = Preparation(channels=2, length=32, augment=True)(series, np.random.default_rng(0))["values"]
    assert not values[[1, 3]].any()
    assert values[2].sum() > 25
