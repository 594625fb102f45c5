"""Which windows a video file has, and the sample that is made of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmssl_video import captions
from mmssl_video.captions import Cue
from mmssl_video.container import Header, MediaError, read_header
from mmssl_video.decoding import Window, decode, differences
from mmssl_video.keeping import decode_once
from multimodal_ssl import Sample, UnreadableError

MAX_WINDOW = 600.0  # seconds: ten minutes of sound take 100 MB
SLACK = 0.02  # seconds by which a file may be shorter than its last window: headers round


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is made of a video file: the options of the plugin's `open_video`."""

    item: str
    length: float | None
    stride: float | None
    scenes: float | None
    clip: str | None
    frames: int
    size: int | None
    frame: str | None
    sound: str | None
    subtitles: str | None
    subtitles_from: str | None
    offset: float
    by_file: bool
    keep: Path | None

    @property
    def made(self) -> dict[str, str]:
        """Name of the items that are made -> modality; pictures first, since sound is read along with them."""
        named = ((self.clip, "video"), (self.frame, "image"), (self.sound, "audio"), (self.subtitles, "text"))
        return {name: modality for name, modality in named if name}


class File(NamedTuple):
    """What is known of a video file.

    Attributes:
        spans: from when to when each window is, [n, 2], in seconds from the beginning of the file.
        cues: what is said when.
        broken: parts of its subtitles that can't be used, and why.
    """

    header: Header
    spans: NDArray[np.float64]
    cues: Sequence[Cue]
    broken: Sequence[tuple[str, str]]


def look(items: Mapping[str, Any], recipe: Recipe) -> File:
    """Find the windows of a video file; raise MediaError if there can't be any."""
    media = items[recipe.item]
    header = read_header(media)
    start, end = max(0.0, -recipe.offset), header.duration - max(0.0, recipe.offset)
    if end - start < min(SLACK, header.duration):
        raise MediaError(f"it lasts {header.duration:.3f} s, too short for sound that is {recipe.offset:g} s off")
    edges = [start, end]
    if recipe.scenes is not None:
        cuts = [time for time, far in differences(media) if far >= recipe.scenes and start < time < end]
        edges = [start, *cuts, end]
    parts = [_cut(a, b, recipe) for a, b in itertools.pairwise(edges)]
    cues: Sequence[Cue] = ()
    broken: Sequence[tuple[str, str]] = ()
    if recipe.subtitles and recipe.subtitles_from is None:
        cues = captions.read_stream(media)
    elif recipe.subtitles and recipe.subtitles_from and recipe.subtitles_from in items:
        cues, broken = captions.read_file(items[recipe.subtitles_from])
    return File(header, np.concatenate(parts), cues, broken)


def _cut(start: float, end: float, recipe: Recipe) -> NDArray[np.float64]:
    """Return the windows [n, 2] of one scene."""
    length, whole = recipe.length, end - start
    if length is None or whole < length + SLACK:
        if whole > MAX_WINDOW:
            raise MediaError(f"it lasts {whole:.0f} s, but a window {MAX_WINDOW:.0f} s at most: give `length`")
        if length is None or whole < length - SLACK:
            return np.array([[start, end]])
    stride = recipe.stride or length
    begins = start + stride * np.arange(max(0, int((whole - length + SLACK) / stride)) + 1)
    return np.column_stack([begins, begins + length])


def has(file: File, span: Sequence[float], recipe: Recipe) -> dict[str, bool]:
    """Tell which of the items that are made a window has."""
    start, end = span
    found = dict.fromkeys(recipe.made, True)
    if recipe.sound:
        sound = file.header.sound or (0.0, 0.0)
        shared = min(sound[1], end + recipe.offset) - max(sound[0], start + recipe.offset)
        found[recipe.sound] = 2 * shared >= end - start
    if recipe.subtitles:
        found[recipe.subtitles] = bool(captions.spoken(file.cues, start, end))
    return found


def cut(sample: Sample, file: File, span: Sequence[float], recipe: Recipe) -> Sample:
    """Return the sample of one window of a file."""
    start, end = span
    key = f"{sample.key}@{_short(start)}-{_short(end)}"
    names = [name for name, there in has(file, span, recipe).items() if there]
    kept = {name: one for name, one in sample.items.items() if name not in (recipe.item, recipe.subtitles_from)}
    if recipe.subtitles in names:
        kept[str(recipe.subtitles)] = captions.spoken(file.cues, start, end)
    names = [name for name in names if name not in kept]
    return Sample(
        key,
        Items(key, sample.items[recipe.item], (start, end), names, kept, recipe),
        group=(sample.group or sample.key) if recipe.by_file else "",
        weight=sample.weight,
        metadata=sample.metadata,
    )


class Items(Mapping[str, Any]):
    """The items of one window. What the video file holds of them is decoded when the first of it is asked for.

    Pictures and sound come of one pass; if only the sound is asked for, no picture is decoded.
    """

    def __init__(
        self,
        key: str,
        media: Any,
        span: tuple[float, float],
        names: Sequence[str],
        kept: Mapping[str, Any],
        recipe: Recipe,
    ) -> None:
        self._given = (key, media, span, tuple(names), kept, recipe)
        self._names = (*names, *kept)
        self._found: dict[str, Any] = dict(kept)

    def __reduce__(self) -> tuple[type[Items], tuple[Any, ...]]:
        return Items, self._given  # without what was decoded: it would be sent from process to process

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would decode

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found |= self._decode(sound_only=name == self._given[-1].sound)
        found = self._found[name]
        if isinstance(found, MediaError):
            raise UnreadableError(self._given[0], str(found))
        return found

    def _decode(self, *, sound_only: bool) -> dict[str, Any]:
        _, media, (start, end), names, _, recipe = self._given
        clip = {recipe.clip, recipe.frame} & set(names) if not sound_only else set()
        step = (end - start) / recipe.frames
        times = [start + (place + 0.5) * step for place in range(recipe.frames)] if recipe.clip in clip else []
        middle = (start + end) / 2
        if recipe.frame in clip:
            times = sorted([*times, middle])
        sound = (start + recipe.offset, end + recipe.offset) if recipe.sound in names else None
        wanted = [name for name in (recipe.clip, recipe.frame) if name in clip] + ([recipe.sound] if sound else [])
        try:
            window = Window(times, recipe.size, sound)
            pictures, wave = decode_once(media, window, recipe.keep) if recipe.keep else decode(media, window)
        except MediaError as error:
            return dict.fromkeys(map(str, wanted), error)
        found: dict[str, Any] = {}
        if isinstance(pictures, np.ndarray):
            if recipe.frame in clip:
                place = times.index(middle)
                found[str(recipe.frame)] = pictures[place]
                pictures = np.delete(pictures, place, axis=0)
            found[str(recipe.clip)] = pictures
        else:
            found = dict.fromkeys(map(str, clip), pictures)
        return {name: one for name, one in {**found, str(recipe.sound): wave}.items() if name in wanted}


def _short(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
