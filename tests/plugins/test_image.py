from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import mmssl_image
from mmssl_image.conv import ConvEncoder
from mmssl_image.modality import IMAGE
from mmssl_image.pixels import Pixels
from mmssl_image.vit import VisionTransformer
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder, check_modality

from ..toys import refusal


def drawing(size: tuple[int, int] = (40, 30), colour: str = "red", at: int = 5) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).rectangle((at, at, at + 10, at + 10), fill=colour)
    return picture


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_modality_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(encoded(drawing(), "WEBP"))
    values = [path, str(path), encoded(drawing(), "PNG"), np.asarray(drawing()), drawing(), np.zeros((4, 5))]
    check_modality(IMAGE, values)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_file_type_gives_the_picture(kind: str) -> None:
    found = np.asarray(IMAGE.load(encoded(drawing(), kind)).convert("RGB")).astype(int)
    assert np.abs(found - np.asarray(drawing()).astype(int)).mean() < 6


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 270 degrees to see it upright
    upright = IMAGE.load(encoded(drawing((40, 30)), "JPEG", exif=exif))
    assert upright.size == (30, 40)


def test_transparency_is_laid_on_white_in_every_mode() -> None:
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.paste((0, 0, 255, 255), (0, 0, 4, 8))
    palette = rgba.convert("P")
    palette.info["transparency"] = palette.getpixel((7, 7))
    transparency = palette.info["transparency"]
    files = [
        encoded(rgba, "PNG"),
        encoded(rgba.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=transparency),
    ]
    for data in files:
        found = IMAGE.load(data)
        assert found.mode == "RGB"
        assert found.getpixel((7, 7)) == (255, 255, 255)
        assert found.getpixel((0, 0)) != (255, 255, 255)


@pytest.mark.parametrize(("mode", "hidden"), [("RGB", (255, 0, 0)), ("L", 76)])
def test_a_colour_that_a_png_calls_transparent_is_white(mode: str, hidden: object) -> None:
    picture = Image.new("RGB", (8, 8), (255, 0, 0)).convert(mode)
    picture.paste(picture.point(lambda value: value // 2).crop((0, 0, 4, 8)))
    found = IMAGE.load(encoded(picture, "PNG", transparency=hidden))
    assert found.mode == "RGB"
    assert found.getpixel((7, 7)) == (255, 255, 255)
    assert found.getpixel((0, 0)) == picture.convert("RGB").getpixel((0, 0))


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for value in (encoded(Image.fromarray(ramp), "PNG"), ramp):
        found = np.asarray(IMAGE.load(value))
        assert found.dtype == np.uint8
        assert np.abs(found.astype(float) - ramp / 257).max() <= 1


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint32])
def test_eight_bits_in_wider_integers_are_not_darkened(kind: type[np.integer[Any]]) -> None:
    ramp = np.arange(128, dtype=np.uint8).reshape(8, 16)
    np.testing.assert_array_equal(np.asarray(IMAGE.load(ramp.astype(kind))), ramp)


def test_eight_bits_in_a_tiff_of_32_are_not_darkened_and_sixteen_are_scaled() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.int32).reshape(8, 8)
    np.testing.assert_array_equal(np.asarray(IMAGE.load(encoded(Image.fromarray(ramp), "TIFF"))), ramp)
    np.testing.assert_array_equal(np.asarray(IMAGE.load(encoded(Image.fromarray(257 * ramp), "TIFF"))), ramp)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4), 200.0), "floats is 0 to 1, but its maximum is 200: divide it by 255"),
        (np.zeros((0, 4)), r"empty: its shape is \[0, 4\]"),
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((0, 4), np.int64), "empty"),
        (np.full((4, 4), 70000), "integers from 0 to 65535, .* not int64 from 70000 to 70000"),
        (np.full((4, 4), "a"), "not <U1"),
    ],
)
def test_arrays_that_are_no_picture_are_told(array: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IMAGE.load(array)


def test_floats_a_little_outside_0_to_1_are_cut() -> None:
    np.testing.assert_array_equal(np.asarray(IMAGE.load(np.array([[-0.1, 0, 1, 1.2]]))), [[0, 0, 255, 255]])


def test_cmyk_and_one_bit_and_palette_become_rgb_or_grey() -> None:
    assert IMAGE.load(encoded(drawing().convert("CMYK"), "JPEG")).mode == "RGB"
    assert IMAGE.load(encoded(drawing().convert("1"), "PNG")).mode == "L"
    assert IMAGE.load(encoded(drawing().convert("P"), "PNG")).mode == "RGB"


@pytest.mark.parametrize(
    "value",
    [b"no image", encoded(drawing(), "PNG")[:60], Path("nowhere.png"), 5, np.zeros((2, 2, 7)), np.full((2, 2), np.nan)],
)
def test_what_is_no_image_is_a_value_or_os_error(value: object) -> None:
    with pytest.raises((ValueError, OSError)):
        IMAGE.load(value)


def test_an_image_is_fitted_whole_and_its_border_colour_fills_the_rest() -> None:
    wide = Image.new("RGB", (100, 50), (0, 255, 0))
    ImageDraw.Draw(wide).rectangle((40, 20, 59, 29), fill="black")
    pixels = Pixels(50, 3, augment=True, flip=True)(wide, None)
    assert pixels.shape == (3, 50, 50)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 25, 25].tolist() == [0, 0, 0]
    assert pixels[:, 0, 0].tolist() == pixels[:, 25, 0].tolist() == [0, 255, 0]


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    assert torch.equal(Pixels(20, 1, augment=True, flip=True)(Image.fromarray(array), None)[0], torch.from_numpy(array))


def test_augmentation_changes_the_picture_but_keeps_what_it_shows() -> None:
    rng = np.random.default_rng(0)
    pixels = Pixels(32, 1, augment=True, flip=False)
    plain = pixels(drawing((32, 32), "black", 12), None)
    views = [pixels(drawing((32, 32), "black", 12), rng) for _ in range(20)]
    assert all(not torch.equal(view, plain) for view in views)
    for view in views:
        rows, columns = (view[0] < 128).nonzero(as_tuple=True)
        assert abs(rows.float().mean() - 17) < 8
        assert abs(columns.float().mean() - 17) < 8


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoders_conform(channels: int) -> None:
    items = [drawing(colour=colour, at=at) for colour, at in (("red", 3), ("blue", 9), ("black", 15))]
    for stem in (2, 4):
        conv = ConvEncoder(size=24, channels=channels, stem=stem, width=16, depth=1, augment=True, flip=True)
        check_encoder(conv, items)
    vit = VisionTransformer(size=24, channels=channels, patch=8, width=16, depth=2, heads=2, augment=True, flip=False)
    check_encoder(vit, items)


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(InputError, match="size 30 must be a multiple of patch 8"):
        VisionTransformer(size=30, channels=1, patch=8, width=16, depth=1, heads=1, augment=False, flip=False)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("small-conv", name, 0) for name in ("size", "width", "depth")),
        *(("small-vit", name, 0) for name in ("size", "patch", "width", "depth", "heads")),
        *((name, "channels", value) for name in ("small-conv", "small-vit") for value in (0, 2, 4)),
        *((name, "width", 0) for name in ("depth-conv", "thermal-conv")),
    ],
)
def test_options_that_can_not_be_are_refused_by_name(name: str, option: str, value: int) -> None:
    message = refusal(lambda: Catalog.of(image=mmssl_image).create("encoders", name, options={option: value}))
    assert name in message
    assert option in message
