"""Pairing sources for data as it lies around."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from multimodal_ssl import InputError, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register

Voice = Literal["alt", "figcaption", "title", "near"]


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
    urls: dict[str, Any] | None = None,
) -> PairingSource:
    """A CSV, TSV, JSONL or Parquet file (by its suffix), one sample a row.

    A cell is bytes, a number, a list of numbers (nested: [C, T]) or a string. A string is itself for the modality
    ``text``; for others it is a list if it begins with "[" (JSON), else a path. Cells that are null, NaN, blank or an
    empty list hold no item. All cells of CSV and TSV are strings.

    A column that holds JSON, an object or a list can be looked into, wherever a column is named: ``meta.caption``,
    ``meta.tags.0``. A column of that very name comes first. Rows whose JSON is broken are skipped.

    Args:
        columns: name of the items -> column; or {column, modality, path}, where modality is the name of the items if
            not given, and path says whether strings are paths; or {columns, modality}, where the columns become the
            channels of one float32 array [C, T], nulls being NaN, or, for the modality ``tabular``, the cells of one
            row, numbers and strings, nulls being missing. Where a row has several texts, {column, modality: text,
            several} takes those of a list (a string that begins with "[" is one in JSON), and {columns, modality: text,
            several} those of several columns. Of these `several: first` takes the first, and `several: each` makes a
            sample of each, with the keys KEY#0, KEY#1, ...; they have the group of the row, or its key for one.
        key: column of unique keys. If not given, the key is the number of the row in the file: 0 is the first below
            the header, rows that can't be parsed count too, blank lines don't.
        group: column of groups.
        weight: column of weights in (0, 1].
        metadata: columns of what else is known of a row, such as its licence: an audit tells the rate of each value.
        where: column -> the value, or the list of values, that a row must have to be used.
        root: folder that paths start from; the file's own if not given.
        limit: use only the first so many of these rows.
        urls: fetch http and https addresses among the paths when they are used: {timeout: 10, max_bytes: 20000000,
            hosts, private: false}, {} being these values. timeout are the seconds for a file; hosts are those to ask,
            any if not given; private allows addresses that aren't public. If not given, nothing is fetched.
    """
    from mmssl_sources.table import Table

    return Table(
        path=path, columns=columns, key=key, group=group, weight=weight, metadata=metadata, where=where, root=root,
        limit=limit, urls=urls,
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


def open_html(
    *,
    path: Path,
    voice: Voice | list[Voice],
    min_words: Annotated[int, Ge(1)] = 1,
    max_words: Annotated[int, Ge(1)] | None = None,
    skip: list[str] | None = None,
    metadata: list[Literal["title", "page", "voice", "charset"]] | None = None,
    max_page_mb: Annotated[float, Gt(0)] = 20,
    max_data_mb: Annotated[float, Gt(0)] = 5,
    limit: Annotated[int, Ge(1)] | None = None,
) -> PairingSource:
    """Saved web pages: one sample for each picture of a page that has a text; the items are ``image`` and ``text``.

    `path` is a page, or a folder with all pages below it. The key is PAGE#PICTURE, by their paths, whatever voice
    speaks: sources that differ in nothing but `voice` have the same keys, so that `vote: true` can weigh them. The
    group is the picture: the same file, or the same bytes, on many pages is one. Of srcset, `<picture>` and what is
    loaded lazily the largest that is there is taken. Pictures elsewhere are not fetched, and nothing out of the folder
    (of the page, if `path` is one) is read. Hidden and decorative pictures (alt="") are left out. A page that is no
    UTF-8 is read in the charset that it declares, else as latin-1, and that is told.

    The nearest text is that of the paragraph around the picture, which is the innermost block that it is in (such as
    p, li, td or div), else the first further out that holds no other picture; the text of a block is what is in it and
    in no other block. If there is none, it is the heading before the picture or the heading or paragraph after it, none
    of them with another picture or paragraph between: the one that shares the inner element with the picture, at a tie
    the heading before it.

    Args:
        voice: which text: `alt`, `figcaption`, `title` (of the picture, else of its link), `near`, or a list: the first
            of them that there is and that can be taken.
        min_words: of a text; one of fewer is not taken.
        max_words: of a text; one of more is not taken.
        skip: regular expressions of whole texts that say nothing; if not given, such as "image" and "IMG_1234.jpg".
        metadata: what is kept as what else is known: the page's title, its path, the voice, its charset.
        max_page_mb: larger pages are skipped.
        max_data_mb: larger pictures in data: URIs are skipped; others are kept in memory.
        limit: use only the first so many, in the order of the pages.
    """
    from mmssl_sources.html import BOILERPLATE, Html

    return Html(
        path=path,
        voice=[voice] if isinstance(voice, str) else voice,
        min_words=min_words,
        max_words=max_words,
        skip=BOILERPLATE if skip is None else skip,
        metadata=metadata or (),
        max_page=int(max_page_mb * 1e6),
        max_data=int(max_data_mb * 1e6),
        limit=limit,
    )


def open_streams(
    *,
    streams: dict[str, list[str] | dict[str, Any]],
    window: float | str,
    stride: float | str | None = None,
    path: Path | None = None,
    time: str | list[str] | None = None,
    unit: Literal["ns", "us", "ms", "s", "min", "h", "d"] = "s",
    format: str | None = None,
    zone: str | None = None,
    step: float | str | None = None,
    rate: Annotated[float, Gt(0)] | None = None,
    resample: Literal["nearest", "linear", "mean"] = "nearest",
    tolerance: float | str | None = None,
    max_missing: Annotated[float, Ge(0), Le(1)] = 0.5,
    by: str | list[str] | None = None,
    where: dict[str, Any] | None = None,
    missing: list[float] | None = None,
    repeated: Literal["mean", "first", "last"] | None = None,
    start: float | datetime | date | str | None = None,
    end: float | datetime | date | str | None = None,
    group: Literal["time", "place"] | None = None,
) -> PairingSource:
    """Sensors with clocks and rates of their own: windows of the same time and place are samples.

    An item is a float32 array [C, T] on a regular grid, missing values being NaN; the key is PLACE/START. Readings may
    be out of order; those of one place and time count as one. Durations are seconds, or texts such as 48h or 500ms.

    Args:
        streams: name of the items -> list of columns, its channels; or {columns, ...} with options of its own: modality
            (series, if not given), offset (a duration added to its clock), and any of path to repeated below, which
            hold for all streams that don't say otherwise.
        window: how long one is.
        stride: from the start of one to that of the next; the window itself, if not given.
        path: CSV, TSV, JSONL or Parquet file (by its suffix), one reading a row.
        time: column of times: numbers, or ISO 8601; or a list of columns: date and time of day, or year, month, day,
            hour, minute, second (three or more).
        unit: of times that are numbers.
        format: of times that are other texts, e.g. "%d.%m.%Y %H:%M".
        zone: of times that name none, e.g. Europe/Berlin: hours that exist twice or never, as clocks are changed, are
            left out and told. If not given, they are taken as those of a clock that is never changed.
        step: from one grid point to the next; the usual one between readings, if neither it nor rate is given.
        rate: grid points a second.
        resample: nearest reading; linear between the one before and the one after; mean of all from tolerance before
            to just before tolerance after a grid point.
        tolerance: how far a reading may be from a grid point to count; half a step, for linear a step, if not given.
        max_missing: share of missing values above which a window lacks the item; so it does without any value.
        by: column, or columns, that tell places or machines apart; [] for a stream that belongs to all of them.
        where: column -> the value, or the list of values, that a row must have to be used.
        missing: numbers that stand for a missing value, such as -999.
        repeated: what counts of readings of the same place and time; their mean, if not given, but if they are more
            than half of all, it must be.
        start: only readings from then on count, and the first window begins there: seconds or ISO 8601, of `zone`. If
            not given, it is the first reading's time, rounded down to a whole step.
        end: only readings before then count, and windows that are over by then.
        group: "time" makes windows that start together a group, "place" those of a place.
    """
    from mmssl_sources.streams import Streams

    common = {
        "path": path, "time": time, "unit": unit, "format": format, "zone": zone, "step": step, "rate": rate,
        "resample": resample, "tolerance": tolerance, "max_missing": max_missing, "by": by, "where": where,
        "missing": missing, "repeated": repeated,
    }  # fmt: skip
    return Streams(
        streams=streams,
        common={name: value for name, value in common.items() if value is not None},
        window=window,
        stride=stride,
        start=start,
        end=end,
        group=group,
    )


def open_hugging_face(
    *,
    dataset: str,
    columns: dict[str, str | dict[str, Any]],
    config: str | None = None,
    split: str = "train",
    key: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    metadata: Sequence[str] = (),
    streaming: bool = False,
) -> PairingSource:
    """A Hugging Face dataset, one sample a row.

    Pictures and sounds are taken undecoded. Labels (ClassLabel) are their names for the modality ``text``, in the cells
    of ``tabular`` and in what is told of a row. Fields and elements of lists are columns, too: image.bytes, captions.0.
    Cells that are null, NaN, blank or an empty list hold no item, nor does the label -1. Code of a dataset is never
    run.

    Args:
        dataset: name on the hub, or a folder: one that save_to_disk wrote, or one of files that load_dataset takes
            (Parquet, JSON, CSV, pictures, ...), which it copies to its cache unless they are streamed.
        columns: name of the items -> column; or {column, modality, path} or {columns, modality} as in ``table``. Paths
            start from the folder.
        config: of a dataset that has several.
        split: such as train; train[:1000] or train+test, too, if it is neither streamed nor written by save_to_disk.
        key: column of unique keys; that they are, is not checked in a stream. If not given, the key is the number of
            the row, from 0; in a stream SHARD/ROW.
        group: column of groups.
        weight: column of weights in (0, 1].
        metadata: columns of what else is known of a row, such as its licence: an audit tells the rate of each value.
        streaming: true reads the files as they come, each a shard, and downloads nothing ahead: in another order in
            each epoch, eight read in turns, shuffled in blocks. Rows that make no sample are told and left out.
    """
    from mmssl_sources.hugging_face import open_dataset

    return open_dataset(
        dataset, config=config, split=split, streaming=streaming, columns=columns, key=key, group=group, weight=weight,
        metadata=metadata,
    )  # fmt: skip


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("folder", open_folder)
    register("hf-dataset", open_hugging_face)
    register("html", open_html, modalities=("image", "text"))
    register("streams", open_streams, modalities=("series",))
    register("table", open_table)
    register("webdataset", open_webdataset)
