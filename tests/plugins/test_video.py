"""Moving pictures: the modality, the encoder, and subtitles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmssl_video.captions import Cue, parse, spoken
from mmssl_video.container import MediaError
from mmssl_video.conv import VideoEncoder
from mmssl_video.modality import VIDEO
from multimodal_ssl import InputError
from multimodal_ssl.testing import check_encoder, check_modality

from .films import film, time_seen, write


def small(**options: int | bool) -> VideoEncoder:
    torch.manual_seed(0)
    given = {"frames": 6, "size": 24, "channels": 3, "width": 16, "depth": 1, "augment": True, "flip": False}
    return VideoEncoder(**{**given, **options})  # type: ignore[arg-type]  # of each its own type


def test_the_modality_conforms_and_reads_every_picture(tmp_path: Path) -> None:
    data = film(1.0)
    path = write(tmp_path / "a.mp4", data)
    check_modality(VIDEO, [path, str(path), data, np.zeros((2, 8, 9, 3), np.uint8)])
    pictures = VIDEO.load(data)
    assert pictures.shape == (25, 64, 96, 3)
    assert np.allclose([time_seen(one, 1.0) for one in pictures], np.arange(25) / 25, atol=0.02)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((2, 8, 9), np.uint8), r"uint8 \[T, H, W, 3\], not uint8 \[2, 8, 9\]"),
        (np.zeros((2, 8, 9, 3)), "not float64"),
        (np.zeros((0, 8, 9, 3), np.uint8), "empty"),
        (7, "not a int"),
        (b"no video", "can't be read as video"),
        ("nowhere.mp4", "no file nowhere.mp4"),
    ],
)
def test_what_is_no_video_is_told(value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        VIDEO.load(value)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_conforms(channels: int) -> None:
    rng = np.random.default_rng(0)
    items = [rng.integers(0, 255, (count, 30, 40, 3), np.uint8) for count in (3, 6, 20)]
    check_encoder(small(channels=channels), items)


def test_the_encoder_sees_motion() -> None:
    pictures = VIDEO.load(film(1.0))
    encoder = small(augment=False).eval()
    shown = [pictures, pictures[::-1], np.repeat(pictures[12:13], 25, 0)]
    with torch.no_grad():
        ahead, back, still = encoder(encoder.collate([encoder.prepare(np.ascontiguousarray(one)) for one in shown]))
    assert (ahead - back).norm() > 0.01 * ahead.norm()
    assert (ahead - still).norm() > 0.01 * ahead.norm()


def test_a_width_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16"):
        small(width=20)


SRT = (
    "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Hello</i> &amp; {\\an8}you,\r\na < b\r\n\r\n"
    "2\r\n00:00:02,000 --> 00:01:03,5\r\n<3\r\n"
)
VTT = """WEBVTT - a title

STYLE
::cue {color: red}

NOTE no cue

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Hello</v> <00:00:01.500><c.x>& you</c>,
a < b

00:00:02.000 --> 00:01:03.500
<3
"""


@pytest.mark.parametrize("data", [SRT.encode(), SRT.encode("utf-16"), SRT, VTT.encode(), VTT.replace("\n", "\r")])
def test_srt_and_vtt_tell_what_is_said_when(data: bytes | str) -> None:
    cues, broken = parse(data)
    assert cues == [Cue(1.0, 2.5, "Hello & you, a < b"), Cue(2.0, 63.5, "<3")]
    assert not broken


def test_messy_subtitles_give_what_can_be_used_and_tell_the_rest() -> None:
    text = (
        "2\n00:00:05,000 --> 00:00:06,000\nlate\n2\n00:00:01,000 --> 00:00:02,000\nearly\n\n"
        "3\n00:00:09,000 --> 00:00:08,000\nback\n\n4\n00:xx --> 1\nodd\n\nwords alone\n\n"
        "5\n00:00:07,000 --> 00:00:08,000\n<b></b>\n"
    )
    cues, broken = parse(text)
    assert cues == [Cue(1.0, 2.0, "early"), Cue(5.0, 6.0, "late")]
    assert [where for where, _ in broken] == ["line 9", "line 13", "line 16"]
    assert "ends before it begins" in broken[0][1]
    assert "is no time such as" in broken[1][1]
    assert "has no time" in broken[2][1]
    assert parse("") == ([], [])
    with pytest.raises(MediaError, match="not UTF-8"):
        parse("é".encode("latin-1"))


def test_a_cue_is_said_where_half_of_it_lies_or_it_fills_half() -> None:
    cues = [Cue(0, 10, "long"), Cue(1, 2, "a"), Cue(1.6, 2.6, "over"), Cue(3, 4, "b")]
    assert spoken(cues, 1, 2) == "long a"
    assert spoken(cues, 2, 3) == "long over"
    assert spoken(cues, 1, 4) == "long a over b"
    assert spoken(cues, 11, 12) == ""
