"""Images, and maps of depth and of heat: the modalities, encoders trained from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def image() -> Modality:
    """Pictures: PNG, JPEG, WebP and whatever else Pillow opens, from paths, bytes, arrays or Pillow images."""
    from mmssl_image.modality import IMAGE

    return IMAGE


def depth() -> Modality:
    """Maps of depth in metres [H, W]: 16-bit PNG and TIFF in millimetres, TIFF, .npy and arrays of floats in metres."""
    from mmssl_image.maps import DEPTH

    return DEPTH


def thermal() -> Modality:
    """Maps of heat in any unit [H, W]: PNG, TIFF, JPEG of one channel, .npy, arrays; NaN is unknown."""
    from mmssl_image.maps import THERMAL

    return THERMAL


def small_conv(
    *,
    size: Annotated[int, Ge(1)] = 64,
    channels: Literal[1, 3] = 3,
    stem: Literal[2, 4] = 2,
    width: Annotated[int, Ge(1)] = 32,
    depth: Annotated[int, Ge(1)] = 1,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """A small residual network for images of size x size pixels, to train from scratch; stem 4 is the faster one."""
    from mmssl_image.conv import ConvEncoder

    return ConvEncoder(size=size, channels=channels, stem=stem, width=width, depth=depth, augment=augment, flip=flip)


def small_vit(
    *,
    size: Annotated[int, Ge(1)] = 64,
    channels: Literal[1, 3] = 3,
    patch: Annotated[int, Ge(1)] = 8,
    width: Annotated[int, Ge(1)] = 192,
    depth: Annotated[int, Ge(1)] = 6,
    heads: Annotated[int, Ge(1)] = 3,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """A small vision transformer for images of size x size pixels, to train from scratch."""
    from mmssl_image.vit import VisionTransformer

    return VisionTransformer(
        size=size, channels=channels, patch=patch, width=width, depth=depth, heads=heads, augment=augment, flip=flip
    )


def depth_conv(
    *,
    size: Annotated[int, Ge(8)] = 64,
    stem: Literal[2, 4] = 2,
    width: Annotated[int, Ge(1)] = 32,
    depth: Annotated[int, Ge(1)] = 1,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """The network of small-conv on the logarithm of depth and where that is known, to train; F is 4 * width."""
    from mmssl_image.map_conv import MapEncoder

    return MapEncoder(modality="depth", size=size, stem=stem, width=width, depth=depth, augment=augment, flip=flip)


def thermal_conv(
    *,
    size: Annotated[int, Ge(8)] = 64,
    stem: Literal[2, 4] = 2,
    width: Annotated[int, Ge(1)] = 32,
    depth: Annotated[int, Ge(1)] = 1,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """The network of small-conv on a map of heat and where it is known, to train; F is 4 * width."""
    from mmssl_image.map_conv import MapEncoder

    return MapEncoder(modality="thermal", size=size, stem=stem, width=width, depth=depth, augment=augment, flip=flip)


@hookimpl
def register_modalities(register: Register) -> None:
    register("image", image)
    register("depth", depth)
    register("thermal", thermal)


@hookimpl
def register_encoders(register: Register) -> None:
    register("small-conv", small_conv, modalities=("image",))
    register("small-vit", small_vit, modalities=("image",))
    register("depth-conv", depth_conv, modalities=("depth",))
    register("thermal-conv", thermal_conv, modalities=("thermal",))
