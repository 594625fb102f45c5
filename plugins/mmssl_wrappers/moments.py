"""Values that have a distance: times, durations and places, read from metadata."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mmssl_wrappers.reading import text_of
from multimodal_ssl import InputError

Fact = str | float | None

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
TICKS = 1_000_000  # a second, where times are dates: whole microseconds are exact, seconds in floating point are not
_DURATION = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*")


class Moment(NamedTuple):
    """A time, which can only be compared with one of its kind: a number, or microseconds since 1970 of a date."""

    kind: str
    at: float


def parse_time(value: Fact) -> Moment | None:
    """Read a number or an ISO time, None being blank; raise ValueError if it is neither."""
    text = text_of(value)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(number):
            raise ValueError(f"{text!r} is no finite number")
        return Moment("number", number)
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor an ISO time such as 2026-01-31T12:00:00Z") from None
    zoned = date.tzinfo is not None
    try:
        since = date - datetime(1970, 1, 1, tzinfo=UTC if zoned else None)
    except OverflowError:
        raise ValueError(f"{text!r} is out of range in its time zone") from None
    return Moment("time with a zone" if zoned else "time without a zone", since // timedelta(microseconds=1))


def parse_place(latitude: Fact, longitude: Fact) -> tuple[float, float] | None:
    """Read degrees, None being blank; raise ValueError if they are no place on the Earth."""
    texts = text_of(latitude), text_of(longitude)
    if texts[0] is None or texts[1] is None:
        return None
    try:
        north, east = float(texts[0]), float(texts[1])
    except ValueError:
        raise ValueError(f"{texts[0]!r}, {texts[1]!r} are no degrees such as 52.52, 13.4") from None
    if not (-90 <= north <= 90 and -180 <= east <= 360):
        raise ValueError(
            f"{north:g}, {east:g} is no place: latitudes are from -90 to 90, longitudes from -180 to 360 degrees"
        )
    return north, east


def parse_duration(given: str | float, option: str) -> float:
    """Read seconds, or a duration such as "5min"; raise InputError if it is neither."""
    if isinstance(given, str):
        found = _DURATION.fullmatch(given)
        if not found or (found[2] or "s") not in SECONDS:
            raise InputError(f"{option} is {given!r}: give seconds, or a duration in {', '.join(SECONDS)} such as 5min")
        return float(found[1]) * SECONDS[found[2] or "s"]
    return given
