"""Answers as a picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from multimodal_ssl.index import Hit
from multimodal_ssl.types import Preview

TILE, MARGIN, CAPTION = 120, 8, 44  # pixels


def contact_sheet(path: Path, rows: Sequence[tuple[Preview | str, Sequence[Hit]]]) -> None:
    """Draw a row for each query, the query on the left and its hits with their cosine and group, into a PNG."""
    columns = 1 + max(len(hits) for _, hits in rows)
    width, height = MARGIN + columns * (TILE + MARGIN), MARGIN + len(rows) * (TILE + CAPTION + MARGIN)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (query, hits) in enumerate(rows):
        top = MARGIN + row * (TILE + CAPTION + MARGIN)
        draw.rectangle((0, top - MARGIN // 2, MARGIN + TILE + MARGIN // 2, top + TILE + CAPTION), fill="#eef2f7")
        _tile(sheet, MARGIN, top, Preview(text=query) if isinstance(query, str) else query, "")
        for column, hit in enumerate(hits, 1):
            left = MARGIN + column * (TILE + MARGIN)
            _tile(sheet, left, top, hit.item.preview, f"{hit.score:.2f}\n{hit.item.key}")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def _tile(sheet: Image.Image, left: int, top: int, preview: Preview, caption: str) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    if preview.png:
        picture = Image.open(io.BytesIO(preview.png)).convert("RGB")
        scale = min(TILE / picture.width, TILE / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2))
    elif preview.text:
        draw.multiline_text((left, top + 4), textwrap.fill(preview.text, 18, max_lines=8), fill="black", font=font)
    lines = [line for part in caption.split("\n") for line in textwrap.wrap(part, 18, break_on_hyphens=False)]
    draw.multiline_text((left, top + TILE + 2), "\n".join(lines[:3]), fill="#555", font=font)
