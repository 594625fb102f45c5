"""The pairing source ``join``: what two sources have of the same thing becomes one sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mmssl_wrappers.links import Rows, equal, name_sets, unite
from mmssl_wrappers.matches import Block, Many, choose, equal_texts, like_texts, near_numbers, near_places
from mmssl_wrappers.moments import TICKS, Moment, parse_duration, parse_place, parse_time
from mmssl_wrappers.reading import (
    check_items,
    count,
    fact,
    facts_of,
    pair_key,
    random_access,
    some,
    tell,
    text_of,
    unknown,
)
from mmssl_wrappers.together import Together, check_names
from multimodal_ssl import InputError, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import attempt
from multimodal_ssl.skipped import Skipped

How = Literal["key", "fuzzy", "time", "place"]
By = str | Sequence[str] | Mapping[str, str | Sequence[str]]

SIMILARITY = 90.0

_PARSERS: dict[How, Callable[..., Any]] = {
    "key": text_of,
    "fuzzy": text_of,
    "time": parse_time,
    "place": parse_place,
}
_REMEDIES = {
    "key": "spell them alike, or use how: fuzzy",
    "fuzzy": "lower tolerance, the least similarity",
    "time": "raise tolerance",
    "place": "raise tolerance",
}


class Side(NamedTuple):
    """What is kept of one source: of each row its key and group, and of the rows [n] that can match what they have."""

    keys: list[str]
    groups: list[str]
    rows: Rows
    values: list[Any]
    blank: int


def join(
    left: PairingSource, right: PairingSource, by: By, *, how: How, tolerance: float | str | None,
    many: Many | None, rename: Mapping[str, str],
) -> MapSource:  # fmt: skip
    """Pair the samples of two sources by what they have in common, see the plugin's `open_join`."""
    maps = {
        name: random_access(source, f"join: {name}", "write it to a table first")
        for name, source in (("left", left), ("right", right))
    }
    names = _names(maps["left"], maps["right"], rename)
    columns = parse_by(by, how)
    reach = parse_tolerance(tolerance, how)
    many = many or ("all" if how == "key" else "best")
    unreadable: list[tuple[str, str]] = []
    sides = [_read(name, source, columns[name], how, unreadable) for name, source in maps.items()]
    blocks = _match(how, sides[0].values, sides[1].values, reach, many)
    i, j, score = choose(blocks, many)
    if not len(i):
        told = "; ".join(
            f"{name} has {', '.join(columns[name])} such as {some(map(_said, side.values))}"
            for name, side in zip(maps, sides, strict=True)
        )
        raise InputError(f"join: nothing matches ({told}); {_REMEDIES[how]}")
    rows = np.stack([sides[0].rows[i], sides[1].rows[j]], 1)
    _tell_alone(sides, rows)
    skipped = Skipped([("", unreadable), *((f"{name}/", source.skipped) for name, source in maps.items())])
    weights = (score / 100).tolist() if how == "fuzzy" else [1.0] * len(rows)
    return Together([*maps.values()], names, rows, _group(sides, rows), weights, skipped)


def parse_by(by: By, how: How) -> dict[str, list[str]]:
    """Return the names of each side: one, or two for places."""
    given: Mapping[str, str | Sequence[str]]
    given = by if isinstance(by, Mapping) else {"left": by, "right": by}
    wanted = 2 if how == "place" else 1
    columns = {side: [names] if isinstance(names, str) else list(names) for side, names in given.items()}
    if columns.keys() != {"left", "right"} or any(len(names) != wanted for names in columns.values()):
        one = "[lat, lon]" if how == "place" else "name"
        raise InputError(
            f"join.by is {by!r}: give {'the names of latitude and longitude' if wanted == 2 else 'one name'} for "
            f"how: {how}, e.g. {one}, or {{left: {one}, right: {one}}} where they differ"
        )
    return columns


def parse_tolerance(given: float | str | None, how: How) -> float:
    """Return how far from each other what matches may be, or for texts how alike it must be."""
    if how == "key":
        if given is not None:
            raise InputError(
                f"join.tolerance is {given!r}, but how: key takes equal texts; leave it out, or change how"
            )
        return 0
    if given is None and how == "fuzzy":
        return SIMILARITY
    what = {"fuzzy": "a similarity above 0 and up to 100", "time": "seconds or a duration such as 5min",
            "place": "metres"}[how]  # fmt: skip
    if given is None:
        raise InputError(f"join.tolerance is missing: how: {how} needs {what}")
    if how == "time":
        given = parse_duration(given, "join.tolerance")
    if isinstance(given, str) or not 0 <= given < math.inf or (how == "fuzzy" and not 0 < given <= 100):
        raise InputError(f"join.tolerance is {given!r}: give {what}{'' if how == 'fuzzy' else ', 0 or more'}")
    return float(given)


def _names(left: MapSource, right: MapSource, rename: Mapping[str, str]) -> list[dict[str, str]]:
    check_items(right, rename, "join.rename")
    names = [{one: one for one in left.modalities}, {one: rename.get(one, one) for one in right.modalities}]
    check_names(names, "join", "give those of right another name by rename: {OLD: NEW}")
    return names


def _read(side: str, source: MapSource, names: Sequence[str], how: How, unreadable: list[tuple[str, str]]) -> Side:
    """Read all samples of a side; what can't be read is added to unreadable."""
    parse = _PARSERS[how]
    keys, groups, rows, values = list[str](), list[str](), list[int](), list[Any]()
    known, blank, before = set[str](), 0, len(unreadable)
    found = set[str]()
    for row, sample in attempt(source):
        keys.append(sample.key)
        groups.append(sample.group if isinstance(sample, Sample) else "")
        try:
            if not isinstance(sample, Sample):
                raise sample
            known |= facts_of(sample, source.modalities)
            facts = [fact(sample, name) for name in names]
            found |= {name for name, one in zip(names, facts, strict=True) if text_of(one) is not None}
            value = parse(*facts)
        except UnreadableError as error:
            unreadable.append((f"{side}/{error.key}", error.reason))
            continue
        except ValueError as error:
            unreadable.append((f"{side}/{keys[-1]}", f"{', '.join(names)}: {error}"))
            continue
        if value is None:
            blank += 1
        else:
            rows.append(row)
            values.append(value)
    if known:
        for name in names:
            if name not in found:
                raise unknown(name, known - {name}, f"join.by, {side}")
    if not rows:
        why = f", e.g. {': '.join(unreadable[before])}" if len(unreadable) > before else ""
        raise InputError(f"join: no sample of {side} has {' and '.join(names)} that can be read{why}; mend its data")
    return Side(keys, groups, np.array(rows, np.int64), values, blank)


def _match(how: How, left: list[Any], right: list[Any], reach: float, many: Many) -> Iterator[Block]:
    if how == "key":
        return equal_texts(left, right, once=many != "all")
    if how == "fuzzy":
        return like_texts(left, right, reach)
    if how == "place":
        return near_places(np.array(left, np.float64), np.array(right, np.float64), reach)
    kinds = dict[str, str]()
    for side, values in (("left", left), ("right", right)):
        for one in values:
            kinds.setdefault(one.kind, side)
    if len(kinds) > 1:
        told = ", ".join(f"a {kind} in {side}" for kind, side in kinds.items())
        raise InputError(f"join: times of several kinds can't be compared ({told}); write all of them alike")
    numbers = "number" in kinds
    times = [np.array([one.at for one in side], np.float64 if numbers else np.int64) for side in (left, right)]
    scaled = reach if numbers else min(round(reach * TICKS), 2**62)
    return near_numbers(times[0], times[1], scaled, nearest=many == "best")


def _group(sides: Sequence[Side], rows: Rows) -> list[str]:
    """Return the group of each pair: left's, or else right's.

    Pairs that share a row are of one group too, and so are their groups: as negatives they would push an item from one
    that it was found with.
    """
    left, right = rows.T.tolist()
    keys = [pair_key([sides[0].keys[a], sides[1].keys[b]]) for a, b in zip(left, right, strict=True)]
    groups = [sides[0].groups[a] or sides[1].groups[b] for a, b in zip(left, right, strict=True)]
    own = unite(len(rows), equal(group or None for group in groups))
    sets = unite(len(rows), itertools.chain(enumerate(own.tolist()), equal(left), equal(right)))
    largest, before = (int(np.bincount(one).max()) for one in (sets, own))
    if largest > max(len(rows) / 2, before, 2):
        tell(
            f"join: {largest:,} of {count(len(rows), 'sample')} are one group, since they share samples of left or "
            "right, and so never each other's negatives; a lower tolerance or many: best may link fewer"
        )
    return name_sets(sets, keys, groups)


def _tell_alone(sides: Sequence[Side], rows: Rows) -> None:
    """Tell how many samples have no partner."""
    told = []
    for name, side, used in zip(("left", "right"), sides, rows.T, strict=True):
        alone = len(side.rows) - len(np.unique(used)) + side.blank
        blank = f" ({side.blank:,} of them with nothing to join by)" if side.blank else ""
        if alone:
            told.append(f"{count(alone, 'sample')} of {name}{blank}")
    if told:
        tell(f"join: {' and '.join(told)} left out, without a partner")


def _said(value: Any) -> Any:
    """Return a value as a message shows it."""
    if isinstance(value, Moment):
        return value.at if value.kind == "number" else str(np.datetime64(int(value.at), "us"))
    return value
