"""ImageBind's towers (Girdhar et al. 2023): images, videos, texts, sounds, depth, heat and motion in one space.

checkpoint is the path of imagebind_huge.pth, whose licence, CC-BY-NC 4.0, forbids commercial use, or of a .pth or
.safetensors file of the same names; None begins with random weights. Each encoder reads and holds its own tower only.
width, depth, heads and output are those of imagebind_huge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder
    from multimodal_ssl.hookspecs import Register


def imagebind_image(
    *, checkpoint: str | None = None, width: int = 1280, depth: int = 32, heads: int = 16, output: int = 1024
) -> Encoder:
    """ImageBind's vision tower for pictures (checkpoint: CC-BY-NC 4.0)."""
    from mmssl_imagebind.image import ImageBindImage
    from mmssl_imagebind.tower import Size

    return ImageBindImage(checkpoint=checkpoint, size=Size(width, depth, heads, output))


def imagebind_video(
    *,
    checkpoint: str | None = None,
    rate: float | None = None,
    width: int = 1280,
    depth: int = 32,
    heads: int = 16,
    output: int = 1024,
) -> Encoder:
    """ImageBind's vision tower for videos, the mean of 5 clips in 3 crops (checkpoint: CC-BY-NC 4.0).

    Args:
        rate: pictures a second of the items; None takes each for one of ten seconds
    """
    from mmssl_imagebind.tower import Size
    from mmssl_imagebind.video import ImageBindVideo

    return ImageBindVideo(checkpoint=checkpoint, size=Size(width, depth, heads, output), rate=rate)


def imagebind_text(
    *, checkpoint: str | None = None, width: int = 1024, depth: int = 24, heads: int = 16, output: int = 1024
) -> Encoder:
    """ImageBind's text tower, with CLIP's tokenizer (checkpoint: CC-BY-NC 4.0)."""
    from mmssl_imagebind.text import ImageBindText
    from mmssl_imagebind.tower import Size

    return ImageBindText(checkpoint=checkpoint, size=Size(width, depth, heads, output))


def imagebind_audio(
    *, checkpoint: str | None = None, width: int = 768, depth: int = 12, heads: int = 12, output: int = 1024
) -> Encoder:
    """ImageBind's audio tower, the mean of 3 clips of 2 seconds (checkpoint: CC-BY-NC 4.0)."""
    from mmssl_imagebind.audio import ImageBindAudio
    from mmssl_imagebind.tower import Size

    return ImageBindAudio(checkpoint=checkpoint, size=Size(width, depth, heads, output))


def imagebind_depth(
    *,
    checkpoint: str | None = None,
    focal: float = 518.86,
    baseline: float = 0.075,
    mean: float = 25.1,
    std: float = 17.7,
    width: int = 384,
    depth: int = 12,
    heads: int = 8,
    output: int = 1024,
) -> Encoder:
    """ImageBind's tower for depth maps in metres, which it sees as disparity (checkpoint: CC-BY-NC 4.0).

    Args:
        focal: focal length of the sensor in pixels of the map; that of a Kinect at 640 x 480
        baseline: between the two eyes of the sensor, in metres
        mean: of disparity in pixels; those of the checkpoint's data are not published
        std: its standard deviation
    """
    from mmssl_imagebind.maps import ImageBindDepth
    from mmssl_imagebind.tower import Size

    size = Size(width, depth, heads, output)
    return ImageBindDepth(checkpoint=checkpoint, size=size, focal=focal, baseline=baseline, mean=mean, std=std)


def imagebind_thermal(
    *,
    checkpoint: str | None = None,
    low: float | None = None,
    high: float | None = None,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    output: int = 1024,
) -> Encoder:
    """ImageBind's tower for thermal maps, which it sees as shades from 0 to 1 (checkpoint: CC-BY-NC 4.0).

    Args:
        low: what becomes 0; None is the least value of each map
        high: what becomes 1; None is the greatest value of each map
    """
    from mmssl_imagebind.maps import ImageBindThermal
    from mmssl_imagebind.tower import Size

    return ImageBindThermal(checkpoint=checkpoint, size=Size(width, depth, heads, output), low=low, high=high)


def imagebind_imu(
    *,
    checkpoint: str | None = None,
    rate: float | None = None,
    width: int = 512,
    depth: int = 6,
    heads: int = 8,
    output: int = 1024,
) -> Encoder:
    """ImageBind's tower for series of acceleration and rotation, 3 channels each (checkpoint: CC-BY-NC 4.0).

    Args:
        rate: steps a second of the items, which are resampled to 400; None leaves them
    """
    from mmssl_imagebind.imu import ImageBindImu
    from mmssl_imagebind.tower import Size

    return ImageBindImu(checkpoint=checkpoint, size=Size(width, depth, heads, output), rate=rate)


@hookimpl
def register_encoders(register: Register) -> None:
    register("imagebind-image", imagebind_image, modalities=("image",))
    register("imagebind-video", imagebind_video, modalities=("video",))
    register("imagebind-text", imagebind_text, modalities=("text",))
    register("imagebind-audio", imagebind_audio, modalities=("audio",))
    register("imagebind-depth", imagebind_depth, modalities=("depth",))
    register("imagebind-thermal", imagebind_thermal, modalities=("thermal",))
    register("imagebind-imu", imagebind_imu, modalities=("series",))
