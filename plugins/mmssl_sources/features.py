"""The columns of a Hugging Face dataset, undecoded: fields by dots, labels by name, pictures and sounds as bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmssl_sources.cells import Cells
from multimodal_ssl import InputError, LazyItem
from multimodal_ssl.errors import nearest

_ON_HUB = re.compile(r"((zip|tar)://.*::)?hf://datasets/.*", re.DOTALL)
_IN_ARCHIVE = re.compile(r"(zip|tar)://.*::[^:]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Link(LazyItem):
    """A file on the hub, or a member of an archive."""

    url: str

    def read(self) -> bytes:
        try:
            with fsspec.open(self.url, "rb") as file:
                found: bytes = file.read()
        except (OSError, ValueError):
            raise
        except Exception as error:  # archives and the hub's client raise errors of many kinds of their own
            raise ValueError(f"{self.url} can't be read: {type(error).__name__}: {error}") from error
        return found


class Taken(NamedTuple):
    """The columns that make the items of one name; of media they are two: bytes and paths."""

    columns: list[pa.ChunkedArray]
    media: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """What a table of the dataset's rows makes of samples.

    Attributes:
        where: the dataset, for errors.
        root: its folder, None if it is on the hub.
        features: column -> feature, of the library datasets.
        items: name of the items -> which cells make them.
        known: columns of what is told of a sample.
    """

    where: Path
    root: Path | None
    features: Mapping[str, Any]
    items: Mapping[str, Cells]
    known: Sequence[str]

    def tell(self, table: pa.Table) -> pa.Table:
        """Return the columns of what is told of a sample, labels by their names."""
        return pa.table({name: self._name_labels(*self._find(table, name), name) for name in self.known})

    def take(self, table: pa.Table) -> dict[str, Taken]:
        """Return the columns of each name of items; raise InputError if one can't be that."""
        return {name: self._take(table, cells) for name, cells in self.items.items()}

    def present(self, taken: Mapping[str, Taken]) -> np.ndarray:
        """Return which items the rows have, [N, M] (bool)."""
        found = [
            np.any([self.items[name].find(column) for column in one.columns], axis=0) for name, one in taken.items()
        ]
        return np.column_stack(found)

    def measure(self, taken: Mapping[str, Taken]) -> np.ndarray:
        """Return how long the items are, [N, M]: as in a table; of media, bytes."""
        lengths = [
            self.items[name].measure(one.columns[:1] if one.media else one.columns) for name, one in taken.items()
        ]
        return np.column_stack(lengths).astype(np.float32)

    def read(self, name: str, taken: Taken, row: int) -> Any:
        """Return what Modality.load takes; raise ValueError if it is not to be had."""
        cells = [column[row] for column in taken.columns]
        if taken.media:
            body, path = (cell.as_py() for cell in cells)
            return body or locate(path, self.root)
        item = self.items[name].read(cells, Path(), None)
        return locate(str(item), self.root) if isinstance(item, Path) else item

    def _take(self, table: pa.Table, cells: Cells) -> Taken:
        taken = []
        for name in cells.columns:
            column, feature = self._find(table, name)
            kind = column.type
            if is_media(kind) and not cells.stacked and not cells.row:
                return Taken([pc.struct_field(column, "bytes"), pc.struct_field(column, "path")], media=True)
            if cells.modality == "text" or cells.row:
                column = self._name_labels(column, feature, name)
            if pa.types.is_null(kind):
                raise InputError(f"{self.where}: column {name!r} is empty, or in a stream its first rows are")
            if cells.modality == "text" and is_list(kind):
                raise InputError(
                    f"{self.where}: column {name!r} can't be {cells.name!r}: it holds lists of texts{_hint(name, kind)}"
                )
            try:
                taken.append(cells.check(column))
            except ValueError as error:
                raise InputError(
                    f"{self.where}: column {name!r} can't be {cells.name!r}: {error}{_hint(name, kind)}"
                ) from error
        return Taken(taken, media=False)

    def _find(self, table: pa.Table, name: str) -> tuple[pa.ChunkedArray, Any]:
        """Return a column, or a field of it, and its feature; names are tried whole before they are cut at dots."""
        parts = name.split(".")
        heads = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        head = next((one for one in heads if one in self.features), None)
        if head is None:
            raise InputError(f"{self.where} has no column {name!r}: {nearest(heads[-1], list(self.features))}")
        column, feature = plain(table[head]), self.features[head]
        for part in parts[head.count(".") + 1 :]:
            kind = column.type
            if pa.types.is_struct(kind):
                names = [field.name for field in kind]
                if part not in names:
                    raise InputError(f"{self.where}: {name!r}: there is no field {part!r}: {nearest(part, names)}")
                column = pc.struct_field(column, part)
                feature = feature.get(part) if isinstance(feature, Mapping) else None
            elif is_list(kind) and part.isdecimal():
                # Slices of a fixed size are filled with nulls where the lists are shorter.
                place = int(part)
                column = pc.list_element(pc.list_slice(column, place, place + 1, 1, True), 0)
                feature = getattr(feature, "feature", None)
            else:
                raise InputError(f"{self.where}: {name!r}: {head!r} holds {kind}, which has no field {part!r}")
            column = plain(column)
        return column, feature

    def _name_labels(self, column: pa.ChunkedArray, feature: Any, name: str) -> pa.ChunkedArray:
        """Return a column of labels as their names; -1, which stands for none, as null."""
        if not isinstance(feature, datasets.ClassLabel) or not feature.names:
            return column
        numbers = pc.if_else(pc.equal(column, -1), pa.scalar(None, column.type), column)
        try:
            return pa.chunked_array([pc.take(pa.array(feature.names, pa.string()), one) for one in numbers.chunks])
        except pa.ArrowIndexError as error:
            raise InputError(
                f"{self.where}: column {name!r} has a label of {pc.max(column)}, but only {len(feature.names)} names"
            ) from error


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of the types that Arrow computes with."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # Array2D and its kin
        return pa.chunked_array([one.storage for one in column.chunks], kind.storage_type)
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    return column


def is_media(kind: pa.DataType) -> bool:
    """Tell whether cells hold a file as its bytes or its path, as the features Image, Audio and Video do."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind} == {"bytes", "path"}


def is_list(kind: pa.DataType) -> bool:
    """Tell whether cells are lists, of whatever length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def locate(value: str, root: Path | None) -> Path | Link:
    """Return the file that a cell names; raise ValueError if the dataset, in root or on the hub, can't have it."""
    if (_ON_HUB if root is None else _IN_ARCHIVE).fullmatch(value):
        return Link(value)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", value):  # two letters or more: C: is a disk
        raise ValueError(f"URLs are not fetched: download {value} and put the file's path or bytes here")
    if root is not None:
        return root / value
    # What is on the hub is not trusted: it could name any file of this machine.
    path = Path(value)
    caches = (
        datasets.config.HF_CACHE_HOME,
        datasets.config.HF_DATASETS_CACHE,
        datasets.config.DOWNLOADED_DATASETS_PATH,
    )
    if path.is_absolute() and ".." not in path.parts and any(path.is_relative_to(cache) for cache in caches):
        return path
    raise ValueError(f"it has no bytes, but names the file {value}, which did not come with the dataset from the hub")


def _hint(name: str, kind: pa.DataType) -> str:
    if is_list(kind):
        return (
            f"; of a list name one element ({name}.0 is the first), or make each a row of its own and let group tell "
            "which belong together"
        )
    if pa.types.is_struct(kind):
        return f"; name one of its fields: {', '.join(f'{name}.{field.name}' for field in kind)}"
    return ""
