"""The readings of a table of sensors: numbers with a time and a place, in order, whatever the order of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmssl_sources import formats
from mmssl_sources.table import match
from mmssl_sources.times import FURTHEST, NUMBER, Clock, Kind, moment_text, read_times
from multimodal_ssl import InputError

Place: TypeAlias = tuple[str, ...]
Repeated: TypeAlias = Literal["mean", "first", "last"]

_ROWS = 1 << 20  # that are converted at once
_EMPTY = ("", "na", "n/a", "nan", "null", "none", "-", "?")  # how tables say that a value is missing


@dataclass(frozen=True, slots=True)
class Reader:
    """Where readings are and how they are told apart; streams of equal ones are read at once.

    Attributes:
        start, end: limits of the times that count, in ns; the end is outside.
    """

    path: Path
    clock: Clock
    by: tuple[str, ...]
    where: tuple[tuple[str, Any], ...]
    missing: tuple[float, ...]
    repeated: Repeated | None
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings in the order of places and times.

    Attributes:
        times: ns, [N].
        values: channel by channel, [C, N], missing ones being NaN.
        spans: place -> its first reading, and the one after its last.
        skipped: what was left out or changed: where, and what.
    """

    times: NDArray[np.int64]
    values: NDArray[np.float32]
    spans: Mapping[Place, tuple[int, int]]
    kind: Kind
    skipped: list[tuple[str, str]]


def read_readings(reader: Reader, columns: Sequence[str]) -> Readings:
    """Read these columns of a table as channels."""
    notes, first = Counter[str](), dict[str, str]()
    kind: Kind | None = None
    names: list[dict[str, int]] = [{} for _ in reader.by]
    chunks: list[tuple[NDArray[np.int64], list[NDArray[np.int32]], list[NDArray[np.float32]]]] = []
    seen, limits, skipped = 0, (FURTHEST * 2, -FURTHEST * 2), list[tuple[str, str]]()
    numeric: set[str] = set()
    for rows, numbers, broken in _blocks(reader, columns):
        skipped += broken
        seen += len(rows)
        times, good, unclear, kind_here = read_times(rows, reader.clock, kind, reader.path)

        def note(
            what: str, wrong: NDArray[np.bool_], cells: str, rows: pa.Table = rows, numbers: Any = numbers
        ) -> None:
            if wrong.any():
                notes[what] += int(wrong.sum())
                at = int(np.argmax(wrong))
                first.setdefault(
                    what, f"row {numbers[at]} (from 0): {[rows[one][at].as_py() for one in cells.split(chr(0))]}"
                )

        when = chr(0).join(reader.clock.columns)
        note(f"times that exist twice or never in {reader.clock.zone}, since clocks were changed", unclear, when)
        note("times that can't be read", ~good & ~unclear, when)
        if good.any():
            kind = kind_here
            limits = min(limits[0], int(times[good].min())), max(limits[1], int(times[good].max()))
        codes = []
        for column, known in zip(reader.by, names, strict=True):
            code = _encode(rows, column, known, reader.path)
            note(f"rows without {column!r}", code < 0, column)
            good &= code >= 0
            codes.append(code)
        if reader.start is not None:
            good &= times >= reader.start
        if reader.end is not None:
            good &= times < reader.end
        channels = []
        for column in columns:
            values, wrong = _values(rows[column], column, reader)
            note(f"cells of {column!r} that are no numbers, taken for missing", wrong, column)
            if not wrong.any() or (~np.isnan(values)).any():
                numeric.add(column)
            channels.append(values if good.all() else values[good])
        chunks.append((times[good], [code[good] for code in codes], channels))
    skipped += [(str(reader.path), f"{count} {what}, e.g. {first[what]}") for what, count in notes.items()]
    for column in columns:
        if column not in numeric:
            raise InputError(f"{reader.path}: column {column!r} holds no numbers: {skipped[-1][1]}")
    if kind is None or not sum(len(times) for times, _, _ in chunks):
        raise InputError(_nothing(reader, seen, kind, limits, skipped))
    times = np.concatenate([times for times, _, _ in chunks])
    codes = [np.concatenate([some[at] for _, some, _ in chunks]) for at in range(len(reader.by))]
    values = np.empty((len(columns), len(times)), np.float32)
    for at in range(len(columns)):
        np.concatenate([channels[at] for _, _, channels in chunks], out=values[at])
        for _, _, channels in chunks:
            channels[at] = values[at, :0]  # freed at once: not all is held twice
    return _arrange(reader, times, codes, [list(known) for known in names], values, kind, skipped)


def _blocks(reader: Reader, columns: Sequence[str]) -> Any:
    """Yield rows that pass where, many at a time, their numbers, and what was skipped."""
    where = dict(reader.where)
    names = list(dict.fromkeys([*reader.clock.columns, *reader.by, *columns]))
    tables, places, skipped, count = list[pa.Table](), list[NDArray[np.int64]](), list[tuple[str, str]](), 0
    with closing(formats.read(reader.path, list(dict.fromkeys([*names, *where])))) as blocks:
        for rows, numbers, broken in blocks:
            skipped += broken
            mask = match(rows, where, reader.path)
            tables.append(rows.select(names) if mask.all() else rows.select(names).filter(pa.array(mask)))
            places.append(numbers[mask])
            count += len(tables[-1])
            if count >= _ROWS:
                yield formats.join(tables).combine_chunks(), np.concatenate(places), skipped
                tables, places, skipped, count = [], [], [], 0
    if tables:
        yield formats.join(tables).combine_chunks(), np.concatenate(places), skipped


def _encode(rows: pa.Table, column: str, known: dict[str, int], path: Path) -> NDArray[np.int32]:
    """Return a number for each place, -1 where none is given; names that are new are added to those known."""
    try:
        texts = rows[column].cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"{path}: {column!r} holds {rows[column].type}, which is no text") from error
    encoded = pc.dictionary_encode(texts).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pc.dictionary_encode(pa.array([], pa.string()))
    numbers = [known.setdefault(one, len(known)) if one else -1 for one in encoded.dictionary.to_pylist()]
    indices = pc.fill_null(encoded.indices, len(numbers)).to_numpy(zero_copy_only=False)
    return np.array([*numbers, -1], np.int32)[indices]


def _values(column: pa.ChunkedArray, name: str, reader: Reader) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a column as numbers, and which of its cells should be some but aren't."""
    kind, wrong = column.type, np.zeros(len(column), bool)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        filled = pc.if_else(pc.equal(column, ""), pa.scalar(None, kind), column)
        try:
            column = filled.cast(pa.float64())
        except pa.ArrowInvalid:
            numeric = pc.match_substring_regex(filled, NUMBER)
            said = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(filled)), value_set=pa.array(_EMPTY, kind))
            wrong = pc.fill_null(pc.invert(pc.or_(numeric, said)), False).to_numpy()
            column = pc.if_else(numeric, pc.utf8_trim_whitespace(filled), None).cast(pa.float64())
    elif not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):  # fmt: skip
        raise InputError(f"{reader.path}: column {name!r} holds {kind}, not numbers: a channel is one number a row")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    exact = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if reader.missing:
        exact = np.where(np.isin(exact, reader.missing), np.nan, exact)
    with np.errstate(over="ignore"):
        values = exact.astype(np.float32)
    infinite = np.isinf(values)
    if infinite.any():
        values[infinite] = np.nan
    return values, wrong | infinite


def _arrange(
    reader: Reader,
    times: NDArray[np.int64],
    codes: list[NDArray[np.int32]],
    names: list[list[str]],
    values: NDArray[np.float32],
    kind: Kind,
    skipped: list[tuple[str, str]],
) -> Readings:
    """Sort readings by place and time, and make one of those of the same place and time."""
    place = np.zeros(len(times), np.int64)
    for code, known in zip(codes, names, strict=True):
        rank = np.empty(len(known), np.int64)
        rank[np.argsort(np.array(known, object))] = np.arange(len(known))
        place = place * len(known) + rank[code]
    later = (np.diff(place) > 0) | ((np.diff(place) == 0) & (np.diff(times) >= 0))
    if not later.all():
        order = np.lexsort((times, place)) if codes else np.argsort(times, kind="stable")
        times, place = times[order], place[order]
        for channel in values:
            channel[:] = channel[order]
    fresh = np.concatenate([[True], (np.diff(place) != 0) | (np.diff(times) != 0)])
    if not fresh.all():
        starts, count = np.flatnonzero(fresh), len(times)
        if reader.repeated is None and len(starts) * 2 < count:
            raise InputError(
                f"{reader.path}: {count - len(starts)} of {count} readings have the time of another one of their "
                "place: if a column tells places or machines apart, give it as `by`, else say what counts by "
                "`repeated`: mean, first or last"
            )
        which = reader.repeated or "mean"
        skipped.append((
            str(reader.path),
            f"{count - len(starts)} readings have the time of another one, e.g. "
            f"{moment_text(int(times[np.argmin(fresh)]) - reader.clock.offset, kind)}: {which} counts",
        ))  # fmt: skip
        values = np.stack([_merge(channel, starts, which) for channel in values])
        times, place = times[starts], place[starts]
    found, starts = np.unique(place, return_index=True)
    spans = {}
    ends = [*starts[1:].tolist(), len(times)]
    ordered = [sorted(some) for some in names]
    for code, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
        parts: list[str] = []
        for some in reversed(ordered):
            code, part = divmod(code, len(some))
            parts.insert(0, some[part])
        spans[tuple(parts)] = (start, end)
    return Readings(times, values, spans, kind, skipped)


def _merge(channel: NDArray[np.float32], starts: NDArray[np.int64], which: Repeated) -> NDArray[np.float32]:
    """Return one value for the readings from each start to the next: missing ones don't count."""
    valid = ~np.isnan(channel)
    if which == "mean":
        sums = np.add.reduceat(np.where(valid, channel, 0).astype(np.float64), starts)
        with np.errstate(invalid="ignore"):
            return (sums / np.add.reduceat(valid.astype(np.int64), starts)).astype(np.float32)
    places = np.arange(len(channel))
    if which == "first":
        at = np.minimum.reduceat(np.where(valid, places, len(channel)), starts)
    else:
        at = np.maximum.reduceat(np.where(valid, places, -1), starts)
    return np.append(channel, np.float32(np.nan))[at]


def _nothing(
    reader: Reader, seen: int, kind: Kind | None, limits: tuple[int, int], skipped: list[tuple[str, str]]
) -> str:
    if kind is None:
        why = f"e.g. {': '.join(skipped[-1])}" if skipped else "look at `where`"
        return f"{reader.path}: no reading is left of {seen} rows, {why}"
    start, end = (moment_text(one, kind) for one in limits)
    return f"{reader.path}: no reading is left of {seen} rows; they are from {start} to {end}: look at start, end, by"
