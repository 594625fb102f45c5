"""The camera for light: a lit solid on a floor before a wall, with its shadow and the trace that it leaves."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmssl_scenes.scene import WAYS, Scene
from mmssl_scenes.tracing import CAMERA, FOCAL, WALL, Floats, View, middle, trace

COLOURS = {
    "red": (0.82, 0.10, 0.10),
    "orange": (0.95, 0.48, 0.06),
    "yellow": (0.95, 0.85, 0.12),
    "green": (0.13, 0.58, 0.17),
    "turquoise": (0.10, 0.72, 0.70),
    "blue": (0.12, 0.25, 0.80),
    "purple": (0.50, 0.15, 0.65),
    "white": (0.93, 0.93, 0.93),
}
TRACED = 1.0  # seconds that the trace on the floor goes back
TRACE_WIDTH, TRACE_TINT = 0.11, np.array([0.95, 0.92, 0.78], np.float32)  # m from the middle; chalk
AMBIENT, SHINE, SHADOW = 0.45, 0.35, 0.55
POSTERS = 4  # at most, on the wall
GRAIN = 0.02  # of full brightness


def photograph(scene: Scene, size: int, noise: float) -> Image.Image:
    """Return an RGB picture of size x size."""
    rng = scene.rng("image")
    view = trace(scene, size)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), -rng.uniform(0.5, 0.9)], np.float32)
    light /= np.linalg.norm(light)
    picture = _wall(view, rng)
    _lay_floor(picture, scene, view, light, rng)
    _light_solid(picture, scene, view, light)
    picture *= np.float32(rng.uniform(0.85, 1.1))
    picture += rng.standard_normal((size, size, 1), np.float32) * np.float32(GRAIN * noise)
    return Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))


def _wall(view: View, rng: np.random.Generator) -> Floats:
    """Return a picture [H, W, 3] of a wall in a pale colour with stains and a few posters."""
    size = len(view.solid)
    colour = rng.uniform(0.55, 0.75) + rng.uniform(-0.07, 0.07, 3)
    wall = colour.astype(np.float32) + _cloud(size, 6, rng) * np.float32(0.05)
    for _ in range(rng.integers(POSTERS + 1)):
        left, top = rng.integers(size), rng.integers(size // 2)
        width, height = rng.integers(size // 12, size // 4, 2)
        wall[top : top + height, left : left + width] = rng.uniform(0.3, 0.8) + rng.uniform(-0.12, 0.12, 3)
    return wall


def _lay_floor(picture: Floats, scene: Scene, view: View, light: Floats, rng: np.random.Generator) -> None:
    """Draw the floor, the shadow of the solid and the trace behind it."""
    size = len(view.solid)
    begin = size - int((view.up[:, 0] < -CAMERA / WALL).sum())
    x, _, z = middle(scene)
    depth = CAMERA / -view.up[begin:, :1]
    across, along = view.right[begin:] * depth - np.float32(x), depth - np.float32(z)  # m from below the solid
    tone = np.float32(rng.uniform(0.38, 0.55)) + np.array([0.05, 0.02, -0.03], np.float32)
    floor = tone * (1 + _cloud(size, 12, rng)[begin:] * np.float32(0.10))
    way = WAYS[scene.factors.direction]
    behind = -(across * way[0] + along * way[1])
    beside = across * way[1] - along * way[0]
    length = np.float32(TRACED * scene.velocity + scene.radius)
    row, column = np.square(depth) / np.float32(CAMERA * FOCAL * size), depth / np.float32(FOCAL * size)
    pixel = abs(way[0]) * row + abs(way[1]) * column  # m of the floor, across the trace
    traced = (abs(beside) < np.maximum(TRACE_WIDTH, pixel / 2)) & (behind > 0) & (behind < length)
    floor[traced] = TRACE_TINT
    # What is cast by a ball of this size, far enough for all of the solids.
    slope = light[[0, 2]] / light[1] * np.float32(scene.radius)
    away = np.square(across + slope[0]) + np.square(along + slope[1])
    shade = 1 - np.float32(SHADOW) * np.exp(-away / np.float32(scene.radius**2))
    picture[begin:] = floor * shade[..., None]


def _light_solid(picture: Floats, scene: Scene, view: View, light: Floats) -> None:
    """Draw the solid: light from everywhere, from one side, and its reflection (Phong 1975)."""
    normal = view.normal[:, view.solid]
    facing = (light @ normal).clip(0)
    toward = -np.stack([view.right[view.solid], view.up[view.solid], np.ones(normal.shape[1], np.float32)])
    toward /= np.linalg.norm(toward, axis=0)
    reflected = 2 * facing * normal - light[:, None]
    shine = (reflected * toward).sum(0).clip(0) ** 12 * (facing > 0) * np.float32(SHINE)
    body = AMBIENT * (0.75 + 0.25 * normal[1]) + (1 - AMBIENT) * facing
    picture[view.solid] = np.array(COLOURS[scene.factors.colour], np.float32) * body[:, None] + shine[:, None]


def _cloud(size: int, cells: int, rng: np.random.Generator) -> Floats:
    """Return smooth noise [size, size, 1] of so many cells."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))[..., None]
