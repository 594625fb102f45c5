"""The modality of clouds of points: what one is, how it is read, and what a page shows of it."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmssl_points.ply import read_ply
from multimodal_ssl import Modality, Preview

Cloud: TypeAlias = NDArray[np.floating[Any]]
"""Points [N, 3 + C]: x, y, z, which are finite, and C other channels; float64 where float32 would round them."""

LARGEST = 1e18  # what is not below it counts as unknown: some write the largest float32, and sums would overflow
WIDE = 16  # columns: an array of few rows and more columns is transposed
PICTURE, DRAWN = 192, 20_000  # pixels, points
TURN, TILT = 0.6, 0.4  # radians: from where a picture looks at a cloud whose z is up
NEAR, FAR = np.array([20.0, 60, 120]), np.array([190.0, 205, 220])  # colours


def load(value: Any) -> Cloud:
    """Read a cloud from an array [N, 3 + C], a list, or the path or bytes of a file: PLY, .npy, .npz, .xyz, .txt.

    The content of a file counts, not its name. An .npz holds one array, or one named ``points``. A text has a point in
    each line, its numbers apart by blanks or commas. Points whose coordinates are not finite are left out: cameras
    write them where they see nothing.
    """
    if isinstance(value, bytes | str | os.PathLike):
        array = _read(value if isinstance(value, bytes) else Path(value).read_bytes())
    elif isinstance(value, np.ndarray | list):
        array = np.array(value)
    else:
        raise ValueError(f"a cloud of points is a path, bytes or an array [N, 3 + C], not a {type(value).__name__}")
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"a cloud of points is numbers [N, 3 + C], not {array.dtype} {list(array.shape)}")
    refuse_transposed(array)
    kind = np.dtype(np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)
    cloud: Cloud = array.astype(kind, copy=False)
    finite = (np.abs(cloud[:, :3]) < LARGEST).all(1)
    if not finite.any():
        raise ValueError(f"the cloud is empty: of its {len(cloud):,} points none is finite")
    return cloud if finite.all() else cloud[finite]


def refuse_transposed(array: NDArray[Any]) -> None:
    """Raise ValueError if an array is [3 + C, N] by its looks."""
    if array.shape[0] in (3, 4, 6) and array.shape[1] > WIDE:
        raise ValueError(f"a cloud of points is [N, 3 + C], a point a row, not {list(array.shape)}: transpose it")


def _read(data: bytes) -> NDArray[Any]:
    if data.startswith(b"ply"):
        return read_ply(data)
    if data.startswith(b"\x93NUMPY"):
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if data.startswith(b"PK"):
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                names = arrays.files
                if len(names) != 1 and "points" not in names:
                    raise ValueError(f"the .npz file holds {', '.join(names)}: name the cloud `points`")
                return np.asarray(arrays["points" if "points" in names else names[0]])
        except zipfile.BadZipFile as error:
            raise ValueError(f"the .npz file is broken: {error}") from error
    if not data.strip():
        raise ValueError("the file is empty")
    try:
        return np.loadtxt(io.BytesIO(data.replace(b",", b" ")), np.float64, comments=["#", "//"], ndmin=2)
    except ValueError as error:
        raise ValueError(f"neither PLY, .npy nor .npz, nor lines of numbers: {error}") from error


def preview(item: Cloud) -> Preview:
    """Draw the points as they are seen from the side and a little from above, near ones dark."""
    points = item[:: -(-len(item) // DRAWN), :3].astype(np.float64)
    points = points - (points.min(0) + points.max(0)) / 2
    x = points[:, 0] * np.cos(TURN) - points[:, 1] * np.sin(TURN)
    away = points[:, 0] * np.sin(TURN) + points[:, 1] * np.cos(TURN)
    y = points[:, 2] * np.cos(TILT) + away * np.sin(TILT)
    away = away * np.cos(TILT) - points[:, 2] * np.sin(TILT)
    order = np.argsort(-away)
    reach = max(float(np.abs([x, y]).max()), 1e-9)
    columns, rows = (((one[order] / reach + 1) / 2 * (PICTURE - 3)).astype(int) for one in (x, -y))
    share = np.linspace(1, 0, len(order))[:, np.newaxis]  # the farthest come first
    pixels = np.full((PICTURE, PICTURE, 3), 255, np.uint8)
    for down in (0, 1):
        for right in (0, 1):
            pixels[rows + down, columns + right] = FAR * share + NEAR * (1 - share)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Preview(png=buffer.getvalue())


def measure(item: Cloud) -> dict[str, float]:
    """Return the number of points and of channels beyond x, y and z."""
    return {"points": len(item), "channels": item.shape[1] - 3}


POINTS = Modality("points", np.ndarray, load, preview, measure)
