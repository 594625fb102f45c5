"""What a text is: a string."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal_ssl import Modality, Preview

PREVIEW_LENGTH = 500


def load(value: Any) -> str:
    """Return a string as it is; read a Path or bytes as UTF-8. Raise ValueError if no character is left."""
    if isinstance(value, Path):
        value = value.read_bytes()
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8-sig")
    if not isinstance(value, str):
        raise ValueError(f"a text is a string, UTF-8 bytes or a Path, not a {type(value).__name__}")
    if not value.strip():
        raise ValueError("the text is empty")
    return value


def preview(item: str) -> Preview:
    """Return the beginning of the text."""
    return Preview(text=item if len(item) <= PREVIEW_LENGTH else item[: PREVIEW_LENGTH - 1] + "…")


def measure(item: str) -> dict[str, float]:
    """Count characters, and words: what stands between blanks."""
    return {"characters": len(item), "words": len(item.split())}


TEXT = Modality("text", str, load, preview, measure)
