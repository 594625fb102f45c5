from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

import mmssl_glyphs
from mmssl_glyphs.drawing import BASELINE, POINTS, SIZE, trace
from mmssl_glyphs.source import Glyphs, split_of
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_pairing_source

Split = Literal["train", "val", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def glyphs(
    *, split: Split = "train", fonts_per_character: int | None = None, limit: int | None = None, seed: int = 0
) -> Glyphs:
    return Glyphs(split=split, fonts_per_character=fonts_per_character, limit=limit, seed=seed)


def test_the_source_conforms() -> None:
    check_pairing_source(glyphs(limit=100))


def test_there_are_about_fifty_thousand_samples_of_seven_thousand_characters() -> None:
    everything = glyphs(split="all")
    assert len(everything) > 50_000
    assert len(glyphs(split="all", fonts_per_character=1)) > 7_000


def test_no_character_is_in_two_splits_and_together_they_are_all() -> None:
    parts = {split: glyphs(split=split) for split in SPLITS}
    characters = {split: set(one.drawings.codepoints[one.rows].tolist()) for split, one in parts.items()}
    assert not characters["train"] & characters["test"]
    assert not characters["train"] & characters["val"]
    assert not characters["val"] & characters["test"]
    assert sum(map(len, parts.values())) == len(glyphs(split="all"))
    assert 0.08 < len(characters["test"]) / sum(map(len, characters.values())) < 0.12
    assert split_of(0x21AA) == split_of(0x21AA)


def test_one_font_a_character_is_chosen_by_the_seed() -> None:
    one, again, other = (glyphs(split="test", fonts_per_character=1, seed=seed) for seed in (0, 0, 1))
    groups = [sample.group for sample in one]
    assert len(set(groups)) == len(groups)
    assert one.rows.tolist() == again.rows.tolist()
    assert one.rows.tolist() != other.rows.tolist()
    assert len(glyphs(limit=7)) == 7


def test_a_sample_is_a_picture_a_name_and_an_outline_of_the_same_character() -> None:
    source = glyphs(split="all")
    row = int(np.flatnonzero((source.drawings.codepoints == ord("A")) & (source.drawings.fonts == "DejaVuSans"))[0])
    sample = source[int(np.flatnonzero(source.rows == row)[0])]
    assert sample.key == "U+0041/DejaVuSans"
    assert sample.group == "U+0041"
    assert sample.metadata == {"font": "DejaVuSans"}
    assert sample.items["text"] == "latin capital letter a"
    picture, outline = sample.items["image"], np.asarray(sample.items["outline"], float)
    assert picture.shape == (SIZE, SIZE)
    assert outline.shape == (3, POINTS)
    dark_y, dark_x = np.nonzero(picture < 128)
    x, y = (outline[:2] + 1) / 2 * SIZE
    # The outline is drawn in the coordinates of the picture, and A stands on the baseline.
    assert (x.min(), x.max()) == pytest.approx((dark_x.min(), dark_x.max() + 1), abs=1.5)
    assert (y.min(), y.max()) == pytest.approx((dark_y.min(), dark_y.max() + 1), abs=1.5)
    assert y.max() == pytest.approx(BASELINE, abs=1)
    assert (outline[2] == 0).sum() == 2, "A has two contours"


def test_tracing_spreads_points_evenly_and_lifts_the_pen_between_contours() -> None:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], float)
    outline = np.asarray(trace([square, square + 20]), float)
    x, y = (outline[:2] + 1) / 2 * SIZE
    steps = np.hypot(np.diff(x), np.diff(y))
    drawn = outline[2, 1:] == 1
    assert (~drawn).sum() == 1
    assert steps[drawn].max() <= 80 / (POINTS - 1) + 0.05
    assert all(0 <= one <= 10.1 or 19.9 <= one <= 30.1 for one in x)


@pytest.mark.parametrize(
    ("option", "value"),
    [("limit", 0), ("limit", -1), ("fonts_per_character", 0), ("fonts_per_character", -1), ("seed", -1)],
)
def test_numbers_that_can_not_be_are_refused(option: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"option {option}: .* greater than or equal to \d \(given: {value}\)"):
        Catalog.of(glyphs=mmssl_glyphs).create("pairing_sources", "glyphs", options={option: value})
