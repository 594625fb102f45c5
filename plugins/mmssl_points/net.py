"""A small network on clouds of points that does not depend on their order, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmssl_points.modality import LARGEST, Cloud, refuse_transposed
from multimodal_ssl import Encoder, InputError, Inputs

SCALE, JITTER = 0.2, 0.01  # at most, and standard deviation, of a cloud of radius 1
DROP = 0.3  # at most this share of the points is left out


class PointsNet(Encoder):
    """PointNet (Qi et al. 2017) with residual layers that see the maximum of all points, too; maximum and mean at last.

    Args:
        channels: C, of each point beyond x, y and z.
        num_points: so many are taken of a cloud, at random; without an rng by a fixed seed from the points in the order
            of their coordinates, so that the order in the file does not matter.
        width: of the layers; F is 2 * width.
        depth: number of layers.
        up: axis that clouds are turned about.
        augment: if there is an rng, turn, scale and jitter clouds and leave points out.
        normals: the first three other channels are a direction, which is turned with the cloud and not normalised.
    """

    modality = "points"
    adapt_to = 2000  # clouds of many points each
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        channels: int,
        num_points: int,
        width: int,
        depth: int,
        up: Literal["x", "y", "z"],
        augment: bool,
        normals: bool,
    ) -> None:
        super().__init__()
        if normals and channels < 3:
            raise InputError(
                f"points-net: normals are the first three of the channels, but channels is {channels}: set it to 3 or "
                "more, or leave normals out"
            )
        self.channels, self.num_points, self.augment, self.normals = channels, num_points, augment, normals
        self.axes = [axis for axis in range(3) if axis != "xyz".index(up)]  # of the plane that clouds are turned in
        self.width = 2 * width
        self.register_buffer("mean", torch.zeros(3 + channels))
        self.register_buffer("std", torch.ones(3 + channels))
        self.stem = nn.Linear(3 + channels, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def by_depth(self) -> Sequence[nn.Module]:
        *before, last = self.blocks
        return [*before, nn.ModuleList([last, self.norm])]

    def adapt(self, items: Iterable[Cloud]) -> None:
        """Learn mean and standard deviation of the channels beyond x, y and z; clouds that do not fit are skipped."""
        count, total, squares = 0, np.zeros(self.channels), np.zeros(self.channels)
        pivot = np.zeros(self.channels)  # near the mean, else squares of large numbers swallow a small variance
        for item in items:
            try:
                others = self._checked(item)[:, 3:].astype(np.float64)
            except ValueError:  # training counts it as unreadable
                continue
            pivot = pivot if count else others.mean(0)
            others -= pivot
            count, total, squares = count + len(others), total + others.sum(0), squares + np.square(others).sum(0)
        if count:
            mean = pivot + total / count
            variance = squares / count - np.square(total / count)
            std = np.sqrt(np.where(variance > 1e-13 * np.square(mean), variance, 1))
            if self.normals:
                mean[:3], std[:3] = 0, 1
            self.mean[3:], self.std[3:] = torch.from_numpy(mean), torch.from_numpy(std)

    def prepare(self, item: Cloud, rng: np.random.Generator | None = None) -> Inputs:
        """Return ``points`` [num_points, 3 + C], within the unit sphere, and which of them there are [num_points]."""
        cloud = self._checked(item)
        augment = rng is not None and self.augment
        if rng is None or not augment:
            cloud = cloud[np.lexsort(cloud.T)]
            rng = np.random.default_rng(0)
        count = min(len(cloud), self.num_points)
        if augment:
            count = max(1, round(count * (1 - rng.uniform(0, DROP))))
        cloud = cloud[rng.permutation(len(cloud))[:count]]
        place = cloud[:, :3].astype(np.float64)  # float32 has no room for details of what is far from 0
        place -= place[0]
        place -= place.mean(0)
        place /= max(float(np.linalg.norm(place, axis=1).max()), 1e-9)
        points, mask = np.zeros((self.num_points, 3 + self.channels), np.float32), np.zeros(self.num_points, np.bool_)
        points[:count, :3], points[:count, 3:], mask[:count] = place, cloud[:, 3:], True
        if augment:
            self._disturb(points[:count], rng)
        return {"points": torch.from_numpy(points), "mask": torch.from_numpy(mask)}

    def forward(self, inputs: Inputs) -> Tensor:
        mask = inputs["mask"].unsqueeze(-1)
        x = self.stem((inputs["points"] - self.mean) / self.std)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x).float()
        mean = (x * mask).sum(1) / mask.sum(1)
        return torch.cat([mean, highest(x, mask).squeeze(1)], dim=1)

    def _disturb(self, points: Cloud, rng: np.random.Generator) -> None:
        """Turn points [N, 3 + C], with their normals, and scale and jitter their places."""
        angle, size = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-SCALE, SCALE))
        turn = np.eye(3)
        turn[np.ix_(self.axes, self.axes)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        points[:, :3] = size * points[:, :3] @ turn.T + JITTER * rng.standard_normal((len(points), 3))
        if self.normals:
            points[:, 3:6] = points[:, 3:6] @ turn.T

    def _checked(self, item: Cloud) -> Cloud:
        """Return the channels that are used of the points where all of them are known."""
        if item.ndim != 2:
            raise ValueError(f"this encoder takes points [N, 3 + C], not {list(item.shape)}")
        refuse_transposed(item)
        if item.shape[1] < 3 + self.channels:
            raise ValueError(
                f"this encoder takes points of {self.channels} channels beyond x, y, z, not {item.shape[1] - 3}"
            )
        used = item[:, : 3 + self.channels]
        known = (np.abs(used) < LARGEST).all(1)
        if not known.any():
            raise ValueError(
                f"at none of the {len(used):,} points are x, y, z and the {self.channels} channels that this encoder "
                "uses all finite"
            )
        return used if known.all() else used[known]


class Block(nn.Module):
    """A hidden layer for each point beside a shortcut; it sees the point and the maximum of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own, self.shared = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Change points x [B, N, F] where mask [B, N, 1]."""
        y = self.norm(x)
        return x + self.out(F.gelu(self.own(y) + self.shared(highest(y, mask))))


def highest(x: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum of x [B, N, F] over points where mask [B, N, 1], as [B, 1, F]."""
    return x.masked_fill(~mask, float("-inf")).amax(1, keepdim=True)
