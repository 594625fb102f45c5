"""What there is in a scene: the factors that can be told in words, and the measures that vary within them."""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

FACTORS = {
    "shape": ("sphere", "cube", "cylinder", "cone", "ring", "diamond"),
    "colour": ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "white"),
    "size": ("small", "medium", "large"),
    "distance": ("near", "midway", "far"),
    "place": ("left", "centre", "right"),
    "warmth": ("cold", "warm", "hot"),
    "direction": ("leftwards", "rightwards", "towards", "away"),
    "speed": ("slow", "fast"),
}
RADIUS = {"small": 0.30, "medium": 0.45, "large": 0.66}  # m
DISTANCE = {"near": 2.3, "midway": 3.1, "far": 4.3}  # m
BEARING = {"left": -0.26, "centre": 0.0, "right": 0.26}  # sideways, relative to the distance
WARMTH = {"cold": 4.0, "warm": 34.0, "hot": 62.0}  # degrees Celsius; the room has about 20
SPEED = {"slow": 0.6, "fast": 1.5}  # m/s
WAYS = {"leftwards": (-1, 0), "rightwards": (1, 0), "towards": (0, -1), "away": (0, 1)}  # x, z
SPREAD = 0.08  # of radius, distance and speed within a word, up or down
BEARING_SPREAD, WARMTH_SPREAD, YAW = 0.04, 3.0, 0.6

STREAMS = ("scene", "image", "text", "audio", "depth", "thermal", "motion")


class Factors(NamedTuple):
    """One value of each of FACTORS."""

    shape: str
    colour: str
    size: str
    distance: str
    place: str
    warmth: str
    direction: str
    speed: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A solid that rolls over a floor.

    Attributes:
        identity: seed, number of the combination and of the rendering.
        radius: about half of its height, in m.
        distance: of its middle from the camera, along the line of sight, in m.
        sideways: of its middle from that line, to the right, in m.
        temperature: in degrees Celsius.
        velocity: in m/s.
        yaw: how far it is turned about the vertical, in radians.
    """

    identity: tuple[int, int, int]
    factors: Factors
    radius: float
    distance: float
    sideways: float
    temperature: float
    velocity: float
    yaw: float

    def rng(self, stream: str) -> np.random.Generator:
        """Return the randomness of one sensor, which does not depend on whether another was asked."""
        return np.random.default_rng((*self.identity, STREAMS.index(stream)))


COMBINATIONS = tuple(map(Factors._make, itertools.product(*FACTORS.values())))


def draw_scene(seed: int, number: int, rendering: int) -> Scene:
    """Return a scene of a combination, a function of these three numbers alone."""
    identity = (seed, number, rendering)
    factors = COMBINATIONS[number]
    rng = np.random.default_rng((*identity, STREAMS.index("scene")))
    near, wide, quick, aside, warm, turned = rng.uniform(-1, 1, 6).tolist()
    metres = DISTANCE[factors.distance] * (1 + SPREAD * near)
    return Scene(
        identity,
        factors,
        radius=RADIUS[factors.size] * (1 + SPREAD * wide),
        distance=metres,
        sideways=metres * (BEARING[factors.place] + BEARING_SPREAD * aside),
        temperature=WARMTH[factors.warmth] + WARMTH_SPREAD * warm,
        velocity=SPEED[factors.speed] * (1 + SPREAD * quick),
        yaw=YAW * turned,
    )


@functools.cache
def splits() -> tuple[Literal["train", "val", "test"], ...]:
    """Return the split of each combination, by the hash of its words."""

    def of(factors: Factors) -> Literal["train", "val", "test"]:
        place = int.from_bytes(hashlib.blake2b("-".join(factors).encode(), digest_size=4).digest()) / 2**32
        return "test" if place < 0.10 else "val" if place < 0.15 else "train"

    return tuple(map(of, COMBINATIONS))
