"""Video files: how one is opened, and what its header tells of it without decoding."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
from av.stream import Disposition

from multimodal_ssl import LazyItem

MAX_PIXELS = 7680 * 4320  # of one picture: 8K
MAX_DURATION = 24 * 3600.0  # seconds; more is a header that lies, or a stream that never ends

# Playlists (HLS, DASH, concat) are left out: they would make a file open others, or addresses in the network.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,mxf,gif,wav,mp3,flac,aac"


Media: TypeAlias = Path | str | bytes | LazyItem


class MediaError(ValueError):
    """Says why a video file can't be used."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file before decoding; times are seconds from the beginning of the file.

    Attributes:
        duration: where the pictures end.
        sound: where the first stream of sound begins and ends; None if there is none.
    """

    duration: float
    sound: tuple[float, float] | None


def read_lazy(item: Any) -> Any:
    """Return what a lazy item stands for, and any other item as it is; raise MediaError if it can't be had."""
    try:
        return item.read() if isinstance(item, LazyItem) else item
    except (OSError, ValueError) as error:
        raise MediaError(str(error)) from error


@contextmanager
def opened(media: Media) -> Iterator[Any]:
    """Open a file for reading; whatever is wrong with it while it is open becomes a MediaError."""
    file: BinaryIO | None = None
    try:
        media = read_lazy(media)
        if isinstance(media, str | os.PathLike):
            if not os.path.isfile(media):
                raise MediaError(f"there is no file {os.fspath(media)}")
            file = open(media, "rb")  # noqa: SIM115 - closed below, as the others are
        elif isinstance(media, bytes):
            file = io.BytesIO(media)
        else:
            raise MediaError(f"a video is a path or bytes, not a {type(media).__name__}")
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        # Names and titles in messy files are in any encoding.
        with av.open(file, container_options=options, metadata_errors="replace", buffer_size=1 << 18) as container:
            yield container
    except (av.FFmpegError, OSError, EOFError) as error:
        raise MediaError(f"it can't be read as video: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if file is not None:
            file.close()


def pictures_of(container: Any) -> Any:
    """Return the stream of pictures, ready to be decoded in this thread; raise MediaError if it can't be used."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            break
    else:
        cover = "only that of a cover" if container.streams.video else f"it is {container.format.name}"
        raise MediaError(f"it has no moving pictures ({cover})")
    context = stream.codec_context
    if context is None:
        raise MediaError("its pictures are of a codec that is not known here")
    if not context.width * context.height:  # what FFmpeg finds absurd it takes as unknown
        raise MediaError("its header gives its pictures no size, or one that can't be")
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(f"its pictures are {context.width} x {context.height}; the limit is {MAX_PIXELS} pixels")
    context.thread_count = 1  # workers share the cores
    context.options = {"max_pixels": str(MAX_PIXELS)}  # also for what a header does not tell
    return stream


def sound_of(container: Any) -> Any:
    """Return the first stream of sound that can be decoded, or None."""
    return next((one for one in container.streams.audio if one.codec_context is not None), None)


def origin(container: Any) -> float:
    """Return where the clock of a file begins, in its own seconds."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def read_header(media: Media) -> Header:
    """Return what the header of a file tells; without one for its length, where the last packet ends."""
    with opened(media) as container:
        pictures, sound, begin = pictures_of(container), sound_of(container), origin(container)
        span = _span(pictures, begin)
        if span is None and container.duration is not None:
            span = (0.0, container.duration / av.time_base)
        if span is None:  # such as a recording that was cut off
            span = _scan(container, pictures, begin)
        duration = span[1]
        if not 0 < duration <= MAX_DURATION:
            raise MediaError(f"its header tells of {duration:.6g} s, which is not between 0 and {MAX_DURATION:g} s")
        return Header(duration, None if sound is None else _span(sound, begin) or (0.0, duration))


def _span(stream: Any, begin: float) -> tuple[float, float] | None:
    if stream.duration is None:
        return None
    start = float((stream.start_time or 0) * stream.time_base) - begin
    return start, start + float(stream.duration * stream.time_base)


def _scan(container: Any, stream: Any, begin: float) -> tuple[float, float]:
    end = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin)
    return 0.0, end
