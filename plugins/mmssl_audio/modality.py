"""The modality of sounds: what one is, how it is read, and what a page shows of it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from multimodal_ssl import Modality
from multimodal_ssl.types import Preview

PICTURE = (192, 64)  # pixels
PREVIEW_SECONDS = 10
LONGEST = 3600  # seconds: a few MB of silence in FLAC may be days, and would fill the memory


class Audio(NamedTuple):
    """A sound.

    Attributes:
        samples: float32 [channels, samples] in [-1, 1].
        rate: samples per second.
    """

    samples: NDArray[np.float32]
    rate: int


def load(value: Any) -> Audio:
    """Read a sound from a path, from the bytes of a file (WAV, FLAC, OGG, MP3) or from an Audio.

    What is louder than full scale, as a float file may be, is scaled down to it.
    """
    if isinstance(value, Audio):
        samples, rate = value
    elif isinstance(value, bytes | str | os.PathLike):
        samples, rate = _decode(value)
    else:
        raise ValueError(f"expected a path, the bytes of a sound file or Audio(samples, rate), not {type(value)}")
    samples = np.asarray(samples)
    if samples.dtype.kind != "f":
        raise ValueError(f"samples must be floats in [-1, 1], not {samples.dtype}: divide integers by their full scale")
    if samples.ndim != 2:
        raise ValueError(f"samples must be [channels, samples], not of shape {samples.shape}")
    if samples.size == 0:
        raise ValueError(f"the sound is empty: its shape is {samples.shape}")
    if samples.shape[0] > samples.shape[1]:
        raise ValueError(f"samples must be [channels, samples], but their shape is {samples.shape}: transpose them")
    if rate <= 0:
        raise ValueError(f"the rate must be positive, not {rate} samples a second")
    peak = max(samples.max(), -samples.min())  # NaN if any sample is
    if not np.isfinite(peak):
        raise ValueError("the sound has samples that are not finite")
    return Audio((samples / max(peak, 1)).astype(np.float32, copy=False), int(rate))


def _decode(value: Any) -> tuple[NDArray[np.float32], int]:
    # Read here: soundfile itself would trust the name of a file more than its content.
    data = value if isinstance(value, bytes) else Path(value).read_bytes()
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames > LONGEST * file.samplerate:
                hours = file.frames / file.samplerate / 3600
                raise ValueError(f"{hours:.1f} hours of sound, more than one: cut it into pieces")
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        name = f"{len(data)} bytes" if isinstance(value, bytes) else os.fspath(value)
        raise ValueError(f"can't decode {name}: {error.error_string} Expected WAV, FLAC, OGG or MP3.") from error
    return np.ascontiguousarray(samples.T), rate


def preview(item: Audio) -> Preview:
    """Draw the waveform and give the first ten seconds as 16-bit WAV."""
    wave = item.samples.mean(0)
    width, height = PICTURE
    edges = np.arange(width) * len(wave) // width  # equal neighbours stand for one sample each
    low, high = np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)
    picture = Image.new("RGB", PICTURE, "white")
    draw = ImageDraw.Draw(picture)
    for x, (top, bottom) in enumerate(zip(_row(high, height), _row(low, height), strict=True)):
        draw.line((x, top, x, bottom), fill=(40, 90, 160))
    png, wav = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    soundfile.write(wav, item.samples[:, : PREVIEW_SECONDS * item.rate].T, item.rate, "PCM_16", format="WAV")
    return Preview(png=png.getvalue(), wav=wav.getvalue())


def _row(level: NDArray[np.float32], height: int) -> list[float]:
    return ((1 - level) / 2 * (height - 1)).round().tolist()


def measure(item: Audio) -> dict[str, float]:
    """Return how long and at what rate (samples per second) a sound is, and its number of channels."""
    channels, samples = item.samples.shape
    return {"seconds": samples / item.rate, "rate": item.rate, "channels": channels}


AUDIO = Modality("audio", Audio, load, preview, measure)
