"""The pairing source ``filter``: the samples of a source that pass a condition."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import final

import numpy as np

from mmssl_wrappers.reading import BUILT_IN, Through, check_items, rows_of, unknown
from multimodal_ssl import BrokenItem, InputError, MapSource, PairingSource, Sample
from multimodal_ssl.subset import Subset
from multimodal_ssl.where import parse_where


@final
@dataclass(frozen=True)
class Condition:
    """What samples must have; it is called with those of a stream and yields what passes or can't be read."""

    where: str | None
    has: Sequence[str]
    key: re.Pattern[str] | None
    names: frozenset[str] = field(default=frozenset())

    def __call__(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        test = self.tester()
        return (sample for sample in samples if _is_broken(sample) or test(sample))

    def tester(self) -> _Test:
        """Return a function that tests samples, to be used in one process."""
        return _Test(self)


class _Test:
    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        if condition.where is not None:
            built_in = dict(zip(BUILT_IN, BUILT_IN, strict=True))
            expression, self.values = parse_where(condition.where).sql(
                built_in={name: f'"{column}"' for name, column in built_in.items()}
            )
            self.database = sqlite3.connect(":memory:")
            # The sample is one row, named first so that its parameters come first.
            self.query = f'with one(metadata, "key", "group") as (values (?, ?, ?)) select {expression} from one'

    def __call__(self, sample: Sample) -> bool:
        condition = self.condition
        if not all(name in sample.items for name in condition.has):
            return False
        if condition.key is not None and not condition.key.search(sample.key):
            return False
        if condition.where is None:
            return True
        row = (_json(sample), sample.key, sample.group)
        return bool(self.database.execute(self.query, (*row, *self.values)).fetchone()[0])


def filtered(source: PairingSource, *, where: str | None, has: Sequence[str], key: str | None) -> PairingSource:
    """Return the samples of a source that pass, see the plugin's `open_filter`."""
    if where is None and not has and key is None:
        raise InputError("filter: give a condition: where, has or key, e.g. where: \"license = 'MIT'\"")
    check_items(source, has, "filter.has")
    try:
        pattern = None if key is None else re.compile(key)
    except re.error as error:
        raise InputError(f"filter.key: {key!r} is no regular expression: {error}") from error
    names = frozenset() if where is None else parse_where(where).names - {*BUILT_IN}
    condition = Condition(where, tuple(has), pattern, names)
    if isinstance(source, MapSource):
        return _subset(source, condition)
    _look_ahead(source, condition)
    return Through(source, condition)


def _subset(source: MapSource, condition: Condition) -> Subset:
    places = [list(source.modalities).index(name) for name in condition.has]
    rows = np.flatnonzero(source.manifest().present[:, places].all(1))
    if condition.where is None and condition.key is None:
        if not len(rows):
            raise _nothing(condition, len(source))
        return Subset(source, rows)
    test, known, passing = condition.tester(), set[str](), 0
    mask = np.zeros(len(source), bool)
    for row, sample in rows_of(source):
        if isinstance(sample, Sample):
            known |= sample.metadata.keys()
            mask[row] = test(sample)
            passing += mask[row]
        else:
            mask[row] = True  # training records it
    _check(condition, known)
    if not passing:
        raise _nothing(condition, len(source))
    return Subset(source, np.intersect1d(rows, np.flatnonzero(mask)))


def _look_ahead(source: PairingSource, condition: Condition) -> None:
    """Read a stream until a sample passes and every name of the condition was seen; raise InputError if none does."""
    test, known, passes, total = condition.tester(), set[str](), False, 0
    for sample in source:
        total += 1
        if _is_broken(sample):
            continue
        known |= sample.metadata.keys()
        passes = passes or test(sample)
        if passes and condition.names <= known:
            return
    _check(condition, known)
    raise _nothing(condition, total)


def _is_broken(sample: Sample) -> bool:
    """Tell whether a stream says that a sample can't be read; items that aren't a dict may be decoded by a look."""
    return isinstance(sample.items, dict) and any(isinstance(one, BrokenItem) for one in sample.items.values())


def _check(condition: Condition, known: set[str]) -> None:
    for name in sorted(condition.names - known):
        raise unknown(name, {*known, *BUILT_IN}, "filter.where")


def _nothing(condition: Condition, total: int) -> InputError:
    given = {"where": condition.where, "has": [*condition.has], "key": condition.key and condition.key.pattern}
    asked = ", ".join(f"{name}: {value}" for name, value in compress(given.items(), given.values()))
    return InputError(f"filter: none of {total:,} samples that can be read passes ({asked}); loosen the condition")


def _json(sample: Sample) -> str:
    """Return the metadata in JSON; a number that is not finite, which JSON has no word for, is missing."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in sample.metadata.items()
    }
    return json.dumps(plain, ensure_ascii=False)
