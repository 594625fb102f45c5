"""Several texts a row of a table: found, and given a sample each or taken from the first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Texts(NamedTuple):
    """The texts of all rows, none of them blank.

    Attributes:
        rows: that they belong to, [T], ascending.
        texts: [T].
        wrong: row -> why its texts can't be read.
    """

    rows: np.ndarray
    texts: pa.ChunkedArray
    wrong: Mapping[int, str]


class Spread(NamedTuple):
    """Which text belongs to which sample.

    Attributes:
        rows: of which the samples are, [N].
        numbers: of the samples among those of their row, [N], from 0.
        texts: [N], null where a row has none.
    """

    rows: np.ndarray
    numbers: np.ndarray
    texts: pa.ChunkedArray


def find_texts(columns: Sequence[pa.ChunkedArray], *, lists: bool) -> Texts:
    """Find the texts of each row, column after column.

    Args:
        columns: of strings, or of lists of strings.
        lists: a string that begins with "[" is a list in JSON.
    """
    rows: list[np.ndarray] = []
    texts: list[pa.Array] = []
    wrong: dict[int, str] = {}
    for column in columns:
        start = 0
        for chunk in column.chunks:
            places, found, bad = _find_in_chunk(chunk, lists)
            rows.append(places + start)
            texts.append(found)
            wrong |= {start + place: why for place, why in bad.items()}
            start += len(chunk)
    order = np.argsort(places := np.concatenate(rows), kind="stable")
    return Texts(places[order], pa.chunked_array(texts, pa.large_string()).take(pa.array(order)), wrong)


def spread(found: Texts, count: int, *, each: bool) -> Spread:
    """Return a sample for each text of count rows, or for the first of each row; a row without any has one sample."""
    have = np.bincount(found.rows, minlength=count)
    samples = np.maximum(have, 1) if each else np.ones(count, np.int64)
    rows = np.repeat(np.arange(count), samples)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(samples) - samples, samples)
    places = (np.cumsum(have) - have)[rows] + numbers
    return Spread(rows, numbers, found.texts.take(pa.array(places, mask=have[rows] == 0)))


def parse_texts(text: str) -> list[str | None]:
    """Return the texts of a list in JSON; raise ValueError if it is none."""
    try:
        values = json.loads(text)
        if not isinstance(values, list) or not all(value is None or isinstance(value, str) for value in values):
            raise ValueError(f"{text[:40]!r} is no list of texts")
        "".join(filter(None, values)).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[:40]!r} holds half a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{text[:40]!r} is no list in JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("a list nested too deep") from error
    return values


def _find_in_chunk(chunk: pa.Array, lists: bool) -> tuple[np.ndarray, pa.Array, dict[int, str]]:
    wrong: dict[int, str] = {}
    if isinstance(chunk, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return *_without_blanks(pc.list_parent_indices(chunk).to_numpy(), pc.list_flatten(chunk)), wrong
    rows = np.arange(len(chunk))
    listed = np.zeros(len(chunk), bool)
    if lists:
        starts = pc.starts_with(pc.utf8_ltrim_whitespace(chunk), "[").fill_null(False)
        listed = starts.to_numpy(zero_copy_only=False)
    inside: list[tuple[int, str | None]] = []
    for place in np.flatnonzero(listed).tolist():
        try:
            inside += [(place, text) for text in parse_texts(chunk[place].as_py())]
        except ValueError as error:
            wrong[place] = str(error)
    alone = chunk.filter(pa.array(~listed)).cast(pa.large_string())
    rows = np.concatenate([rows[~listed], np.array([place for place, _ in inside], np.int64)])
    texts = pa.concat_arrays([alone, pa.array([text for _, text in inside], pa.large_string())])
    return *_without_blanks(rows, texts), wrong


def _without_blanks(rows: np.ndarray, texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    texts = texts.cast(pa.large_string())
    full = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).fill_null(False)
    mask: Any = full.to_numpy(zero_copy_only=False)
    return rows[mask], texts.filter(full)
