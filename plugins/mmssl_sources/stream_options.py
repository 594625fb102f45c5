"""What a config says of one stream of the pairing source ``streams``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict, ValidationError

from mmssl_sources.readings import Reader, Repeated
from mmssl_sources.resampling import Method
from mmssl_sources.times import SECOND, Clock, check_zone, parse_duration
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest


class Given(BaseModel):
    """The options of a stream; see the factory `open_streams`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: Annotated[list[str], MinLen(1)]
    path: Path
    time: str | list[str]
    unit: Literal["ns", "us", "ms", "s", "min", "h", "d"] = "s"
    format: str | None = None
    zone: str | None = None
    offset: float | str = 0
    step: float | str | None = None
    rate: Annotated[float, Gt(0)] | None = None
    resample: Method = "nearest"
    tolerance: float | str | None = None
    max_missing: Annotated[float, Ge(0), Le(1)] = 0.5
    by: str | list[str] = []
    where: dict[str, Any] = {}
    missing: list[float] = []
    repeated: Repeated | None = None
    modality: str = "series"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """One stream as it is to be read and resampled.

    Attributes:
        reader, columns: where its readings are, and which columns are its channels.
        step: ns between grid points; None: that of most of its readings.
        tolerance: ns; None: half a step, for linear a whole one.
    """

    name: str
    modality: str
    columns: tuple[str, ...]
    reader: Reader
    step: Fraction | None
    resample: Method
    tolerance: int | None
    max_missing: float

    @classmethod
    def parse(
        cls,
        name: str,
        given: list[str] | Mapping[str, Any],
        common: Mapping[str, Any],
        *,
        start: int | None,
        end: int | None,
    ) -> StreamOptions:
        """Read the option: a list of columns, or a mapping; what it leaves out is taken from the common options."""
        own = dict(given) if isinstance(given, Mapping) else {"columns": given}
        where = f"streams.{name}"
        for option in own:
            if option not in Given.model_fields:
                raise InputError(f"{where} has no option {option!r}: {nearest(str(option), Given.model_fields)}")
        if "step" in own or "rate" in own:  # one's own rate takes the place of the common step
            common = {option: value for option, value in common.items() if option not in ("step", "rate")}
        try:
            options = Given.model_validate({**common, **own})
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])
            if first["type"] == "missing":
                also = "" if at == "columns" else ", or beside `streams` for all of them"
                raise InputError(f"{where} has no {at}: give it there{also}") from error
            raise InputError(f"{where}.{at}: {first['msg']} (given: {first['input']!r})") from error
        times = [options.time] if isinstance(options.time, str) else options.time
        if not 1 <= len(times) <= 6:
            raise InputError(
                f"{where}.time must be one column, two (date, time of day) or three to six (year, month, day, hour, "
                f"minute, second), not {len(times)}"
            )
        if len(set(options.columns)) < len(options.columns):
            raise InputError(f"{where}.columns names a column twice: {', '.join(options.columns)}")
        if options.step is not None and options.rate is not None:
            raise InputError(f"{where}: give step or rate, not both (rate is 1 / step)")
        step = None if options.rate is None else Fraction(SECOND) / Fraction(str(options.rate))
        if options.step is not None:
            step = Fraction(_positive(f"{where}.step", options.step))
        tolerance = None
        if options.tolerance is not None:
            tolerance = parse_duration(f"{where}.tolerance", options.tolerance)
            if tolerance < 0 or (tolerance == 0 and options.resample == "mean"):
                raise InputError(f"{where}.tolerance is {options.tolerance!r}: expected more than 0")
        zone = None if options.zone is None else check_zone(f"{where}.zone", options.zone)
        clock = Clock(
            tuple(times), options.unit, options.format, zone, parse_duration(f"{where}.offset", options.offset)
        )
        by = (options.by,) if isinstance(options.by, str) else tuple(options.by)
        reader = Reader(
            options.path, clock, by, tuple((one, _frozen(value)) for one, value in options.where.items()),
            tuple(options.missing), options.repeated, start, end,
        )  # fmt: skip
        return cls(
            name, options.modality, tuple(options.columns), reader, step, options.resample, tolerance,
            options.max_missing,
        )  # fmt: skip


def _positive(name: str, given: float | str) -> int:
    value = parse_duration(name, given)
    if value <= 0:
        raise InputError(f"{name} is {given!r}: expected more than 0")
    return value


def _frozen(value: Any) -> Any:
    """Return a value of `where` that can be hashed."""
    return tuple(value) if isinstance(value, list) else value
