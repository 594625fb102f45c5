"""What maps of depth and of heat are: one number a pixel, NaN where it is unknown."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from multimodal_ssl import Modality, Preview

Map: TypeAlias = NDArray[np.float32]
"""Numbers [H, W], NaN where unknown."""

PREVIEW_SIZE, LEGEND = 192, 14  # pixels
SHOWN = (1, 99)  # percentiles: single wild pixels would leave all others in one colour
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # from low to high
FARTHEST = 300  # metres: whole numbers beyond it are likelier millimetres whose gaps have turned them to floats
UNKNOWN = (160, 160, 160)


def load_depth(value: Any) -> Map:
    """Read a map of depth: float32 [H, W] in metres, NaN where it is unknown.

    From 16-bit PNG, TIFF, .npy or an array: integers are millimetres, as depth cameras write them, floats are metres.
    What is 0, less or infinite is unknown.
    """
    found = _read(value, "depth")
    if found.dtype == np.uint8:
        raise ValueError(
            "8 bits are too few for depth: give 16-bit millimetres or float metres; what is only nearer or farther is "
            "an image"
        )
    known = found[np.isfinite(found) & (found > 0)]
    if found.dtype.kind == "f" and known.size and (known == np.rint(known)).all() and np.median(known) > FARTHEST:
        raise ValueError(
            f"depth in floats is metres, but whole numbers with a median of {np.median(known):g} look like "
            "millimetres: keep integers and write 0, not null, where it is unknown, or divide by 1000"
        )
    metres = found * np.float32(1e-3) if found.dtype.kind in "iu" else found
    return _plain(np.where(metres > 0, metres, np.nan), "depth")


def load_thermal(value: Any) -> Map:
    """Read a map of heat in any unit: float32 [H, W], NaN where it is unknown; from PNG, TIFF, JPEG, .npy, an array."""
    return _plain(_read(value, "thermal"), "thermal")


def preview(item: Map, *, unit: str) -> Preview:
    """Draw a map in false colours, grey where it is unknown, and their range below it."""
    known = ~np.isnan(item)
    low, high = np.percentile(item[known], SHOWN)
    share = np.where(known, (item - low) / max(high - low, 1e-9), 0).clip(0, 1)
    anchors = np.linspace(0, 1, len(COLOURS))
    colours = np.stack([np.interp(share, anchors, channel) for channel in np.array(COLOURS).T], axis=-1)
    colours[~known] = UNKNOWN
    small = Image.fromarray(colours.astype(np.uint8))
    small.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    picture = Image.new("RGB", (PREVIEW_SIZE, small.height + LEGEND), "white")
    picture.paste(small)
    ImageDraw.Draw(picture).text((2, small.height + 1), f"{low:.4g} to {high:.4g} {unit}".strip(), fill="black")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Preview(png=buffer.getvalue())


def measure(item: Map, *, unit: str) -> dict[str, float]:
    """Return width and height in pixels, the share that is unknown, and the median of the rest."""
    height, width = item.shape
    unknown = float(np.isnan(item).mean())
    return {"width": width, "height": height, "unknown": unknown, unit: float(np.nanmedian(item))}


DEPTH = Modality("depth", np.ndarray, load_depth, partial(preview, unit="m"), partial(measure, unit="metres"))
THERMAL = Modality("thermal", np.ndarray, load_thermal, partial(preview, unit=""), partial(measure, unit="median"))


def _read(value: Any, what: str) -> NDArray[Any]:
    """Return an array [H, W] of numbers as they stand in a file."""
    if isinstance(value, Image.Image):
        found = _channel(value, what)
    elif isinstance(value, np.ndarray | list):
        found = np.array(value)
    elif isinstance(value, str | Path | bytes):
        data = value if isinstance(value, bytes) else Path(value).read_bytes()
        if data.startswith(b"\x93NUMPY"):
            found = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        else:
            try:
                found = _channel(Image.open(io.BytesIO(data)), what)
            except UnidentifiedImageError as error:
                name = f"{len(data):,} bytes that begin with {data[:8]!r}" if isinstance(value, bytes) else str(value)
                raise ValueError(f"neither .npy nor a picture of a kind that Pillow knows: {name}") from error
    else:
        raise ValueError(f"a {what} map is a path, bytes or an array [H, W], not a {type(value).__name__}")
    if found.ndim == 3 and 1 in (found.shape[0], found.shape[2]):
        found = found.squeeze(0 if found.shape[0] == 1 else 2)
    if found.ndim != 2 or found.dtype.kind not in "iuf" or found.size == 0:
        raise ValueError(f"a {what} map is numbers [H, W], not {found.dtype} {list(found.shape)}")
    return found


def _channel(picture: Image.Image, what: str) -> NDArray[Any]:
    """Return the one channel of a picture; cameras also write it three times."""
    found = np.asarray(picture)
    if picture.mode == "RGB" and (found == found[..., :1]).all():
        return found[..., 0]
    if picture.mode not in ("L", "F") and not picture.mode.startswith("I"):
        raise ValueError(
            f"a {what} map has one channel, but this picture is {picture.mode}: give the numbers behind its colours"
        )
    return found


def _plain(array: NDArray[Any], what: str) -> Map:
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite
        found = array.astype(np.float32)
    found[~np.isfinite(found)] = np.nan
    if np.isnan(found).all():
        raise ValueError(f"nothing of the {what} map of shape {list(found.shape)} is known")
    return found
