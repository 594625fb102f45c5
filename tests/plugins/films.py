"""Small films whose pictures and sound both tell the time."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE, FPS, WIDTH, HEIGHT = 16000, 25, 96, 64
LOW, STEP = 500.0, 400.0  # Hz at the beginning, and how many more in every second
SIDE = 16


def film(
    seconds: float = 4.0,
    *,
    container: str = "mp4",
    sound: bool = True,
    words: list[tuple[float, float, str]] | None = None,
    every: Callable[[int], bool] | None = None,
    grey: Callable[[float], int] | None = None,
) -> bytes:
    """Return a film: a white square goes from left to right, the tone rises in steps of a second.

    Args:
        words: start, end and text of embedded subtitles.
        every: frame -> whether it is there (else its time passes without a picture).
        grey: time -> the grey level of the background.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mp4": "mp4", "mkv": "matroska"}[container]) as out:
        pictures = out.add_stream("libx264", rate=FPS, options={"crf": "10", "g": "25"})
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, FPS)
        tones = out.add_stream("aac", rate=RATE, layout="mono") if sound else None
        lines = out.add_mux_stream("subrip") if words else None
        for index in range(round(seconds * FPS)):
            if every and not every(index):
                continue
            frame = av.VideoFrame.from_ndarray(
                picture(index / FPS, seconds, grey(index / FPS) if grey else 0), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode())
        if tones:
            samples = tone(np.arange(round(seconds * RATE)) / RATE)
            for start in range(0, len(samples), 1024):
                part = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
                out.mux(tones.encode(part))
            out.mux(tones.encode())
        for start, end, text in words or ():
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = lines, Fraction(1, 1000)
            packet.pts = packet.dts = round(1000 * start)
            packet.duration = round(1000 * (end - start))
            out.mux(packet)
    return buffer.getvalue()


def picture(time: float, seconds: float, grey: int) -> NDArray[np.uint8]:
    """Draw the square where it is at a time."""
    pixels = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
    left = round(time / seconds * (WIDTH - SIDE))
    pixels[24 : 24 + SIDE, left : left + SIDE] = 255
    return pixels


def tone(times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a tone of LOW Hz in the first second, of STEP Hz more in each one after."""
    return (0.5 * np.sin(2 * np.pi * (LOW + STEP * np.floor(times)) * times)).astype(np.float32)


def time_seen(pixels: NDArray[np.uint8], seconds: float) -> float:
    """Return the time that a picture tells, by where the square is."""
    columns = pixels[:, :, 0].astype(float).clip(128) - 128
    centre = (columns.sum(0) * (np.arange(pixels.shape[1]) + 0.5)).sum() / columns.sum()
    return float((centre * WIDTH / pixels.shape[1] - SIDE / 2) / (WIDTH - SIDE) * seconds)


def read_wave(data: bytes) -> tuple[NDArray[np.float64], int]:
    """Return the samples and the rate of a WAV file."""
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768, file.getframerate()


def second_heard(data: bytes, start: float, end: float) -> int:
    """Return the second of the film that a span of a WAV file tells, by its tone."""
    samples, rate = read_wave(data)
    part = samples[round(start * rate) : round(end * rate)]
    pitch = np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part)
    return round((pitch - LOW) / STEP)


def write(path: Path, data: bytes) -> Path:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
