"""The modality of videos: what one is, how it is read, and what a page shows of it."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image

from mmssl_video.decoding import Pictures, all_pictures
from multimodal_ssl import Modality
from multimodal_ssl.types import Preview

STRIP, HEIGHT = 6, 96  # pictures of a preview, and their height in pixels


def load(value: Any) -> Pictures:
    """Return the pictures [T, H, W, 3] (uint8) of an array, or all those of a file: a path or bytes.

    How fast they follow each other is not told: the encoder takes as many as it wants from them, evenly.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 4 or value.shape[3] != 3 or value.dtype != np.uint8:
            raise ValueError(f"a video is uint8 [T, H, W, 3], not {value.dtype} {list(value.shape)}")
        if value.size == 0:
            raise ValueError(f"the video is empty: its shape is {list(value.shape)}")
        return value
    if isinstance(value, str | os.PathLike | bytes):
        return all_pictures(value)  # type: ignore[arg-type]  # a PathLike is as good as a Path
    raise ValueError(f"a video is a path, bytes or an array [T, H, W, 3], not a {type(value).__name__}")


def preview(item: Pictures) -> Preview:
    """Draw pictures from the beginning to the end side by side."""
    places = np.unique(np.linspace(0, len(item) - 1, STRIP).round().astype(int))
    pictures = [Image.fromarray(item[place]) for place in places]
    width = min(2 * HEIGHT, max(1, round(HEIGHT * pictures[0].width / pictures[0].height)))
    strip = Image.new("RGB", (len(pictures) * (width + 2) - 2, HEIGHT), "white")
    for place, picture in enumerate(pictures):
        strip.paste(picture.resize((width, HEIGHT), Image.Resampling.BILINEAR), (place * (width + 2), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    return Preview(png=buffer.getvalue())


VIDEO = Modality("video", np.ndarray, load, preview)
