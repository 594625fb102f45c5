"""Images: the modality, encoders trained from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def image() -> Modality:
    """Pictures: PNG, JPEG, WebP and whatever else Pillow opens, from paths, bytes, arrays or Pillow images."""
    from mmssl_image.modality import IMAGE

    return IMAGE


def small_conv(
    *,
    size: int = 64,
    channels: int = 3,
    stem: Literal[2, 4] = 2,
    width: int = 32,
    depth: int = 1,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """A small residual network for images of size x size pixels, to train from scratch; stem 4 is the faster one."""
    from mmssl_image.conv import ConvEncoder

    return ConvEncoder(size=size, channels=channels, stem=stem, width=width, depth=depth, augment=augment, flip=flip)


def small_vit(
    *,
    size: int = 64,
    channels: int = 3,
    patch: int = 8,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """A small vision transformer for images of size x size pixels, to train from scratch."""
    from mmssl_image.vit import VisionTransformer

    return VisionTransformer(
        size=size, channels=channels, patch=patch, width=width, depth=depth, heads=heads, augment=augment, flip=flip
    )


@hookimpl
def register_modalities(register: Register) -> None:
    register("image", image)


@hookimpl
def register_encoders(register: Register) -> None:
    register("small-conv", small_conv)
    register("small-vit", small_vit)
