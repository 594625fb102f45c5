"""The pairing source of glyphs: image, text (the Unicode name) and outline (a series)."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

import numpy as np

from mmssl_glyphs.drawing import load_drawings
from multimodal_ssl import Manifest, MapSource, Sample


class Glyphs(MapSource):
    """Characters of matplotlib's fonts, split by character: those of one split are in no other.

    Args:
        split: train (85 % of the characters), val (5 %), test (10 %) or all.
        fonts_per_character: at most so many fonts of each character.
        limit: at most so many samples.
        seed: of the choice that the two make.
    """

    modalities = {"image": "image", "text": "text", "outline": "series"}

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test", "all"],
        fonts_per_character: int | None,
        limit: int | None,
        seed: int,
    ) -> None:
        self.drawings = load_drawings()
        characters, which = np.unique(self.drawings.codepoints, return_inverse=True)
        chosen = np.array([split in ("all", split_of(int(one))) for one in characters])[which]
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(chosen))
        if fonts_per_character is not None:
            order = np.argsort(which[rows], kind="stable")
            starts = np.flatnonzero(np.diff(which[rows][order], prepend=-1))
            rank = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)]))
            rows = rows[order[rank < fonts_per_character]]
        self.rows = np.sort(rows if limit is None else np.random.default_rng(seed).permutation(rows)[:limit])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        codepoint = int(self.drawings.codepoints[row])
        items = {
            "image": self.drawings.pictures[row],
            "text": unicodedata.name(chr(codepoint)).lower(),
            "outline": self.drawings.outlines[row],
        }
        font, character = str(self.drawings.fonts[row]), f"U+{codepoint:04X}"
        return Sample(f"{character}/{font}", items, group=character, metadata={"font": font})

    def manifest(self) -> Manifest:
        everything = np.ones((len(self), len(self.modalities)), bool)
        return Manifest(everything, self.drawings.codepoints[self.rows].astype(np.int64))


def split_of(codepoint: int) -> Literal["train", "val", "test"]:
    """Return the split of a character: by hash, so that it is the same for every version of the fonts."""
    place = int.from_bytes(hashlib.blake2b(b"%d" % codepoint, digest_size=4).digest()) / 2**32
    return "test" if place < 0.10 else "val" if place < 0.15 else "train"
