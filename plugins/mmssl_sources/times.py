"""Durations, and columns that say when: numbers, ISO 8601, or year, month, day and so on; all as whole nanoseconds."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

Ints: TypeAlias = NDArray[np.int64]
Kind: TypeAlias = Literal["number", "naive", "zoned"]
Moment: TypeAlias = float | str | datetime.date  # a datetime is a date too

SECOND = 10**9
UNITS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND,
    "w": 7 * 86400 * SECOND,
}  # fmt: skip
FURTHEST = 2**62  # ns, 146 years: a sum of two still fits 64 bits
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_DURATION = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([^\W\d]*)", re.IGNORECASE)
_ISO = (
    r"^\s*(?P<year>\d{4})-?(?P<month>\d\d)-?(?P<day>\d\d)"
    r"(?:[Tt ]\s*(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d(?:\.\d+)?))?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?\s*$"
)
_PARTS = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True, slots=True)
class Clock:
    """How a table says when.

    Attributes:
        columns: one with all of it, two with the date and the time of day, or three to six with the year, month, day,
            hour, minute and second.
        unit: of numbers.
        format: of texts, as for strptime; ISO 8601 if not given.
        zone: of times that name none, e.g. Europe/Berlin.
        offset: ns to be added.
    """

    columns: tuple[str, ...]
    unit: str
    format: str | None
    zone: str | None
    offset: int


class Times(NamedTuple):
    """When each row was: ns since 1970, or since wherever numbers count from.

    Attributes:
        values: [N].
        good: which of them are known, [N] (bool).
        unclear: which are local times that there are two of, or none, since clocks were changed, [N] (bool).
        kind: whether they were numbers, or texts without or with a zone.
    """

    values: Ints
    good: NDArray[np.bool_]
    unclear: NDArray[np.bool_]
    kind: Kind


def parse_duration(name: str, given: float | str) -> int:
    """Return seconds, or a text such as 48h, 2d or 500ms, in ns."""
    try:
        if isinstance(given, str):
            match = _DURATION.fullmatch(given.strip())
            if not match:
                raise ValueError("expected seconds, or a number and its unit such as 48h, 2d or 500ms")
            unit = match[2] or "s"
            if unit not in UNITS:
                raise ValueError(f"there is no unit {unit!r}: {nearest(unit, UNITS)}")
            exact = Fraction(match[1]) * UNITS[unit]
        else:
            exact = Fraction(str(float(given))) * SECOND  # as it is written: 0.1 is a tenth
        if abs(exact) >= FURTHEST:
            raise ValueError("that is longer than 146 years")
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} is {given!r}: {error}") from error
    return round(exact)


def parse_moment(name: str, given: Moment, zone: str | None) -> int:
    """Return a number of seconds, or a time in ISO 8601, of this zone if it names none, as ns since 1970 (or 0)."""
    if isinstance(given, int | float):
        return parse_duration(name, given)
    try:
        moment = datetime.datetime.fromisoformat(given.isoformat() if isinstance(given, datetime.date) else given)
    except ValueError as error:
        raise InputError(
            f"{name} is {given!r}: expected seconds, or a time in ISO 8601 such as 2016-06-01T12:00"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(zone) if zone else datetime.UTC)
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    nanoseconds = (since.days * 86400 + since.seconds) * SECOND + since.microseconds * 1000
    if abs(nanoseconds) >= 2 * FURTHEST:
        raise InputError(f"{name} is {given!r}: expected a time between the years 1678 and 2262")
    return nanoseconds


def check_zone(name: str, zone: str) -> str:
    """Return the zone if it is known."""
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("ns")), zone)
        ZoneInfo(zone)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InputError(f"{name} is {zone!r}, which is no time zone such as Europe/Berlin or UTC") from error
    return zone


def moment_text(nanoseconds: int, kind: Kind) -> str:
    """Return a time as the key of a window has it: seconds, or ISO 8601 that ends in Z if its zone is known."""
    if kind == "number":
        whole, part = divmod(abs(nanoseconds), SECOND)
        text = f"{'-' * (nanoseconds < 0)}{whole}.{part:09d}"
    else:
        text = str(np.datetime64(nanoseconds, "ns"))
    return text.rstrip("0").rstrip(".") + "Z" * (kind == "zoned")


def duration_text(nanoseconds: float | Fraction) -> str:
    """Return a duration in the largest unit of which it has one or more, e.g. 1.5h."""
    size = abs(float(nanoseconds))
    unit = next((one for one in ("d", "h", "min", "s", "ms", "us") if UNITS[one] <= size), "ns")
    return f"{float(nanoseconds / UNITS[unit]):.6g}{unit}"


def read_times(rows: pa.Table, clock: Clock, kind: Kind | None, path: object) -> Times:
    """Return when each row was; kind is what the rows before these were, if there were any."""
    if len(clock.columns) > 2:
        values, good = _assemble([_number(rows[name]) for name in clock.columns])
        found: Kind = "naive"
    elif len(clock.columns) == 2:
        values, good, found = _read_texts(
            pc.binary_join_element_wise(*(_text(rows, name, path) for name in clock.columns), " "), clock
        )
    else:
        values, good, found = _read_column(rows[clock.columns[0]], clock, kind, path)
    unclear = np.zeros(len(values), bool)
    if found == "naive" and clock.zone:
        values, unclear = _from_zone(values, good, clock.zone)
        found, good = "zoned", good & ~unclear
    if kind is not None and kind != found and good.any():
        raise InputError(
            f"{path}: the times in {', '.join(clock.columns)} are of two kinds, {kind} and {found}: make them one, "
            "or say the `zone` of those that name none"
        )
    values = np.where(good, values, 0)
    good &= np.abs(values) < 2 * FURTHEST - abs(clock.offset)
    return Times(np.where(good, values + clock.offset, 0), good, unclear, found)


def _read_column(
    column: pa.ChunkedArray, clock: Clock, kind: Kind | None, path: object
) -> tuple[Ints, NDArray[np.bool_], Kind]:
    given = column.type
    if pa.types.is_timestamp(given) or pa.types.is_date(given):
        zone = given.tz if pa.types.is_timestamp(given) else None
        try:
            values = column.cast(pa.timestamp("ns", zone)).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: {clock.columns[0]!r} holds times before 1678 or after 2262") from error
        return _filled(values), column.is_valid().to_numpy(), "zoned" if zone else "naive"
    if pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given):
        return *_read_numbers(column, clock, path), "number"
    if not (pa.types.is_string(given) or pa.types.is_large_string(given)):
        raise InputError(f"{path}: {clock.columns[0]!r} holds {given}, which is no time: expected numbers or ISO 8601")
    if clock.format is None and kind in (None, "number"):
        some = column.filter(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False))
        if kind or (len(some) and pc.match_substring_regex(some.slice(0, 1), NUMBER)[0].as_py()):
            try:
                return *_read_numbers(
                    column.cast(pa.int64()), clock, path
                ), "number"  # exact: ns need more than a float
            except pa.ArrowInvalid:
                return *_read_numbers(pa.array(_number(column), from_pandas=True), clock, path), "number"
    return _read_texts(column, clock)


def _read_numbers(column: pa.ChunkedArray | pa.Array, clock: Clock, path: object) -> tuple[Ints, NDArray[np.bool_]]:
    scale = UNITS[clock.unit]
    if pa.types.is_integer(column.type):
        good = column.is_valid().to_numpy(zero_copy_only=False)
        whole = _filled(column.cast(pa.int64(), safe=False))
        largest = max(abs(int(whole.min(initial=0))), abs(int(whole.max(initial=0))))
        values = whole
    else:
        seconds = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        good = np.isfinite(seconds)
        seconds = np.where(good, seconds, 0)
        largest = np.abs(seconds).max(initial=0)
        # What a float64 can't tell apart any more is rounded off: a stray 1e-7 s would be a time of its own.
        scale, fine = (scale, 1) if largest * scale < 2**53 else (scale, 1000)
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.rint(seconds * (scale / fine)).astype(np.int64) * fine
        if largest * scale < 2 * FURTHEST:
            return values, good
    if largest * scale >= 2 * FURTHEST:
        raise InputError(
            f"{path}: {clock.columns[0]!r} goes up to {largest:.6g} {clock.unit}, which is beyond the year 2262: "
            "say the `unit` of its numbers (ns, us, ms, s, min, h, d)"
        )
    return values * scale, good


def _read_texts(column: pa.ChunkedArray, clock: Clock) -> tuple[Ints, NDArray[np.bool_], Kind]:
    if clock.format is not None:
        moments = pc.strptime(pc.utf8_trim_whitespace(column), clock.format, "s", error_is_null=True)
        return _filled(moments.cast(pa.int64())) * SECOND, moments.is_valid().to_numpy(), "naive"
    blank = pc.equal(column, "")
    column = pc.if_else(pc.fill_null(blank, True), pa.scalar(None, column.type), column)
    for zone, kind in ((None, "naive"), ("UTC", "zoned")):
        try:
            moments = column.cast(pa.timestamp("ns", zone))  # far faster than a regular expression, but all or nothing
        except pa.ArrowInvalid:
            continue
        return _filled(moments.cast(pa.int64())), moments.is_valid().to_numpy(), kind  # type: ignore[return-value]  # mypy widens a tuple's literals
    parts = pc.extract_regex(column, _ISO)
    fields = {name: pc.struct_field(parts, name) for name in (*_PARTS, "zone")}
    values, good = _assemble([_number(fields[name], absent=0) for name in _PARTS])
    zones = fields["zone"]
    sign = np.where(pc.fill_null(pc.starts_with(zones, "-"), False).to_numpy(), -1, 1)
    digits = pc.replace_substring_regex(zones, "[^0-9]", "")
    hours, minutes = (_number(pc.utf8_slice_codeunits(digits, *some), absent=0) for some in ((0, 2), (2, 4)))
    named = pc.fill_null(pc.not_equal(zones, ""), False).to_numpy()
    values = values - sign * np.nan_to_num(hours * 3600 + minutes * 60).astype(np.int64) * SECOND
    # In a column that mixes both, those of the rarer kind can't be read.
    zoned = bool(named[good].sum() * 2 > good.sum())
    return values, good & (named == zoned), "zoned" if zoned else "naive"


def _assemble(parts: list[NDArray[np.float64]]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return times from the year, month, day and perhaps hour, minute and second, and which of them there are."""
    whole = [np.where(np.isfinite(part), part, -1) for part in parts]
    year, month, day, hour, minute, second = whole + [np.zeros(len(parts[0]))] * (6 - len(parts))
    good = (year >= 1678) & (year < 2262) & (month >= 1) & (month <= 12) & (day >= 1)
    good &= (hour >= 0) & (minute >= 0) & (minute < 60) & (second >= 0) & (second < 60)
    good &= (hour < 24) | ((hour == 24) & (minute == 0) & (second == 0))  # ISO 8601: the end of the day
    for part in (year, month, day, hour, minute):
        good &= part == np.floor(part)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype(np.int64).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[D]").astype(np.int64) - first
    good &= day <= length
    minutes = np.where(good, (first + day - 1) * 1440 + hour * 60 + minute, 0).astype(np.int64)
    return minutes * (60 * SECOND) + np.rint(np.where(good, second, 0) * 1e9).astype(np.int64), good


def _from_zone(values: Ints, good: NDArray[np.bool_], zone: str) -> tuple[Ints, NDArray[np.bool_]]:
    """Return local times as those of UTC, and which of them there are twice or never."""
    local = pa.array(np.where(good, values, 0)).cast(pa.timestamp("ns"))
    early, late = (
        pc.assume_timezone(local, zone, ambiguous=which, nonexistent=which).cast(pa.int64()).to_numpy()
        for which in ("earliest", "latest")
    )
    return early, (early != late) & good


def _number(column: pa.ChunkedArray | pa.Array, *, absent: float = np.nan) -> NDArray[np.float64]:
    """Return a column as numbers, those that are none being NaN, and empty texts absent."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numeric = pc.if_else(pc.match_substring_regex(column, NUMBER), pc.utf8_trim_whitespace(column), None)
        numbers = numeric.cast(pa.float64()).to_numpy(zero_copy_only=False)
        empty = pc.fill_null(pc.equal(column, ""), False).to_numpy(zero_copy_only=False)
        return np.where(empty, absent, numbers)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.full(len(column), np.nan)
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)


def _text(rows: pa.Table, name: str, path: object) -> pa.ChunkedArray:
    try:
        return rows[name].cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"{path}: {name!r} holds {rows[name].type}, which is no date and no time of day") from error


def _filled(column: pa.ChunkedArray | pa.Array) -> Ints:
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
