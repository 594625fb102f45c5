"""The pairing source ``streams``: sensors with clocks and rates of their own give windows of the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import compress
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from mmssl_sources.readings import Place, Reader, Readings, read_readings
from mmssl_sources.resampling import Method, count_missing, resample
from mmssl_sources.stream_options import StreamOptions
from mmssl_sources.times import Kind, Moment, check_zone, duration_text, moment_text, parse_duration, parse_moment
from multimodal_ssl import InputError, Manifest, MapSource, Sample

Ints = NDArray[np.int64]

_POINTS = 1 << 20  # of grids that are looked at together
_MOST = 10**8  # windows


@final
class Stream:
    """One stream on its grid: item(place, start) is [C, T]."""

    def __init__(self, options: StreamOptions, readings: Readings, channels: slice, window: int) -> None:
        self.name, self.readings = options.name, readings
        self.values = readings.values[channels]
        step = options.step or _usual_step(options.name, readings)
        self.steps = round(window / step)  # T
        if self.steps < 1 or abs(window / step - self.steps) > 0.01:
            guessed = "" if options.step else " (the usual time between its readings)"
            raise InputError(
                f"the window of {duration_text(window)} is no multiple of the step of {options.name!r}, "
                f"{duration_text(step)}{guessed}: give streams.{options.name}.step, or another window"
            )
        self.step = Fraction(window, self.steps)
        whole = self.step.denominator == 1
        self.offsets: Ints = (
            np.arange(self.steps, dtype=np.int64) * int(self.step)
            if whole
            else np.rint(np.arange(self.steps) * float(self.step)).astype(np.int64)
        )
        self.method: Method = options.resample
        usual = self.step if options.resample == "linear" else self.step / 2
        self.tolerance = round(usual) if options.tolerance is None else options.tolerance
        self.most = options.max_missing * len(self.values) * self.steps

    def span(self, place: Place) -> tuple[int, int]:
        """Return the first and one past the last reading of a place; a stream without places belongs to all."""
        spans = self.readings.spans
        return spans.get(() if () in spans else place, (0, 0))

    def item(self, place: Place, start: int) -> NDArray[np.float32]:
        """Return the window [C, T] that begins at this time."""
        grid = start + self.offsets
        times, values = self._slice(place, int(grid[0]), int(grid[-1]))
        return resample(times, values, grid, self.method, self.tolerance)

    def windows(self, place: Place, origin: int, window: int, stride: int) -> Ints:
        """Return the numbers k of the windows at origin + k * stride, k >= 0, that a reading may be part of, rising."""
        first, last = self.span(place)
        times = self.readings.times[first:last]
        low = np.maximum(-((window - 1 + self.tolerance + origin - times) // stride), 0)
        high = (times + self.tolerance - origin) // stride
        return _expand(*_merge(low[high >= low], high[high >= low] + 1))

    def missing(self, place: Place, origin: int, stride: int, windows: Ints) -> Ints:
        """Return how many of the C * T values of these windows are missing."""
        size = self.step
        if size.denominator == 1 and stride % int(size) == 0:  # the windows share grid points: each is counted once
            jump = stride // int(size)
            starts, ends = _merge(windows * jump, windows * jump + self.steps)
            upto = np.concatenate([[0], np.cumsum(self._count(place, origin, _expand(starts, ends), int(size)))])
            run = np.searchsorted(starts, windows * jump, "right") - 1
            at = np.concatenate([[0], np.cumsum(ends - starts)])[run] + windows * jump - starts[run]
            return upto[at + self.steps] - upto[at]
        some = max(1, _POINTS // self.steps)
        parts = [windows[at : at + some] for at in range(0, len(windows), some)]
        grids = ((origin + part[:, np.newaxis] * stride + self.offsets).ravel() for part in parts)
        counts = [self._missing(place, grid).reshape(-1, self.steps).sum(1) for grid in grids]
        return np.concatenate(counts) if counts else np.zeros(0, np.int64)

    def _count(self, place: Place, origin: int, points: Ints, step: int) -> Ints:
        parts = [points[at : at + _POINTS] for at in range(0, len(points), _POINTS)]
        return np.concatenate([self._missing(place, origin + part * step) for part in parts] or [points])

    def _missing(self, place: Place, grid: Ints) -> Ints:
        times, values = self._slice(place, int(grid.min()), int(grid.max()))
        return count_missing(times, values, grid, self.method, self.tolerance)

    def _slice(self, place: Place, start: int, end: int) -> tuple[Ints, NDArray[np.float32]]:
        first, last = self.span(place)
        times = self.readings.times[first:last]
        low = first + int(np.searchsorted(times, start - self.tolerance))
        high = first + int(np.searchsorted(times, end + self.tolerance, "right"))
        return self.readings.times[low:high], self.values[:, low:high]


@final
class Streams(MapSource):
    """Windows of the same time of several streams, see the plugin's `open_streams`.

    Attributes:
        skipped: rows and cells that can't be read, and places where no two streams meet.
    """

    def __init__(
        self,
        *,
        streams: Mapping[str, list[str] | Mapping[str, Any]],
        common: Mapping[str, Any],
        window: float | str,
        stride: float | str | None,
        start: Moment | None,
        end: Moment | None,
        group: Literal["time", "place"] | None,
    ) -> None:
        if not streams:
            raise InputError("streams is empty: say which columns are one, e.g. {motor: [current, speed]}")
        zone = common.get("zone")
        since, until = (
            None if given is None else parse_moment(name, given, zone and check_zone("zone", zone))
            for name, given in (("start", start), ("end", end))
        )
        if since is not None and until is not None and since >= until:
            raise InputError(f"start is {start!s} and end is {end!s}: the end must be later")
        options = [StreamOptions.parse(name, given, common, start=since, end=until) for name, given in streams.items()]
        self._window = parse_duration("window", window)
        self._stride = self._window if stride is None else parse_duration("stride", stride)
        if min(self._window, self._stride) <= 0:
            raise InputError(f"window and stride must be more than 0 (given: {window!r} and {stride!r})")
        self.modalities = {one.name: one.modality for one in options}
        self._group, self._by = group, max((one.reader.by for one in options), key=len)
        if wrong := next((one for one in options if 0 < len(one.reader.by) != len(self._by)), None):
            raise InputError(
                f"streams.{wrong.name} tells places apart by {', '.join(wrong.reader.by)}, another stream by "
                f"{', '.join(self._by)}: give as many columns (or none: then its readings belong to every place)"
            )
        self.streams, self._skipped = _open(options, self._window)
        self.skipped = self._skipped
        self._kind = _common_kind(self.streams)
        self._origin = _origin(self.streams) if since is None else since
        last = None if until is None else (until - self._window - self._origin) // self._stride
        spans = [set(stream.readings.spans) - {()} for stream in self.streams]
        self._places = sorted(set.union(*spans)) or [()]
        found = [self._find(place, last) for place in self._places]
        self._place = np.repeat(np.arange(len(found)), [len(numbers) for numbers, _ in found])
        self._numbers = np.concatenate([numbers for numbers, _ in found])  # [N], window k starts at origin + k * stride
        self._missing = np.concatenate([missing for _, missing in found])  # [N, M]
        whole = np.array([stream.steps * len(stream.values) for stream in self.streams])
        self._share = (1 - self._missing / whole).astype(np.float32)
        self._present = (self._missing <= [stream.most for stream in self.streams]) & (self._missing < whole)
        kept = self._present.sum(1) > 0
        self._check(kept)
        self._place, self._numbers = self._place[kept], self._numbers[kept]
        self._present, self._share, self._missing = self._present[kept], self._share[kept], self._missing[kept]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        place, start = self._places[self._place[index]], self._start(int(self._numbers[index]))
        when, where = moment_text(start, self._kind), "/".join(place)
        items = {
            stream.name: stream.item(place, start) for stream in compress(self.streams, self._present[index].tolist())
        }
        group = {"time": when, "place": where, None: ""}[self._group]
        return Sample(
            f"{where}/{when}" if place else when,
            items,
            group=group,
            metadata=dict(zip(self._by, place, strict=False)),
        )

    def manifest(self) -> Manifest:
        """Return what is known; the length of an item is the seconds of it that have values."""
        group = {"time": self._numbers, "place": self._place, None: None}[self._group]
        length = np.where(self._present, self._share * (self._window / 1e9), 0).astype(np.float32)
        return Manifest(self._present, None if group is None else group.astype(np.int64), length)

    def _start(self, number: int) -> int:
        return self._origin + number * self._stride

    def _find(self, place: Place, last: int | None) -> tuple[Ints, Ints]:
        """Return the windows of a place in which there may be anything, and the missing values of each stream."""
        each = [stream.windows(place, self._origin, self._window, self._stride) for stream in self.streams]
        numbers = np.unique(np.concatenate(each))
        if last is not None:
            numbers = numbers[numbers <= last]
        counts = [stream.missing(place, self._origin, self._stride, numbers) for stream in self.streams]
        return numbers, np.stack(counts, 1)

    def _check(self, kept: NDArray[np.bool_]) -> None:
        """Raise InputError if no two streams are ever together, or nothing is left; tell places where that is so."""
        pairs = self._present.sum(1) >= min(2, len(self.streams))
        met = np.bincount(self._place, pairs, minlength=len(self._places))
        for place in np.flatnonzero(met == 0).tolist():
            self._skipped.append(
                ("/".join(self._places[place]) or "all", f"no window of two streams: {self._ranges([place])}")
            )
        if pairs.any():
            return
        least = ", ".join(
            f"{stream.name} {share:.0%}"
            for stream, share in zip(self.streams, 1 - self._share.max(0, initial=0), strict=True)
        )
        raise InputError(
            f"no window of {duration_text(self._window)} holds {'two streams' if len(self.streams) > 1 else 'enough'}: "
            f"{self._ranges(range(len(self._places)))}; the least that a window misses: {least} (see max_missing, "
            "tolerance, step and, if a clock is wrong, offset or zone)"
        )

    def _ranges(self, places: Sequence[int] | range) -> str:
        told = []
        for stream in self.streams:
            spans = [stream.span(self._places[place]) for place in places]
            times = stream.readings.times
            ends = [(times[low], times[high - 1]) for low, high in spans if high > low]
            if ends:
                low, high = min(low for low, _ in ends), max(high for _, high in ends)
                told.append(
                    f"{stream.name} is from {moment_text(int(low), self._kind)} to {moment_text(int(high), self._kind)}"
                )
            else:
                told.append(f"{stream.name} has none")
        return ", ".join(told)


def _open(options: Sequence[StreamOptions], window: int) -> tuple[list[Stream], list[tuple[str, str]]]:
    """Read each table once for all streams that are told in it by the same clock."""
    columns: dict[str, list[str]] = {}
    readers: dict[str, Reader] = {}
    for one in options:
        readers.setdefault(repr(one.reader), one.reader)
        columns.setdefault(repr(one.reader), []).extend(one.columns)
    readings: dict[str, Readings] = {}
    skipped: list[tuple[str, str]] = []
    for name, reader in readers.items():
        readings[name] = read_readings(reader, list(dict.fromkeys(columns[name])))
        skipped += readings[name].skipped
    streams = []
    for one in options:
        known = list(dict.fromkeys(columns[repr(one.reader)]))
        channels = [known.index(column) for column in one.columns]
        streams.append(Stream(one, readings[repr(one.reader)], _as_slice(channels), window))
    return streams, skipped


def _as_slice(channels: list[int]) -> Any:
    """Return a slice where it can be one: that of an array needs no copy."""
    run = channels == list(range(channels[0], channels[0] + len(channels)))
    return slice(channels[0], channels[0] + len(channels)) if run else channels


def _common_kind(streams: Sequence[Stream]) -> Kind:
    kinds = {stream.readings.kind: stream.name for stream in streams}
    if "naive" in kinds and len(kinds) > 1:
        other = next(name for kind, name in kinds.items() if kind != "naive")
        raise InputError(
            f"the times of stream {kinds['naive']!r} name no zone, those of {other!r} are of one (numbers are of UTC): "
            f"give streams.{kinds['naive']}.zone, e.g. Europe/Berlin or UTC"
        )
    return "zoned" if "zoned" in kinds else next(iter(kinds))


def _origin(streams: Sequence[Stream]) -> int:
    """Return the first time of all, rounded down to whole steps, so that windows don't begin at odd times."""
    first = min(int(stream.readings.times[low]) for stream in streams for low, _ in stream.readings.spans.values())
    step = max(stream.step for stream in streams)
    return int(first // step * step)


def _usual_step(name: str, readings: Readings) -> Fraction:
    gaps = [np.diff(readings.times[low:high]) for low, high in readings.spans.values()]
    every = np.concatenate(gaps)
    if not len(every):
        raise InputError(f"stream {name!r} has no two readings of one place: give streams.{name}.step")
    middle = len(every) // 2
    return Fraction(int(np.partition(every, middle)[middle]))


def _merge(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Join ranges [start, end) that touch or overlap, both rising."""
    fresh = np.concatenate([[True], starts[1:] > ends[:-1]])[: len(starts)]
    last = np.concatenate([fresh[1:], [True]])[: len(starts)]
    return starts[fresh], ends[last]


def _expand(starts: Ints, ends: Ints) -> Ints:
    """Return all numbers in these ranges."""
    sizes = ends - starts
    total = int(sizes.sum())
    if total > _MOST:
        raise InputError(f"that would be {total:,} windows or grid points of one place: give a longer stride or step")
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(total)
