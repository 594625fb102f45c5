"""Video: the modality, windows of video files as a pairing source, a small encoder, and image encoders on frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from multimodal_ssl import AnyEncoder, AnySource, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality, PairingSource
    from multimodal_ssl.hookspecs import Register


def video() -> Modality:
    """Moving pictures [T, H, W, 3]: MP4, MKV, WebM, AVI, MOV and the like, from paths, bytes or arrays."""
    from mmssl_video.modality import VIDEO

    return VIDEO


def open_video(
    *,
    source: AnySource,
    item: str = "video",
    length: Annotated[float, Ge(0.05), Le(600)] | None = None,
    stride: Annotated[float, Ge(0.01)] | None = None,
    scenes: Annotated[float, Gt(0), Le(1)] | None = None,
    clip: str | None = "clip",
    frames: Annotated[int, Ge(1), Le(1024)] = 16,
    size: Annotated[int, Ge(8), Le(4320)] | None = None,
    frame: str | None = None,
    sound: str | None = None,
    subtitles: str | None = None,
    subtitles_from: str | None = None,
    offset: Annotated[float, Ge(-60), Le(60)] = 0.0,
    group: Literal["file", "none"] = "file",
    keep: Path | None = None,
) -> PairingSource:
    """The video files of another source, cut into windows: pictures, sound and words of the same time.

    Every other item of a file is kept with each of its windows. The key is KEY@START-END, in seconds. To open it reads
    the header of each file; those that can't be used are told of and left out. Pictures and sound are decoded, in one
    pass, only if they are used. Sound is silent where the file has none; where that is more than half of a window, it
    has no sound.

    Args:
        source: the source whose items are video files, such as {name: folder, path: films, items: {video: .mp4}}.
        item: name of the items that are video files.
        length: seconds of a window. A file that is shorter is one window; what is left at its end is not used. None:
            the whole file, which may last ten minutes at most.
        stride: seconds from the beginning of a window to that of the next; the length, if not given.
        scenes: cut where a picture is this far from the one before, and again at `length`: the mean absolute difference
            of grey thumbnails, 0 to 1; a cut between unlike scenes is often above 0.1. To find the cuts, every file is
            decoded once when the source is opened.
        clip: name of the items that the pictures become (modality video); null for none.
        frames: pictures of a clip, evenly from its time; its first is seen half a step after its beginning.
        size: pixels of the shorter side of pictures; as they are, if not given.
        frame: name of the items that the picture in the middle becomes (modality image).
        sound: name of the items that the first stream of sound becomes (modality audio).
        subtitles: name of the items that what is said becomes (modality text): the cues of which half lies in a window,
            or that fill half of it.
        subtitles_from: name of the items that are SRT or WebVTT files; if not given, the first stream of subtitles
            within the video file.
        offset: seconds that the sound is taken later than the pictures; windows are where there are both.
        group: "file" makes the windows of a file one group (that of its sample, if it has one): they show the same
            place and voice, and those that overlap are nearly the same, so they would be false negatives. "none" tells
            the windows of a file from each other, as is wanted to learn which sound is in step.
        keep: a folder for windows that were decoded: each is decoded once, and read from there at every other visit and
            by every other run. A window takes frames x height x width x 3 bytes, and its sound.
    """
    from mmssl_video.source import open_windows
    from mmssl_video.windows import Recipe

    recipe = Recipe(
        item=item, length=length, stride=stride, scenes=scenes, clip=clip, frames=frames, size=size, frame=frame,
        sound=sound, subtitles=subtitles, subtitles_from=subtitles_from, offset=offset, by_file=group == "file",
        keep=keep and keep.expanduser(),
    )  # fmt: skip
    return open_windows(source, recipe)


def small_video_conv(
    *,
    frames: Annotated[int, Ge(1)] = 16,
    size: Annotated[int, Ge(8)] = 48,
    channels: Literal[1, 3] = 3,
    width: int = 32,
    depth: Annotated[int, Ge(1)] = 1,
    augment: bool = True,
    flip: bool = False,
) -> Encoder:
    """A small residual network of convolutions in space and in time, to train from scratch; F is 8 * width."""
    from mmssl_video.conv import VideoEncoder

    return VideoEncoder(
        frames=frames, size=size, channels=channels, width=width, depth=depth, augment=augment, flip=flip
    )


def frames_encoder(  # not `frames`: the import of the module of that name would take its place in this package
    *,
    image: AnyEncoder,
    frames: Annotated[int, Ge(1)] = 8,
    pooling: Literal["mean", "transformer"] = "mean",
    depth: Annotated[int, Ge(1)] = 2,
    heads: Annotated[int, Ge(1)] = 4,
) -> Encoder:
    """Any image encoder on pictures of a video, all of them augmented alike; F is that of the image encoder.

    Its layers, for tuning by depth, are those of the image encoder (all of it as one, if it tells none), and then the
    transformer as one.

    Args:
        image: the image encoder, such as {name: small-conv, size: 48}.
        frames: pictures that are taken from a video, evenly.
        pooling: what becomes of their features: their `mean`, which does not see the order of time, or with what a
            `transformer` over them adds, which begins at 0.
        depth: blocks of that transformer.
        heads: of its attention; they divide F.
    """
    from mmssl_video.frames import FramesEncoder

    return FramesEncoder(image=image, frames=frames, pooling=pooling, depth=depth, heads=heads)


@hookimpl
def register_modalities(register: Register) -> None:
    register("video", video)


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("video", open_video, modalities=("video", "image", "audio", "text"))


@hookimpl
def register_encoders(register: Register) -> None:
    register("frames", frames_encoder, modalities=("video",))
    register("small-video-conv", small_video_conv, modalities=("video",))
