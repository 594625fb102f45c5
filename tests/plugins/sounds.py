"""Sounds that the tests of audio are made of."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from mmssl_audio.modality import Audio


def sine(frequency: float, *, rate: int = 16000, seconds: float = 0.5, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound(frequency: float, *, rate: int = 16000, seconds: float = 0.5) -> Audio:
    return Audio(sine(frequency, rate=rate, seconds=seconds)[np.newaxis], rate)


def encoded(samples: NDArray[np.float32], rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, rate, subtype, format=kind)
    return buffer.getvalue()


def pitch(wave: NDArray[np.float32], rate: int) -> float:
    """Return the frequency of the highest peak, in Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() * rate / len(wave))
