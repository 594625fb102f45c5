"""Pairing sources for data as it lies around."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from multimodal_ssl import InputError, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register


def open_table(  # not `table`: the import of the module of that name would take its place in this package
    *,
    path: Path,
    columns: dict[str, str | dict[str, Any]],
    key: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    metadata: Sequence[str] = (),
    where: dict[str, Any] | None = None,
    root: Path | None = None,
    limit: Annotated[int, Ge(1)] | None = None,
) -> PairingSource:
    """A CSV, TSV, JSONL or Parquet file (by its suffix), one sample a row.

    A cell is bytes, a number, a list of numbers (nested: [C, T]) or a string. A string is itself for the modality
    ``text``; for others it is a list if it begins with "[" (JSON), else a path. Cells that are null, NaN, blank or an
    empty list hold no item. All cells of CSV and TSV are strings.

    Args:
        columns: name of the items -> column; or {column, modality, path}, where modality is the name of the items if
            not given, and path says whether strings are paths; or {columns, modality}, where the columns become the
            channels of one float32 array [C, T], nulls being NaN.
        key: column of unique keys. If not given, the key is the number of the row in the file: 0 is the first below
            the header, rows that can't be parsed count too, blank lines don't.
        group: column of groups.
        weight: column of weights in (0, 1].
        metadata: columns of what else is known of a row, such as its licence: an audit tells the rate of each value.
        where: column -> the value, or the list of values, that a row must have to be used.
        root: folder that paths start from; the file's own if not given.
        limit: use only the first so many of these rows.
    """
    from mmssl_sources.table import Table

    return Table(
        path=path, columns=columns, key=key, group=group, weight=weight, metadata=metadata, where=where, root=root,
        limit=limit,
    )  # fmt: skip


def open_folder(
    *,
    path: Path,
    items: dict[str, str | list[str]],
    modalities: dict[str, str] | None = None,
    sidecar: str = ".json",
    fields: dict[str, str] | None = None,
    metadata: Sequence[str] = (),
    label: str | None = None,
    group: Literal["folder"] | None = None,
    limit: Annotated[int, Ge(1)] | None = None,
) -> PairingSource:
    """A folder with all that lies below it: files that share a path but for the suffix are one sample.

    The key is that path. Capitals in suffixes don't matter, and of two that fit the longer counts. Hidden files and
    links out of the folder are left out.

    Args:
        items: name of the items -> suffix, or list of suffixes, such as {image: [.jpg, .png], text: .txt}.
        modalities: name of the items -> modality, where it is not the name itself.
        sidecar: suffix of the JSON object beside each file, for `fields` and `metadata`.
        fields: name of the items -> field of that JSON that is their text.
        metadata: fields of that JSON that are kept as what else is known of the sample.
        label: name of the items that the name of the folder becomes, - and _ being blanks, such as text.
        group: "folder" makes all samples of a folder a group; so does label.
        limit: use only the first so many, in the order of their keys.
    """
    from mmssl_sources.folder import Folder

    return Folder(
        path=path,
        items={name: [given] if isinstance(given, str) else given for name, given in items.items()},
        modalities=modalities or {},
        sidecar=sidecar,
        fields=fields or {},
        metadata=metadata,
        label=label,
        group_by_folder=label is not None or group == "folder",
        limit=limit,
    )


def open_webdataset(
    *,
    path: str | list[str],
    items: dict[str, str | list[str]],
    modalities: dict[str, str] | None = None,
    sidecar: str = "json",
    fields: dict[str, str] | None = None,
    metadata: Sequence[str] = (),
    group: str | None = None,
    stream: bool | None = None,
) -> PairingSource:
    """Tar archives (WebDataset): members that follow each other and share a name up to its first dot are one sample.

    Archives on this machine are looked through once, and then read at random: shuffled as a whole, resumed at once.
    Compressed ones, and those at other addresses (s3://, https://, ... whatever fsspec knows), are streams: shards in
    another order in each epoch, eight read in turns, shuffled in blocks. Keys are ARCHIVE/NAME. Nothing is extracted;
    links and pickles are left out.

    Args:
        path: pattern of the archives, or several: data/train-{000..099}.tar, s3://bucket/*.tar.
        items: name of the items -> extension, or list of extensions, such as {image: [jpg, png], text: txt}.
        modalities: name of the items -> modality, where it is not the name itself.
        sidecar: extension of the JSON object of each sample, for `fields`, `metadata` and `group`.
        fields: name of the items -> field of that JSON that is their text.
        metadata: fields of that JSON that are kept as what else is known of the sample.
        group: field of that JSON that tells the group.
        stream: true reads archives on this machine as streams, too, such as on a disk that is slow at random.
    """
    from mmssl_sources.addresses import expand, is_local
    from mmssl_sources.webdataset import TarStream, WebDataset, parse_layout

    paths = expand([path] if isinstance(path, str) else path)
    names, layout = parse_layout(items, modalities or {}, sidecar, fields or {}, group, metadata)
    random = all(is_local(one) and one.lower().endswith(".tar") for one in paths)
    if stream or (stream is None and not random):
        return TarStream(paths, modalities=names, layout=layout)
    if not random:
        raise InputError("stream is false, but only archives on this machine that end in .tar are read at random")
    return WebDataset(paths, modalities=names, layout=layout)


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("folder", open_folder)
    register("table", open_table)
    register("webdataset", open_webdataset)
