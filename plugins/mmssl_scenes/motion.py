"""The inertial sensor inside the solid: which way it rolls, how fast it turns, and over what edges."""

from __future__ import annotations

import numpy as np

from mmssl_scenes.scene import WAYS, Scene
from mmssl_scenes.tracing import Floats

RATE, POINTS = 64, 128  # Hz; two seconds
EDGES = {"sphere": 0, "cube": 4, "cylinder": 1, "cone": 2, "ring": 8, "diamond": 3}  # bumps a turn
BUMP = 1.0  # of the centripetal acceleration
PUSH = 0.25  # seconds in which it comes up to speed
ROUGH = 0.15  # of the speed: what the floor does to it, in m/s^2
NOISE_ACCELERATION, NOISE_ROTATION = 0.12, 0.06  # m/s^2, rad/s


def feel(scene: Scene, noise: float) -> Floats:
    """Return accelerations without gravity (m/s^2) and rotations (rad/s) about x, y and z, [6, POINTS]."""
    rng = scene.rng("motion")
    time = np.arange(POINTS) / RATE
    begin, phase = rng.uniform(0.1, 0.5), rng.uniform(0, 2 * np.pi)
    share = ((time - begin) / PUSH).clip(0, 1)
    velocity = scene.velocity * share
    turning = velocity / scene.radius
    turned = np.cumsum(turning) / RATE + phase
    edges = EDGES[scene.factors.shape]
    # Sharp where an edge comes down: a power keeps the peaks of the sine alone.
    bump = ((1 + np.cos(edges * turned)) / 2) ** 3 * (edges > 0)
    central = velocity**2 / scene.radius
    x, z = WAYS[scene.factors.direction]
    push = scene.velocity / PUSH * ((share > 0) & (share < 1))
    rough = ROUGH * velocity * rng.standard_normal((3, POINTS))
    slowed = turning * (1 - 0.3 * bump)
    wobble = 0.5 * turning * np.sin(turned) * (scene.factors.shape == "cone")
    true = np.stack([x * push, BUMP * central * bump, z * push, z * slowed, wobble, -x * slowed])
    true[:3] += rough
    true[[0, 2]] += np.array([[x], [z]]) * -0.5 * central * bump
    sensor = np.repeat([NOISE_ACCELERATION, NOISE_ROTATION], 3)[:, None] * rng.standard_normal((6, POINTS))
    return (true + noise * sensor).astype(np.float32)
