"""What an image is: a Pillow image, upright, in mode RGB or L."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from multimodal_ssl import Modality, Preview

PREVIEW_SIZE = 192


def load(value: Any) -> Image.Image:
    """Open a path, encoded bytes, an array [H, W], [H, W, 3 or 4], or a Pillow image.

    Arrays are of bool, of floats from 0 to 1 or of integers: these are 16 bits if of such a type or if one is above
    255, else 8 bits.
    """
    if isinstance(value, Image.Image):
        picture = value
    elif isinstance(value, np.ndarray):
        picture = _from_array(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        picture = _open(io.BytesIO(value), f"{len(value):,} bytes that begin with {bytes(value[:8])!r}")
    elif isinstance(value, str | Path):
        picture = _open(value, str(value))
    else:
        raise ValueError(f"an image is a path, bytes, an array or a Pillow image, not a {type(value).__name__}")
    if picture is value:  # not ours to turn
        return _plain(ImageOps.exif_transpose(picture))
    ImageOps.exif_transpose(picture, in_place=True)
    return _plain(picture)


def preview(item: Image.Image) -> Preview:
    """Return a small PNG."""
    small = item.copy()
    small.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return Preview(png=buffer.getvalue())


def measure(item: Image.Image) -> dict[str, float]:
    """Return width and height in pixels."""
    return {"width": item.width, "height": item.height}


IMAGE = Modality("image", Image.Image, load, preview, measure)


def _open(file: str | Path | io.BytesIO, what: str) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:  # its own words tell where in memory the bytes are
        raise ValueError(f"no picture of a kind that Pillow knows: {what}") from error


def _plain(picture: Image.Image) -> Image.Image:
    """Return RGB or L: transparency laid on white, 16 bits scaled to 8, palettes and CMYK converted."""
    if picture.mode in ("RGB", "L") and "transparency" not in picture.info:
        picture.load()
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_array(np.asarray(picture))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"an image array is [H, W], [H, W, 3] or [H, W, 4], not {list(array.shape)}")
    if array.size == 0:
        raise ValueError(f"the image array is empty: its shape is {list(array.shape)}")
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("an image array holds NaN or infinite values")
        if array.max() > 1.5:  # a little above 1 is the overshoot of resampling
            raise ValueError(
                f"an image array of floats is 0 to 1, but its maximum is {array.max():g}: divide it by 255"
            )
        return Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8))
    if array.dtype == np.bool_:
        return Image.fromarray(array.astype(np.uint8) * 255)
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 65535:
        wide = array.dtype.itemsize == 2 or array.max() > 255  # 8 bits come as 32 or 64 from lists and TIFF
        return Image.fromarray((array / 257).round().astype(np.uint8) if wide else array.astype(np.uint8))
    told = f"{array.dtype} from {array.min()} to {array.max()}" if array.dtype.kind in "iu" else array.dtype
    raise ValueError(f"an image array is integers from 0 to 65535, floats from 0 to 1 or bool, not {told}")
