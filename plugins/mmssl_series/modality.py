"""The modality of series: what one is, how it is read, and what a page shows of it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from multimodal_ssl import Modality
from multimodal_ssl.types import Preview

PICTURE = (192, 96)  # pixels
MARGIN = 4  # pixels
COLOURS = ((31, 119, 180), (214, 80, 30), (44, 140, 60), (150, 80, 170), (120, 90, 70), (0, 150, 160))


def load(value: Any) -> NDArray[np.float32]:
    """Read a series from an array, a nested list [C][T], a list [T], the path of a .npy file or its bytes.

    Returns float32 [C, T] (channels, time); NaN, and None in a list, is a missing value.
    """
    array = _array(value)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise ValueError(f"a series must be [channels, time] or [time], not of shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"the series is empty: its shape is {array.shape}")
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is said below
        array = array.astype(np.float32, copy=False)
    infinite = np.isinf(array)
    if infinite.any():
        raise ValueError(f"{infinite.sum()} values of the series of shape {array.shape} are infinite; NaN is missing")
    return array


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, list | tuple):
        try:
            return np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected a list of numbers or of equally long lists of numbers: {error}") from error
    elif isinstance(value, bytes | str | os.PathLike):
        data = value if isinstance(value, bytes) else Path(value).read_bytes()
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    else:
        raise ValueError(f"expected an array, a list, or the path or bytes of a .npy file, not {type(value)}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a series must be of numbers, not an array of {array.dtype} of shape {array.shape}")
    return array


def preview(item: NDArray[np.float32]) -> Preview:
    """Draw one line a channel, each over its own range, broken where values are missing."""
    width, height = PICTURE
    columns = np.linspace(0, item.shape[1] - 1, min(item.shape[1], 4 * width)).round().astype(int)
    x = MARGIN + columns / max(1, columns[-1]) * (width - 1 - 2 * MARGIN)
    picture = Image.new("RGB", PICTURE, "white")
    draw = ImageDraw.Draw(picture)
    for channel, line in enumerate(item):
        present = line[~np.isnan(line)].astype(np.float64)
        if not present.size:
            continue
        low, high = present.min(), present.max()
        share = (line[columns] - low) / (high - low) if high > low else line[columns] * 0 + 0.5
        y = height - 1 - MARGIN - share * (height - 1 - 2 * MARGIN)
        here = ~np.isnan(y)
        for part in np.split(np.arange(len(columns)), np.flatnonzero(np.diff(here)) + 1):
            if here[part[0]]:
                points = list(zip(x[part].tolist(), y[part].tolist(), strict=True))
                draw.line(points, fill=COLOURS[channel % len(COLOURS)])
                draw.point(points[0], fill=COLOURS[channel % len(COLOURS)])  # a line of one point is invisible
    png = io.BytesIO()
    picture.save(png, "PNG")
    return Preview(png=png.getvalue())


def measure(item: NDArray[np.float32]) -> dict[str, float]:
    """Return the number of channels and of points in time, and the share of values that are missing."""
    channels, time = item.shape
    return {"channels": channels, "time": time, "missing": float(np.isnan(item).mean())}


SERIES = Modality("series", np.ndarray, load, preview, measure)
