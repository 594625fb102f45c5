"""Tar shards as a pairing source (WebDataset): members of one name but for the extension are one sample."""

from __future__ import annotations

import itertools
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeVar, final

import numpy as np
import pyarrow as pa

from mmssl_sources.addresses import open_stream, shard_names
from mmssl_sources.shards import Shards
from mmssl_sources.sidecar import parse_object, plain_of, text_of
from mmssl_sources.tars import BLOCK, Member, members, sums_up
from multimodal_ssl import BrokenItem, InputError, LazyItem, Manifest, MapSource, Sample, UnreadableError
from multimodal_ssl.data import attempt, number_groups
from multimodal_ssl.errors import nearest

PICKLES = ("pkl", "pickle", "pyd", "pth", "pt", "joblib")
LARGEST = 1 << 30  # bytes of a member: it is held in memory

Part = TypeVar("Part")
Owner = str | None  # the name of items, or None: the JSON beside them


class Layout(NamedTuple):
    """Which members make which items.

    Attributes:
        owners: extension -> whose it is.
        fields: name of the items -> field of the JSON that is their text.
        group: field of the JSON that tells the group.
        metadata: fields of the JSON that are kept.
    """

    owners: Mapping[str, Owner]
    fields: Mapping[str, str]
    group: str | None
    metadata: Sequence[str]


def parse_layout(
    items: Mapping[str, str | list[str]],
    modalities: Mapping[str, str],
    sidecar: str,
    fields: Mapping[str, str],
    group: str | None,
    metadata: Sequence[str],
) -> tuple[dict[str, str], Layout]:
    """Return the modality of each name of items, and the layout; raise InputError if the options contradict."""
    pairs: list[tuple[str, Owner]] = []
    for name, given in items.items():
        pairs += [(extension, name) for extension in ([given] if isinstance(given, str) else given)]
    if fields or group or metadata:
        pairs.append((sidecar, None))
    owners: dict[str, Owner] = {}
    for extension, owner in pairs:
        small = extension.lower().removeprefix(".")
        if not small or "/" in small:
            raise InputError(f"{extension!r} is no extension such as 'jpg'")
        if small.rpartition(".")[2] in PICKLES:
            raise InputError(f"{extension!r}: pickles are never loaded, because they could run anything")
        if small in owners:
            raise InputError(f"the extension {extension!r} is given twice: each belongs to one name of items")
        owners[small] = owner
    names = [*items, *fields]
    if not names:
        raise InputError("items is empty: say which extension holds what, e.g. {image: [jpg, png], text: txt}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{repeated[0]!r} is given by items and by fields")
    for name in modalities:
        if name not in names:
            raise InputError(f"modalities: there is no {name!r}: {nearest(name, names)}")
    return {name: modalities.get(name, name) for name in names}, Layout(owners, fields, group, metadata)


@dataclass(frozen=True, slots=True)
class Slice(LazyItem):
    """A member of an archive on this machine."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.path, "rb", buffering=0) as file:
            header = os.pread(file.fileno(), BLOCK, self.offset - BLOCK)
            found = os.pread(file.fileno(), self.size, self.offset)
        if len(found) < self.size or not sums_up(header):
            raise ValueError(f"{self.path} has changed since it was opened")
        return found


@final
class WebDataset(MapSource):
    """Tars on this machine, whose members are found once and then read at random; see `open_webdataset`."""

    def __init__(self, paths: Sequence[str], *, modalities: Mapping[str, str], layout: Layout) -> None:
        self.modalities, self._layout, self._paths = modalities, layout, paths
        self.skipped = self._skipped = list[tuple[str, str]]()
        self._places = places = {owner: place for place, owner in enumerate(dict.fromkeys(layout.owners.values()))}
        keys: list[str] = []
        rows = array("q")
        absent = [0, -1] * len(places)
        for shard, (path, name) in enumerate(zip(paths, shard_names(paths), strict=True)):
            with open_archive(path) as (file, length):
                for key, parts in samples(file, name, layout, self._skipped, _itself, length=length):
                    row = [shard, *absent]
                    for owner, member in parts.items():
                        at = 1 + 2 * places[owner]
                        row[at : at + 2] = member.offset, member.size
                    keys.append(key)
                    rows.extend(row)
        if not keys:
            raise InputError(_nothing(paths, layout, self._skipped))
        self._keys = pa.array(keys)  # one block of memory, which forked workers share
        found = np.frombuffer(rows, np.int64).reshape(len(keys), -1)
        self._shards, self._members = found[:, 0].astype(np.int32), found[:, 1:].reshape(len(keys), -1, 2)
        self._groups = [""] * len(keys)
        if layout.group:
            for number, sample in attempt(self):
                self._groups[number] = sample.group if isinstance(sample, Sample) else ""

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key, path = self._keys[index].as_py(), self._paths[self._shards[index]]
        spans = zip(self._places, self._members[index].tolist(), strict=True)
        parts = {owner: Slice(path, offset, size) for owner, (offset, size) in spans if size >= 0}
        try:
            return _sample(key, parts, self._layout)
        except ValueError as error:
            raise UnreadableError(key, str(error)) from error

    def manifest(self) -> Manifest:
        sizes = self._members[:, :, 1]
        columns = [sizes[:, self._places[None if name in self._layout.fields else name]] for name in self.modalities]
        size = np.column_stack(columns)
        for place, name in enumerate(self.modalities):
            if name in self._layout.fields:
                size[:, place] = np.minimum(size[:, place], 0)  # how long a field is, is not known
        group = number_groups(self._groups) if self._layout.group else None
        return Manifest(size >= 0, group, np.maximum(size, 0).astype(np.float32))


@final
class TarStream(Shards):
    """Tars that are read from their beginning, one a shard; see `open_webdataset`."""

    def __init__(self, paths: Sequence[str], *, modalities: Mapping[str, str], layout: Layout) -> None:
        super().__init__()
        self.modalities, self._layout, self._paths = modalities, layout, paths
        self.num_shards, self._names = len(paths), shard_names(paths)

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        path, name = self._paths[shard], self._names[shard]
        skipped: list[tuple[str, str]] = []
        try:
            with open_stream(path) as file:

                def take(member: Member) -> bytes | None:
                    found = file.read(member.size)
                    return found if len(found) == member.size else None

                for key, parts in samples(file, name, self._layout, skipped, take, start=start):
                    self._tell(skipped)
                    skipped.clear()
                    try:
                        sample = _sample(key, parts, self._layout)
                    except ValueError as error:
                        sample = Sample(key, dict.fromkeys(self.modalities, BrokenItem(str(error))))
                    yield sample
        except OSError as error:
            skipped.append((name, f"the archive is broken: {error}"))
        self._tell(skipped)


@contextmanager
def open_archive(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open an archive on this machine and tell its length; raise InputError if it can't be read."""
    try:
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error


def samples(
    file: BinaryIO,
    shard: str,
    layout: Layout,
    skipped: list[tuple[str, str]],
    take: Callable[[Member], Part | None],
    *,
    length: int | None = None,
    start: int = 0,
) -> Iterator[tuple[str, dict[Owner, Part]]]:
    """Yield key and parts of each sample in an archive from the start-th on: members that follow each other by name.

    Args:
        skipped: what is wrong is added here.
        take: what becomes a part, None if the archive ends within it; called once the reading has come to the member.
    """
    number, stem, parts = 0, "", dict[Owner, Part | None]()
    keys: Counter[str] = Counter()

    def whole() -> Iterator[tuple[str, dict[Owner, Part]]]:
        """Yield what the parts make, if they make a sample."""
        nonlocal number
        if not layout.fields and parts.keys() == {None}:
            skipped.append((f"{shard}/{stem}", "there is nothing but its JSON"))
        elif parts:
            key = stem
            while keys[key]:  # a name that comes again
                keys[stem] += 1
                key = f"{stem}#{keys[stem]}"
            keys[key] += 1
            number += 1
            if number > start:
                yield f"{shard}/{key}", {owner: part for owner, part in parts.items() if part is not None}

    for member in members(file, length):
        place, slash, base = member.name.rpartition("/")
        first, dot, extension = base.partition(".")
        extension = extension.lower()
        if member.wrong:
            skipped.append((f"{shard}/{member.name}", member.wrong))
            continue
        if not first or not dot:  # hidden, or without extension: it has no part in any sample
            continue
        if place + slash + first != stem:
            yield from whole()
            stem, parts = place + slash + first, {}
        owner = layout.owners.get(extension, "")
        if extension.rpartition(".")[2] in PICKLES:
            wrong = "it is a pickle, which could run anything: never loaded"
        elif owner == "":
            continue
        elif owner in parts:
            wrong = f"there is another {owner or 'JSON'} of {stem} before it"
        elif member.size > LARGEST:
            wrong = f"it has {member.size:,} bytes, more than {LARGEST:,}"
        elif number < start:
            parts[owner] = None
            continue
        elif (part := take(member)) is not None:
            parts[owner] = part
            continue
        else:
            skipped.append((f"{shard}/{member.name}", "the archive ends within it"))
            break
        skipped.append((f"{shard}/{member.name}", wrong))
    yield from whole()
    if not keys:
        skipped.append((shard, "it holds no sample"))


def _sample(key: str, parts: Mapping[Owner, Any], layout: Layout) -> Sample:
    """Return the sample of these parts; raise ValueError if what its JSON should tell is not to be had."""
    items = {owner: part for owner, part in parts.items() if owner is not None}
    known: Mapping[str, Any] = {}
    if None in parts and (layout.fields or layout.group or layout.metadata):
        body = parts[None]
        try:
            known = parse_object(body.read() if isinstance(body, LazyItem) else body)
        except (OSError, ValueError) as error:
            raise ValueError(f"its JSON can't be read: {error}") from error
        items |= {name: text_of(known, field) for name, field in layout.fields.items()}
    group = "" if layout.group is None or known.get(layout.group) is None else text_of(known, layout.group)
    return Sample(key, items, group, metadata={name: plain_of(known, name) for name in layout.metadata})


def _itself(member: Member) -> Member:
    return member


def _nothing(paths: Sequence[str], layout: Layout, skipped: Sequence[tuple[str, str]]) -> str:
    """Say that no sample was found, and what there is instead."""
    found: Counter[str] = Counter()
    for path in paths[:8]:
        with open_archive(path) as (file, length):
            names = (one.name.rpartition("/")[2] for one in members(file, length) if not one.wrong)
            found.update(name.partition(".")[2] for name in itertools.islice(names, 1000))
    has = ", ".join(f"{count} {extension or 'without'}" for extension, count in found.most_common(6)) or "no files"
    wrong = f"; {len(skipped)} are wrong, e.g. {': '.join(skipped[0])}" if skipped else ""
    return f"{paths[0]} has no member of the extensions {', '.join(layout.owners)}; what it has: {has}{wrong}"
