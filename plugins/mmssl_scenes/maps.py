"""The cameras for depth and for heat."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmssl_scenes.scene import Scene
from mmssl_scenes.tracing import Floats, trace

RANGE = 6.0  # m: the depth camera knows nothing beyond
DEPTH_NOISE = 0.003  # m at 1 m; it grows with the square of depth, as that of stereo cameras
LOST, LOST_EDGE = 0.01, 0.5  # share of pixels without an answer, anywhere and at the edges of the solid

ROOM = (17.0, 23.0)  # degrees Celsius
DRAUGHT, HEAT_NOISE = 0.8, 0.4  # degrees: smooth, and of each pixel
GRAZING = 0.7  # of its contrast is left where a surface is seen from the side


def measure_depth(scene: Scene, size: int, noise: float) -> Floats:
    """Return z in m [size, size], NaN out of range and where the sensor has no answer."""
    rng = scene.rng("depth")
    view = trace(scene, size)
    depth, edge = view.depth, np.zeros_like(view.solid)
    edge[:, 1:] = view.solid[:, 1:] != view.solid[:, :-1]
    edge[1:] |= view.solid[1:] != view.solid[:-1]
    lost = rng.random(depth.shape, np.float32) < noise * np.where(edge, np.float32(LOST_EDGE), np.float32(LOST))
    seen = depth + rng.standard_normal(depth.shape, np.float32) * np.square(depth) * np.float32(DEPTH_NOISE * noise)
    return np.where(lost | (depth > RANGE), np.float32(np.nan), seen)


def measure_heat(scene: Scene, size: int, noise: float) -> Floats:
    """Return degrees Celsius [size, size]; colours, and what lies on the floor, are not seen."""
    rng = scene.rng("thermal")
    view = trace(scene, size)
    room = np.float32(rng.uniform(*ROOM))
    draught = Image.fromarray(rng.standard_normal((5, 5), np.float32) * np.float32(DRAUGHT * noise))
    heat = room + np.asarray(draught.resize((size, size), Image.Resampling.BICUBIC))
    facing = -view.normal[2, view.solid].clip(-1, 0)
    contrast = GRAZING + (1 - GRAZING) * facing
    heat[view.solid] += (np.float32(scene.temperature) - room) * contrast
    return heat + rng.standard_normal(heat.shape, np.float32) * np.float32(HEAT_NOISE * noise)
