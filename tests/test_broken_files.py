"""A folder of which 5 % is broken in ten ways trains to the end, and each broken file is told with a true reason."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from multimodal_ssl.config import parse_config
from multimodal_ssl.data import hash64
from multimodal_ssl.pipeline import fit

from .toys import TINY, read_rows

COUNT = 400


def png(number: int, format: str = "PNG") -> bytes:
    """Return a picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def damaged(number: int) -> bytes:
    """Return a PNG in whose compressed pixels some bytes are wrong."""
    body = bytearray(png(number))
    body[len(body) // 2 : len(body) // 2 + 8] = b"\0" * 8
    return bytes(body)


def enormous() -> bytes:
    """Return a PNG of a few bytes that says it has 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


BROKEN: dict[str, tuple[Callable[[Path, int], object], str]] = {
    "empty": (lambda path, _: path.write_bytes(b""), "no picture of a kind that Pillow knows: .*png"),
    "text": (lambda path, _: path.write_text("404 not found"), "no picture of a kind that Pillow knows"),
    "cut": (lambda path, n: path.write_bytes(png(n)[:600]), "OSError: (image file is truncated|unrecognized|.*)"),
    "damaged": (lambda path, n: path.write_bytes(damaged(n)), "(Syntax|OS|Value)Error: .*"),
    "enormous": (lambda path, _: path.write_bytes(enormous()), r"DecompressionBombError: .*400000000 pixels"),
    "header": (lambda path, n: path.write_bytes(png(n)[:8]), "no picture of a kind|truncated"),
    "latin-1": (lambda path, _: path.with_suffix(".txt").write_bytes(b"caf\xe9"), "utf-8"),
    "no JSON": (lambda path, _: path.with_suffix(".json").write_text("{"), "json can't be read: Expecting"),
    "other JSON": (lambda path, _: path.with_suffix(".json").write_text("[1]"), "it is no JSON object"),
    "a loop": (
        lambda path, _: (path.unlink(), path.symlink_to(path.name)),
        "it can't be looked at: .*(links|loop)",
    ),
}


def test_every_broken_file_is_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(COUNT):
        (data / f"{number:03}.png").write_bytes(png(number))
        (data / f"{number:03}.txt").write_text(f"thing {number}")
        (data / f"{number:03}.json").write_text('{"licence": "CC0"}')
    kinds = {20 * place + 7: kind for place, kind in enumerate([*BROKEN, *BROKEN])}
    for number, kind in kinds.items():
        BROKEN[kind][0](data / f"{number:03}.png", number)
    before = sorted(os.listdir(tmp_path))
    source = {
        "name": "folder", "path": str(data), "items": {"image": ".png", "text": ".txt"}, "metadata": ["licence"],
    }  # fmt: skip
    values = {**TINY, "run": str(tmp_path / "run"), "sources": [source], "evaluation": []}
    values["encoders"] = {name: TINY["encoders"][name] for name in ("image", "text")}
    values["train"] = {"epochs": 3, "batch": 19, "workers": 1, "threads": 1, "max_unreadable": 0.1}
    fit(parse_config(values))

    told = {row["key"]: row["reason"] for row in read_rows(tmp_path / "run")}
    assert {key.removesuffix(".png") for key in told} == {f"{number:03}" for number in kinds}
    for key, reason in told.items():
        kind = kinds[int(key.removesuffix(".png"))]
        assert re.search(BROKEN[kind][1], reason), f"{kind}: {reason}"
        assert "at 0x" not in reason, "a reason tells nothing of where in memory"
    trained = pq.ParquetFile(tmp_path / "run" / "trust.parquet").read()["names"].to_pylist()
    assert set(trained) == set(hash64(f"{n:03}" for n in range(COUNT) if n not in kinds).tolist())
    assert sorted(os.listdir(tmp_path)) == [*before, "run"]
