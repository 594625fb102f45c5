"""What one request may cost, and the look at the head of an upload that keeps small files from becoming large ones."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmssl_server.refusals import Refusal

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # no format whose reader runs another program, such as EPS


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused, and how requests are gathered.

    Attributes:
        body: bytes of a request.
        pixels: of a picture, decoded.
        numbers: of a series or sound, decoded.
        sound: seconds.
        text: bytes of a text that is uploaded.
        filter: seconds.
        k: answers to one search.
        terms: parts of one search.
        files: uploads of one request, and items that it adds.
        queue: requests that are worked at or wait; more are told to come again.
        timeout: seconds from a request's first byte to its answer.
        batch: requests that are answered together.
        wait: seconds that a batch waits for requests that are on their way.
    """

    body: int = 16 * 2**20
    pixels: int = 50_000_000
    numbers: int = 50_000_000
    sound: float = 600.0
    text: int = 100_000
    filter: float = 2.0
    k: int = 100
    terms: int = 16
    files: int = 256
    queue: int = 128
    timeout: float = 30.0
    batch: int = 32
    wait: float = 0.003


def check_upload(kind: str, data: bytes, limits: Limits) -> None:
    """Raise Refusal if an upload of this modality would decode to more than is allowed, or is of no format of it.

    Only the head is read. What a plugin of somebody else decodes is limited by the size of the body alone.
    """
    if look := LOOKS.get(kind):
        look(data, limits)


def _look_at_picture(data: bytes, limits: Limits) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=PICTURES) as picture:
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise _too_large("a picture of far", limits.pixels, "pixels") from error
    except Exception as error:
        raise Refusal(422, f"these {len(data):,} bytes are no picture: expected {', '.join(PICTURES)}") from error
    if width * height > limits.pixels:
        raise _too_large(f"{width:,} x {height:,} pixels are", limits.pixels, "pixels")


def _look_at_sound(data: bytes, limits: Limits) -> None:
    import soundfile

    try:
        about = soundfile.info(io.BytesIO(data))
    except Exception as error:
        raise Refusal(422, f"these {len(data):,} bytes are no sound: expected WAV, FLAC, OGG or MP3") from error
    seconds = about.frames / max(about.samplerate, 1)
    if seconds > limits.sound:
        raise _too_large(f"{seconds:,.0f} s are", limits.sound, "seconds of sound")
    if about.frames * about.channels > limits.numbers:
        raise _too_large(f"{about.channels} channels of {about.frames:,} are", limits.numbers, "samples")


def _look_at_series(data: bytes, limits: Limits) -> None:
    from numpy.lib import format as npy

    stream: Any = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        claimed = math.prod(shape) * dtype.itemsize
    except Exception as error:
        raise Refusal(422, f"these {len(data):,} bytes are no series: expected a .npy file of numbers") from error
    if math.prod(shape) > limits.numbers:
        raise _too_large(f"{math.prod(shape):,} numbers are", limits.numbers, "numbers")
    if claimed > (there := len(data) - stream.tell()):
        raise Refusal(422, f"the series is cut off: its head tells of {claimed:,} bytes, there are {there:,}")


def _look_at_text(data: bytes, limits: Limits) -> None:
    if len(data) > limits.text:
        raise _too_large(f"{len(data):,} bytes are", limits.text, "bytes of text")


def _too_large(what: str, most: float, unit: str) -> Refusal:
    return Refusal(413, f"{what} too many: at most {most:,.0f} {unit} are read")


LOOKS: dict[str, Callable[[bytes, Limits], None]] = {
    "image": _look_at_picture,
    "audio": _look_at_sound,
    "series": _look_at_series,
    "text": _look_at_text,
}
