"""Draws every printable character of matplotlib's fonts, once, into a cache."""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

SIZE = 48  # pixels of a picture, each way
EM = 34  # pixels of an em: room for ascenders, descenders and accents
BASELINE = 35  # pixels from the top
POINTS = 128  # points of an outline
FORMAT = 1  # goes up when a drawing changes


class Glyph(NamedTuple):
    """One character in one font.

    Attributes:
        picture: uint8 [SIZE, SIZE], black ink on white.
        outline: float16 [3, POINTS]: x, y in [-1, 1] along the contours, evenly by length; 0 where a contour begins.
    """

    codepoint: int
    font: str
    picture: NDArray[np.uint8]
    outline: NDArray[np.float16]


class Drawings(NamedTuple):
    """All glyphs, N of them, by font and then by character; the large arrays are memory-mapped."""

    codepoints: NDArray[np.int32]
    fonts: NDArray[np.str_]
    pictures: NDArray[np.uint8]
    outlines: NDArray[np.float16]


def load_drawings() -> Drawings:
    """Return all glyphs, drawing them first if the cache has none of this matplotlib's fonts."""
    home = Path(os.environ.get("MMSSL_CACHE") or Path.home() / ".cache" / "multimodal_ssl")
    folder = home / f"glyphs-{FORMAT}-matplotlib-{version('matplotlib')}"
    if not folder.exists():
        _draw_all(folder)
    return Drawings(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Drawings._fields))


def _draw_all(folder: Path) -> None:
    """Draw all glyphs into a folder that appears only when it is complete."""
    fonts = font_paths()
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(draw_font, fonts)
        bar = track(drawn, "drawing glyphs", total=len(fonts), console=Console(stderr=True), transient=True)
        glyphs = [glyph for font in bar for glyph in font]
    drawings = Drawings(
        np.array([glyph.codepoint for glyph in glyphs], np.int32),
        np.array([glyph.font for glyph in glyphs]),
        np.stack([glyph.picture for glyph in glyphs]),
        np.stack([glyph.outline for glyph in glyphs]),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    for name, array in drawings._asdict().items():
        np.save(temporary / f"{name}.npy", array)
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)


def font_paths() -> list[Path]:
    """Return the DejaVu and STIX fonts that matplotlib carries."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return sorted(path for path in folder.glob("*.ttf") if path.stem.startswith(("DejaVu", "STIX")))


def draw_font(path: Path) -> list[Glyph]:
    """Return every printable, named character of a font that leaves a mark."""
    tracer = FT2Font(str(path))
    tracer.set_size(EM, 72)  # one point is one pixel
    brushes = {EM: ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)}
    glyphs = []
    for codepoint in sorted(tracer.get_charmap()):
        character = chr(codepoint)
        if not character.isprintable() or character.isspace() or not unicodedata.name(character, ""):
            continue
        tracer.load_char(codepoint, flags=LoadFlags.NO_HINTING)
        polygons = map(np.asarray, Outline(*tracer.get_path()).to_polygons(closed_only=False))
        contours = [one for one in polygons if len(one) > 1 and np.ptp(one, axis=0).max() > 0]
        if not contours:
            continue
        points = np.concatenate(contours)
        low, high = points.min(0), points.max(0)
        # An em keeps its size, so that a comma is no apostrophe and c no C; only what is too large is made to fit.
        em = max(8, min(EM, int(EM * (SIZE - 2) / max(high - low))))
        if em not in brushes:
            brushes[em] = ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)
        low, high = low * em / EM, high * em / EM
        x = (SIZE - low[0] - high[0]) / 2
        y = float(np.clip(BASELINE, high[1] + 1, SIZE - 1 + low[1]))
        canvas = Image.new("L", (SIZE, SIZE), 255)
        ImageDraw.Draw(canvas).text((x, y), character, fill=0, font=brushes[em], anchor="ls")
        picture = np.asarray(canvas)
        if picture.min() > 128:
            continue
        flip = np.array([1, -1])  # y points down in a picture
        outline = trace([contour * em / EM * flip + (x, y) for contour in contours])
        glyphs.append(Glyph(codepoint, path.stem, picture, outline))
    return glyphs


def trace(contours: list[NDArray[np.float64]]) -> NDArray[np.float16]:
    """Return POINTS points [3, POINTS] along contours [n, 2] in pixels, evenly by length."""
    points = np.concatenate(contours)
    starts = np.cumsum([0] + [len(contour) for contour in contours[:-1]])
    steps = np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T)
    begins = np.zeros(len(points) + 1, bool)
    begins[starts] = True
    steps[starts] = 0  # the pen is up between contours
    along = np.cumsum(steps)
    wanted = np.linspace(0, along[-1], POINTS)
    # searchsorted, not interp: a point never lies on the jump between two contours.
    right = np.clip(np.searchsorted(along, wanted, side="left"), 1, len(points) - 1)
    right += begins[right]
    left = right - 1
    length = np.maximum(along[right] - along[left], 1e-9)
    share = np.clip((wanted - along[left]) / length, 0, 1)[:, None]
    even = points[left] * (1 - share) + points[right] * share
    contour = np.searchsorted(starts, left, side="right")
    drawn = np.diff(contour, prepend=0) == 0
    return np.concatenate([even.T * 2 / SIZE - 1, drawn[None]]).astype(np.float16)
