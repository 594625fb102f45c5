"""The pairing source ``video``: windows of the video files of another source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np

from mmssl_video.container import MediaError
from mmssl_video.keeping import make_folder
from mmssl_video.windows import File, Recipe, cut, has, look
from multimodal_ssl import InputError, Manifest, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import number_groups
from multimodal_ssl.errors import nearest
from multimodal_ssl.skipped import Skipped


def open_windows(source: PairingSource, recipe: Recipe) -> PairingSource:
    """Return the windows of the files of a source, with random access if the source has it."""
    for name in (recipe.item, recipe.subtitles_from):
        if name is not None and name not in source.modalities:
            raise InputError(f"the source within `video` has no {name!r}: {nearest(name, source.modalities)}")
    if not recipe.made:
        raise InputError("nothing is made of the video: name at least one of clip, frame, sound and subtitles")
    if recipe.subtitles_from and not recipe.subtitles:
        raise InputError("subtitles_from is given, but not what its items become: give `subtitles`, such as text")
    if recipe.offset and not recipe.sound:
        raise InputError("offset shifts the sound, but `sound` is not given: give its name, such as audio")
    if recipe.stride and recipe.length is None:
        raise InputError("stride is given, but the window is the whole file or scene: give `length` too")
    modalities = {
        name: kind for name, kind in source.modalities.items() if name not in (recipe.item, recipe.subtitles_from)
    }
    names = [one for one in (recipe.clip, recipe.frame, recipe.sound, recipe.subtitles) if one]
    for place, name in enumerate(names):
        if name in modalities or name in names[:place]:
            raise InputError(f"{name!r} is given twice: choose another name of items, or leave it out of the source")
    if recipe.keep:
        make_folder(recipe.keep)
    kinds = {**recipe.made, **modalities}
    return VideoWindows(source, recipe, kinds) if isinstance(source, MapSource) else VideoStream(source, recipe, kinds)


@final
class VideoWindows(MapSource):
    """Windows of the video files of a source with random access, see the plugin's `open_video`."""

    def __init__(self, source: MapSource, recipe: Recipe, modalities: Mapping[str, str]) -> None:
        self.modalities, self._source, self._recipe = modalities, source, recipe
        self.skipped = list(source.skipped)
        self._files: dict[int, File] = {}
        groups: list[str] = []
        there = source.manifest().present.T[list(source.modalities).index(recipe.item)]
        for row in np.flatnonzero(there).tolist():
            try:
                sample = source[row]
                self._files[row] = _look(sample, recipe, self.skipped)
            except UnreadableError as error:
                self.skipped.append((error.key, error.reason))
                continue
            groups += [sample.group or sample.key] * len(self._files[row].spans)
        if not self._files:
            why = f", e.g. {': '.join(self.skipped[-1])}" if self.skipped else ""
            raise InputError(f"none of the {int(there.sum())} items in {recipe.item!r} can be used as a video{why}")
        files = self._files.values()
        self._rows = np.repeat(np.array([*self._files]), [len(file.spans) for file in files])
        self._spans = np.concatenate([file.spans for file in files])
        self._group = number_groups(groups) if recipe.by_file else None
        made = [has(file, span, recipe) for file in files for span in file.spans.tolist()]
        self._made = np.array([[*one.values()] for one in made], bool)  # [N, number of items that are made]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row = int(self._rows[index])
        return cut(self._source[row], self._files[row], self._spans[index].tolist(), self._recipe)

    def manifest(self) -> Manifest:
        under = self._source.manifest().take(self._rows)
        place = {name: place for place, name in enumerate(self._source.modalities)}
        kept = [place[name] for name in self.modalities if name in place]
        present = np.column_stack([self._made, under.present[:, kept]])
        seconds = (self._spans[:, 1] - self._spans[:, 0]).astype(np.float32)
        length = np.zeros(present.shape, np.float32)
        for column, (name, kind) in enumerate(self.modalities.items()):
            if column >= len(self._recipe.made):
                length[:, column] = 0 if under.length is None else under.length[:, place[name]]
            elif kind in ("video", "audio"):
                length[:, column] = seconds * present[:, column]
        return Manifest(present, self._group, length, under.frequency)


@final
class VideoStream(PairingSource):
    """Windows of the video files of a source without random access, one after the other."""

    def __init__(self, source: PairingSource, recipe: Recipe, modalities: Mapping[str, str]) -> None:
        self.modalities, self._source, self._recipe = modalities, source, recipe
        self.num_shards = source.num_shards
        self._own: dict[tuple[str, str], None] = {}  # each once, however often the source is read
        self.skipped = Skipped([("", source.skipped), ("", self._own)])

    def __iter__(self) -> Iterator[Sample]:
        return self._windows(iter(self._source))

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        windows = self._windows(self._source.read(shard, 0))
        for _ in range(start):
            next(windows, None)
        return windows

    def _windows(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            if self._recipe.item not in sample.items:
                continue
            broken: list[tuple[str, str]] = []
            try:
                file = _look(sample, self._recipe, broken)
            except UnreadableError as error:
                self._own[error.key, error.reason] = None
                continue
            self._own.update(dict.fromkeys(broken))
            for span in file.spans.tolist():
                yield cut(sample, file, span, self._recipe)


def _look(sample: Sample, recipe: Recipe, skipped: list[tuple[str, str]]) -> File:
    try:
        file = look(sample.items, recipe)
    except MediaError as error:
        raise UnreadableError(sample.key, str(error)) from error
    skipped += [(f"{sample.key}, subtitles, {where}", why) for where, why in file.broken]
    return file
