"""The microphone: a solid that rolls strikes the floor again and again, and rings."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

from mmssl_scenes.scene import Scene
from mmssl_scenes.tracing import Floats

RATE, SECONDS = 8000, 1.0
PITCH = 170.0  # Hz of a solid of 1 m: of all shapes, the smaller the higher
STRIKES = 5.0  # a metre
LOUDNESS = 0.8  # at 1 m
SWELL = 4.0  # times louder at one end than at the other, towards or away
ROOM_NOISE = 0.004

TIMBRES = {
    "sphere": ((1.0, 1.0),),
    "cube": ((1.0, 1.0), (3.0, 0.8), (5.0, 0.6)),
    "cylinder": ((1.0, 0.7), (2.0, 1.0), (4.0, 0.5)),
    "cone": ((1.0, 0.9), (2.76, 0.9)),
    "ring": ((1.0, 0.5), (1.52, 0.8), (3.46, 1.0), (5.1, 0.5)),
    "diamond": ((1.0, 0.4), (6.3, 1.0)),
}
"""Shape -> frequencies of its partials, relative to the pitch, and their levels."""
DECAY = {"sphere": 0.10, "cube": 0.03, "cylinder": 0.05, "cone": 0.07, "ring": 0.25, "diamond": 0.04}  # s


def record(scene: Scene, noise: float) -> bytes:
    """Return a WAV file of one channel, SECONDS long."""
    rng = scene.rng("audio")
    count = round(RATE * SECONDS)
    strikes = np.zeros(count, np.float32)
    gap = RATE / (STRIKES * scene.velocity)
    for at in np.arange(rng.uniform(0, gap), count, gap):
        strikes[int(at)] = rng.uniform(0.8, 1.2)
    ringing = np.zeros(count, np.float32)
    strike = _strike(scene)
    for at in np.flatnonzero(strikes):
        ringing[at : at + len(strike)] += strikes[at] * strike[: count - at]
    swell = {"towards": SWELL, "away": 1 / SWELL}.get(scene.factors.direction, 1.0)
    ringing *= np.exp(np.linspace(-0.5, 0.5, count, dtype=np.float32) * np.float32(np.log(swell)))
    level = np.float32(LOUDNESS / scene.distance * rng.uniform(0.9, 1.1))
    sound = level * ringing + rng.standard_normal(count, np.float32) * np.float32(ROOM_NOISE * noise)
    return _wav(sound)


def _strike(scene: Scene) -> Floats:
    """Return the ringing after one strike [T], up to where it has faded."""
    decay = DECAY[scene.factors.shape]
    time = np.arange(int(4 * decay * RATE), dtype=np.float32) / RATE
    partials = np.array(TIMBRES[scene.factors.shape], np.float32)
    pitch = PITCH / scene.radius
    waves = np.sin(np.float32(2 * np.pi * pitch) * partials[:, :1] * time)
    heard = partials[:, 1] / partials[:, 1].sum() * (partials[:, 0] * pitch < RATE / 2)
    return heard @ waves * np.exp(-time / np.float32(decay))


def _wav(sound: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
