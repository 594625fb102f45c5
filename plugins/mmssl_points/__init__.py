"""Clouds of points: the modality and a small network that does not depend on their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def points() -> Modality:
    """Clouds of points [N, 3 + C]: x, y, z and C other channels; PLY, .npy, .npz, .xyz, .txt, arrays, lists."""
    from mmssl_points.modality import POINTS

    return POINTS


def points_net(
    *,
    channels: Annotated[int, Ge(0)] = 0,
    num_points: Annotated[int, Ge(1)] = 512,
    width: Annotated[int, Ge(1)] = 64,
    depth: Annotated[int, Ge(1)] = 3,
    up: Literal["x", "y", "z"] = "z",
    augment: bool = True,
    normals: bool = False,
) -> Encoder:
    """A small network after PointNet, whose layers see each point and the maximum of all, to train; F is 2 * width.

    Clouds are centred and scaled to the unit sphere: where they are and how large is not seen.

    Args:
        channels: of each point beyond x, y and z, such as 3 of a colour; the first so many in the order of the file,
            which may have more that are not used.
        num_points: so many are taken at random, without augmentation always the same; clouds may have fewer.
        width: of the layers.
        depth: number of layers.
        up: axis that clouds are turned about.
        augment: in training turn, scale and jitter clouds and leave points out.
        normals: the first three channels are a direction, which is turned with the cloud; others stay as they are.
    """
    from mmssl_points.net import PointsNet

    return PointsNet(
        channels=channels, num_points=num_points, width=width, depth=depth, up=up, augment=augment, normals=normals
    )


@hookimpl
def register_modalities(register: Register) -> None:
    register("points", points)


@hookimpl
def register_encoders(register: Register) -> None:
    register("points-net", points_net, modalities=("points",))
