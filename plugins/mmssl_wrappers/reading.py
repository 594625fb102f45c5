"""How the sources here read the ones they are made of: facts of a sample, and streams that go through."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, final

from multimodal_ssl import InputError, LazyItem, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import attempt
from multimodal_ssl.digests import as_text
from multimodal_ssl.errors import nearest

BUILT_IN = ("key", "group")

Flow = Callable[[Iterator[Sample]], Iterator[Sample]]


@final
class Through(PairingSource):
    """A stream whose samples go through a function; its shards stay those of the source.

    The function takes the samples of a shard from its beginning, whatever it leaves out, so that a shard that is
    entered in the middle goes on exactly where it was.
    """

    def __init__(self, source: PairingSource, flow: Flow) -> None:
        self.source, self.flow = source, flow
        self.modalities, self.skipped, self.num_shards = source.modalities, source.skipped, source.num_shards

    def __iter__(self) -> Iterator[Sample]:
        return self.flow(iter(self.source))

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        return islice(self.flow(self.source.read(shard, 0)), start, None)


def rows_of(source: PairingSource) -> Iterator[tuple[int, Sample | UnreadableError]]:
    """Yield each sample with its row, or its place in a stream; what a MapSource can't read with why."""
    return attempt(source) if isinstance(source, MapSource) else enumerate(source)


def random_access(source: PairingSource, what: str, remedy: str) -> MapSource:
    """Return a source that has random access; raise InputError if it has none."""
    if isinstance(source, MapSource):
        return source
    raise InputError(f"{what} is {type(source).__name__}, which has no random access: {remedy}")


def check_keys(keys: Iterable[str], what: str) -> None:
    """Raise InputError for a key that comes again: a sample of a stream is known by its key alone."""
    seen = set[str]()
    for key in keys:
        if key in seen:
            raise InputError(
                f"{what}: two samples of the source have the key {key!r}; make its keys unique, e.g. by another `key`"
            )
        seen.add(key)


def check_items(source: PairingSource, names: Iterable[str], option: str) -> None:
    """Raise InputError for a name of items that a source has not."""
    for name in names:
        if name not in source.modalities:
            raise InputError(f"{option}: the source has no items {name!r}: {nearest(name, source.modalities)}")


def fact(sample: Sample, name: str) -> str | float | None:
    """Return what a sample has under a name: its key, group, metadata, or an item that is a text (or a file of one).

    Raises UnreadableError for a file that is no text.
    """
    if name in BUILT_IN:
        return (sample.key if name == "key" else sample.group) or None
    if name in sample.metadata:
        return sample.metadata[name]
    item = sample.items.get(name)
    if isinstance(item, Path | LazyItem):
        try:
            item = as_text(item)
            item = item.strip() if isinstance(item, str) else item
        except (OSError, ValueError) as error:
            raise UnreadableError(sample.key, f"{name}: {item} is no text that can be read: {error}") from error
    return item if isinstance(item, str | float | int) else None


def facts_of(sample: Sample, modalities: Mapping[str, str]) -> set[str]:
    """Return the names that `fact` may be asked for: told by modality, since to look at an item may decode a video."""
    return {*BUILT_IN, *sample.metadata, *(name for name in sample.items if modalities.get(name) == "text")}


def unknown(name: str, known: Iterable[str], option: str) -> InputError:
    """Return the error for a name that no sample has."""
    return InputError(
        f"{option}: no sample has {name!r}: {nearest(name, known)} (a table and a folder keep as metadata what their "
        "option `metadata` names)"
    )


def text_of(value: str | float | None) -> str | None:
    """Return a value as text, whole numbers without a point, so that 7, 7.0 and "7" are the same; None if it is blank.

    NaN is blank.
    """
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def pair_key(keys: Iterable[str]) -> str:
    """Return keys joined by "+", those in them being written %2B (and % %25), so that no two lists have one key."""
    return "+".join(key.replace("%", "%25").replace("+", "%2B") for key in keys)


def tell(text: str) -> None:
    """Tell the user one line, on stderr."""
    print(text, file=sys.stderr)


def count(number: int, noun: str) -> str:
    """Return e.g. "1 sample" or "2,000 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(keys: Iterable[Any]) -> str:
    """Return the first three, as they are written in Python."""
    return ", ".join(map(repr, islice(keys, 3)))
