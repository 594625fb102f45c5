"""What a camera can see of a scene before any light: how far each pixel is, and which way its surface looks.

Axes: x to the right, y up, z along the line of sight. The camera is level, CAMERA metres above the floor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmssl_scenes.scene import Scene

Floats: TypeAlias = NDArray[np.float32]
Distances: TypeAlias = Callable[[Floats, Floats, Floats], Floats]

CAMERA = 0.9  # m above the floor
FOCAL = 0.9  # of the width of the picture
WALL = 7.0  # m
STEPS = 16
REACH = 1.4  # radii: no solid is larger
CLOSE = 0.01  # radii: what a ray comes as close to, it hits


def _sphere(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.sqrt(x * x + y * y + z * z) - 1


def _cube(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) - np.float32(0.8)


def _cylinder(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.maximum(np.sqrt(x * x + z * z) - np.float32(0.75), abs(y) - np.float32(0.95))


def _cone(x: Floats, y: Floats, z: Floats) -> Floats:
    side = np.float32(0.914) * (np.sqrt(x * x + z * z) - np.float32(0.89)) + np.float32(0.407) * (y + 1)
    return np.maximum(side, -1 - y)


def _ring(x: Floats, y: Floats, z: Floats) -> Floats:
    around = np.sqrt(x * x + y * y) - np.float32(0.7)
    return np.sqrt(around * around + z * z) - np.float32(0.3)


def _diamond(x: Floats, y: Floats, z: Floats) -> Floats:
    return (abs(x) + abs(y) + abs(z) - np.float32(1.15)) * np.float32(0.57735)


SOLIDS: Mapping[str, tuple[Distances, float]] = {
    "sphere": (_sphere, 1.0),
    "cube": (_cube, 0.8),
    "cylinder": (_cylinder, 0.95),
    "cone": (_cone, 1.0),
    "ring": (_ring, 1.0),
    "diamond": (_diamond, 1.15),
}
"""Shape -> a bound of the distance from it and how high its middle lies above the floor, in radii."""


class View(NamedTuple):
    """What each pixel [H, W] sees; rows go down, columns to the right.

    Attributes:
        solid: whether it is the solid.
        depth: z of what it sees, in m.
        normal: [3, H, W] of the solid's surface, 0 elsewhere.
        right, up: x and y of its ray at z = 1.
    """

    solid: NDArray[np.bool_]
    depth: Floats
    normal: Floats
    right: Floats
    up: Floats


def middle(scene: Scene) -> tuple[float, float, float]:
    """Return x, y and z of the middle of the solid."""
    return scene.sideways, SOLIDS[scene.factors.shape][1] * scene.radius - CAMERA, scene.distance


@functools.lru_cache(maxsize=4)  # the cameras of one sample share it
def trace(scene: Scene, size: int) -> View:
    """Cast a ray through each pixel of size x size: at the solid, else at the floor, else at the wall."""
    rays = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) / np.float32(FOCAL * size)
    right, up = np.broadcast_to(rays, (size, size)), np.broadcast_to(-rays[:, None], (size, size))
    depth = np.minimum(CAMERA / np.maximum(-up, 1e-6), WALL).astype(np.float32)
    solid = np.zeros((size, size), bool)
    normal = np.zeros((3, size, size), np.float32)
    box = _box(scene, rays)
    z, facing = _march(scene, right[box].ravel(), up[box].ravel())
    shape = solid[box].shape
    hit = np.isfinite(z).reshape(shape)
    solid[box] = hit
    depth[box][hit] = z.reshape(shape)[hit]
    normal[(slice(None), *box)] = facing.reshape(3, *shape) * hit
    return View(solid, depth, normal, right, up)


def _box(scene: Scene, rays: Floats) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels that can see the solid."""
    x, y, z = middle(scene)
    around, front = REACH * scene.radius, z - REACH * scene.radius
    bounds = [
        (min(low / front, low / z), max(high / front, high / z))
        for low, high in ((-y - around, -y + around), (x - around, x + around))
    ]
    rows, columns = (slice(*np.searchsorted(rays, bound).tolist()) for bound in bounds)
    return rows, columns


def _march(scene: Scene, right: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return z [n] where rays meet the solid, infinite if they don't, and its normals [3, n] (Hart 1996).

    Each step is as long as there is certainly nothing in the way.
    """
    distance = SOLIDS[scene.factors.shape][0]
    x, y, z = (np.float32(one / scene.radius) for one in middle(scene))
    sine, cosine = np.float32(np.sin(scene.yaw)), np.float32(np.cos(scene.yaw))
    # In the frame of the solid a ray is at o + t d, where t is z in radii.
    ox, oy, oz = sine * z - cosine * x, -y, -sine * x - cosine * z
    dx, dy, dz = cosine * right - sine, up, sine * right + cosine
    shorter = 1 / np.sqrt(right * right + up * up + 1)
    t = np.full(len(right), z - np.float32(REACH), np.float32)
    for _ in range(STEPS):
        t += distance(ox + t * dx, oy + t * dy, oz + t * dz) * shorter
    at = ox + t * dx, oy + t * dy, oz + t * dz
    here, step = distance(*at), np.float32(1e-3)
    nx, ny, nz = (distance(*(one + step * (axis == k) for k, one in enumerate(at))) - here for axis in range(3))
    normals = np.stack([cosine * nx + sine * nz, ny, cosine * nz - sine * nx])
    normals /= np.maximum(np.sqrt(np.square(normals).sum(0)), 1e-9)
    return np.where((here < CLOSE) & (t < z + REACH), t * np.float32(scene.radius), np.float32(np.inf)), normals
