"""From a window of a video file to pictures and sound, in one pass."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mmssl_video.container import MAX_PIXELS, Media, MediaError, opened, origin, pictures_of, sound_of

MAX_BYTES = 1 << 29  # of the pictures of one window
PREROLL = 0.2  # seconds before a window at which decoding begins: sound needs the packet before
HELD = 1.0  # seconds that the last picture may stand where its own duration does not tell
JITTER = 0.03  # seconds by which the times of sound may be off: some files round them

Pictures = NDArray[np.uint8]  # [T, H, W, 3]


class Window(NamedTuple):
    """What is wanted of a file; times are seconds from its beginning.

    Attributes:
        times: at which pictures are taken, ascending: each is the one seen at that time.
        size: pixels of the shorter side of pictures; None leaves them.
        sound: from when to when.
    """

    times: Sequence[float] = ()
    size: int | None = None
    sound: tuple[float, float] | None = None


class Decoded(NamedTuple):
    """Pictures [T, H, W, 3] and sound (a WAV file), or why there is none."""

    pictures: Pictures | MediaError | None
    sound: bytes | MediaError | None


def decode(media: Media, window: Window) -> Decoded:
    """Read a window of a file, pictures and sound in one pass."""
    first = min([*window.times[:1], *(window.sound or ())[:1]])
    with opened(media) as container:
        try:
            return _decode(container, window, max(0.0, first - PREROLL))
        except _TooLate:
            pass
    with opened(media) as container:  # one that can't seek is read from its beginning
        return _decode(container, window, 0.0)


def all_pictures(media: Media) -> Pictures:
    """Return all pictures of a file; raise MediaError if they are more than MAX_BYTES."""
    with opened(media) as container:
        stream, scaler = pictures_of(container), Scaler(None)
        found: list[Pictures] = []
        for frame in container.decode(stream):
            found.append(scaler(frame))
            if found[0].nbytes * len(found) > MAX_BYTES:
                raise MediaError(
                    f"its pictures are more than {MAX_BYTES >> 20} MB: take windows of it by the source `video`"
                )
        if not found:
            raise MediaError("none of its pictures can be decoded")
        return np.stack(found)


class Scaler:
    """Turns frames into arrays [H, W, 3], upright, with square pixels, all of the size of the first."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._target: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()  # a frame's own would be set up anew for each

    def __call__(self, frame: Any) -> Pictures:
        if self._target is None:
            ratio = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
            self._target = _target(frame.width, frame.height, float(ratio or 1), self._size)
        width, height = self._target
        pixels: Any = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        upright: Pictures = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        return upright


def _target(width: int, height: int, ratio: float, size: int | None) -> tuple[int, int]:
    """Return the width and height of pictures whose pixels are so many times as wide as high."""
    wide = width * (ratio if 0.1 < ratio < 10 else 1.0)
    scale = 1.0 if size is None else size / min(wide, height)
    return max(1, round(wide * scale)), max(1, round(height * scale))


class _TooLate(Exception):
    """Seeking led behind the beginning of the window."""


def _decode(container: Any, window: Window, start: float) -> Decoded:
    begin = origin(container)
    taker = _Taker(window.times, window.size) if window.times else None
    mixer = _Mixer(*window.sound) if window.sound else None
    streams = [pictures_of(container)] if taker else []
    heard = sound_of(container) if mixer else None
    if mixer and heard is None:
        mixer.error = MediaError("it has no sound that can be decoded")
    elif heard is not None:
        heard.codec_context.thread_count = 1
        streams.append(heard)
    if start > 0 and streams:
        try:
            container.seek(int((start + begin) * av.time_base))
        except av.FFmpegError as error:
            raise _TooLate from error
    for packet in container.demux(streams):
        receiver = taker if packet.stream.type == "video" else mixer
        assert receiver is not None, "only streams that are wanted are read"
        if receiver.done:
            if (taker is None or taker.done) and (mixer is None or mixer.done):
                break
            continue
        try:
            for frame in packet.decode():
                time = None if frame.pts is None else float(frame.pts * frame.time_base) - begin
                if start > 0 and not receiver.begun and (time is None or time > start + PREROLL):
                    raise _TooLate
                receiver.take(frame, time)
        except MediaError as error:
            receiver.error, receiver.done = error, True
        except av.InvalidDataError as error:
            # A damaged packet costs what it holds: if that is wanted, pictures or sound will be missing at the end.
            receiver.hurt(error)
    return Decoded(_result(taker), _result(mixer))


def _result(receiver: Any) -> Any:
    try:
        return None if receiver is None else receiver.result()
    except MediaError as error:
        return error


class _Taker:
    """Keeps the pictures seen at these times."""

    def __init__(self, times: Sequence[float], size: int | None) -> None:
        self._times, self._scaler = times, Scaler(size)
        self._found: list[Pictures] = []
        self._last: Any = None
        self._since = self._until = -np.inf
        self._why = ""
        self.error: MediaError | None = None
        self.begun = self.done = False

    def take(self, frame: Any, time: float | None) -> None:
        if not self.begun and time is not None and time > self._times[0] + HELD:
            raise MediaError(f"its pictures begin at {time:.3f} s, that at {self._times[0]:.3f} s is missing")
        self.begun = True
        if frame.width * frame.height > MAX_PIXELS:
            raise MediaError(f"a picture is {frame.width} x {frame.height}; the limit is {MAX_PIXELS} pixels")
        if time is None:
            time = self._until
        if time >= self._since:  # a clock that jumps back shows nothing new
            self._emit(before=time)
            self._last, self._since = frame, time
            length = float((frame.duration or 0) * frame.time_base)
            self._until = time + length

    def hurt(self, error: Exception) -> None:
        self._why = self._why or f" ({error})"

    def result(self) -> Pictures:
        if self.error:
            raise self.error
        self._emit(before=max(self._until, self._since + HELD))
        if len(self._found) < len(self._times):
            wanted = self._times[len(self._found)]
            end = f"end at {self._since:.3f} s" if self._last is not None else "can't be decoded"
            raise MediaError(f"its pictures {end}, that at {wanted:.3f} s is missing{self._why}")
        return np.stack(self._found)

    def _emit(self, before: float) -> None:
        """Take the last picture for all the times before the next one."""
        picture: Pictures | None = None
        while self._last is not None and len(self._found) < len(self._times):
            if self._times[len(self._found)] >= before:
                break
            if picture is None:
                picture = self._scaler(self._last)
                if picture.nbytes * len(self._times) > MAX_BYTES:
                    raise MediaError(
                        f"{len(self._times)} pictures of {picture.shape[1]} x {picture.shape[0]} are more than "
                        f"{MAX_BYTES >> 20} MB: give a smaller `size`, or fewer `frames`"
                    )
            self._found.append(picture)
        self.done = len(self._found) == len(self._times)


class _Mixer:
    """Lays the sound of a span of time on silence, sample by sample where it belongs."""

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end
        self._rate = 0
        self._next: int | None = None
        self._resampler = av.AudioResampler(format="s16")
        self._heard = 0
        self._wave = np.zeros((0, 1), np.int16)  # [samples, channels]
        self._why = ""
        self.error: MediaError | None = None
        self.begun = self.done = False

    def take(self, frame: Any, time: float | None) -> None:
        self.begun = True
        if not self._rate:
            self._rate = frame.sample_rate
            length = max(1, round((self._end - self._start) * self._rate))
            self._wave = np.zeros((length, len(frame.layout.channels)), np.int16)
        for part in self._resampler.resample(frame):
            samples = part.to_ndarray().reshape(-1, self._wave.shape[1])
            at = self._next
            if time is not None:
                told = round((time - self._start) * self._rate)
                at = told if at is None or abs(told - at) > JITTER * self._rate else at
            elif at is None:
                at = round(-self._start * self._rate)
            time = None
            self._next = at + len(samples)
            first, last = max(0, at), min(len(self._wave), at + len(samples))
            if first < last:
                self._wave[first:last] = samples[first - at : last - at]
                self._heard += last - first
            self.done = at + len(samples) >= len(self._wave)

    def hurt(self, error: Exception) -> None:
        self._why = self._why or f" ({error})"

    def result(self) -> bytes:
        if self.error:
            raise self.error
        if 2 * self._heard < max(1, len(self._wave)):
            raise MediaError(f"less than half of {self._start:.3f}-{self._end:.3f} s has sound{self._why}")
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(self._wave.shape[1])
            out.setsampwidth(2)
            out.setframerate(self._rate)
            out.writeframes(self._wave.astype("<i2").tobytes())
        return file.getvalue()


def differences(media: Media) -> Iterator[tuple[float, float]]:
    """Yield the time of each picture but the first, and how far it is from the one before.

    That is the mean absolute difference of grey thumbnails of 32 x 32 pixels, in [0, 1].
    """
    with opened(media) as container:
        stream, begin = pictures_of(container), origin(container)
        before: NDArray[np.int16] | None = None
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            small = frame.reformat(width=32, height=32, format="gray").to_ndarray().astype(np.int16)
            if before is not None:
                yield float(frame.pts * frame.time_base) - begin, float(np.abs(small - before).mean()) / 255
            before = small
