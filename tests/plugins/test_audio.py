from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmssl_audio.modality import AUDIO, Audio
from multimodal_ssl.testing import check_modality

from .sounds import encoded, pitch, sine, sound

FILES = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]


def test_the_modality_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(sine(440)[np.newaxis], 16000))
    values = [encoded(sine(440)[np.newaxis], 16000, kind, subtype) for kind, subtype in FILES]
    check_modality(AUDIO, [path, str(path), sound(440), *values])


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [("WAV", "PCM_U8", 1e-2), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "FLOAT", 1e-9),
     ("FLAC", "PCM_16", 1e-4), ("FLAC", "PCM_24", 1e-6)],
)  # fmt: skip
def test_lossless_files_give_back_every_sample(kind: str, subtype: str, error: float) -> None:
    samples = np.stack([sine(440, rate=22050), sine(660, rate=22050)])
    found = AUDIO.load(encoded(samples, 22050, kind, subtype))
    assert found.rate == 22050
    assert found.samples.dtype == np.float32
    np.testing.assert_allclose(found.samples, samples, atol=error)


@pytest.mark.parametrize(("kind", "subtype"), FILES)
@pytest.mark.parametrize("rate", [8000, 48000])
def test_every_file_type_keeps_rate_channels_and_pitch(kind: str, subtype: str, rate: int) -> None:
    samples = np.stack([sine(440, rate=rate), sine(1000, rate=rate)])
    found = AUDIO.load(encoded(samples, rate, kind, subtype))
    assert found.rate == rate
    assert found.samples.shape[0] == 2
    for channel, frequency in zip(found.samples, (440, 1000), strict=True):
        assert pitch(channel, rate) == pytest.approx(frequency, abs=3)
        assert channel.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(encoded(sine(440)[np.newaxis], 16000, "FLAC"))
    assert AUDIO.load(path).samples.shape == (1, 8000)


def test_what_is_louder_than_full_scale_is_scaled_down() -> None:
    loud = 4 * np.stack([sine(440), sine(660)])
    found = AUDIO.load(encoded(loud, 16000, "WAV", "FLOAT")).samples
    np.testing.assert_allclose(found, loud / np.abs(loud).max(), rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"RIFF but no sound", "can't decode 17 bytes"),
        (b"", "can't decode 0 bytes"),
        (encoded(np.zeros((1, 0), np.float32), 8000), "empty"),
        pytest.param(
            encoded(np.array([[0, np.nan, 0]], np.float32), 8000, "WAV", "FLOAT"), "not finite", id="it tells its time"
        ),
        (Audio(np.array([[0, np.inf]], np.float32), 8000), "not finite"),
        (Audio(np.zeros((2, 100), np.int16), 8000), "not int16"),
        (Audio(np.zeros((100, 2), np.float32), 8000), "transpose"),
        (Audio(np.zeros(100, np.float32), 8000), r"\[channels, samples\]"),
        (Audio(np.zeros((1, 100), np.float32), 0), "rate must be positive"),
        ([0.0, 0.1], "expected a path"),
    ],
)
def test_what_is_no_sound_is_said(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AUDIO.load(value)


def test_a_damaged_file_is_named_and_a_missing_one_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"noise\.wav"):
        AUDIO.load(tmp_path / "noise.wav")
    with pytest.raises(OSError, match=r"gone\.wav"):
        AUDIO.load(tmp_path / "gone.wav")


def test_the_preview_shows_where_it_is_loud_and_plays_ten_seconds() -> None:
    wave = np.concatenate([np.zeros(8000 * 6, np.float32), sine(440, rate=8000, seconds=6, level=1.0)])
    preview = AUDIO.preview(Audio(np.stack([wave, wave]), 8000))
    assert preview.png is not None
    assert preview.wav is not None
    ink = (np.asarray(Image.open(io.BytesIO(preview.png)).convert("L")) < 255).sum(0)
    assert ink.shape == (192,)
    assert ink[:94].max() == 1
    assert ink[98:].min() >= 62
    played, rate = soundfile.read(io.BytesIO(preview.wav))
    assert (played.shape, rate) == ((80000, 2), 8000)
    np.testing.assert_allclose(played[:, 0], wave[:80000], atol=1e-4)
    assert soundfile.info(io.BytesIO(preview.wav)).subtype == "PCM_16"


def test_a_preview_of_a_sound_shorter_than_the_picture_has_every_column() -> None:
    preview = AUDIO.preview(Audio(np.array([[1.0, -1.0]], np.float32), 8000))
    assert preview.png is not None
    rows = (np.asarray(Image.open(io.BytesIO(preview.png)).convert("L")) < 255).argmax(0)
    assert rows.tolist() == [0] * 96 + [63] * 96
