"""Hugging Face datasets as pairing sources, with random access and as streams; nothing of them is decoded here."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import datasets
import httpx
import numpy as np
import pyarrow as pa

from mmssl_sources.cells import Cells
from mmssl_sources.features import Reader, Taken
from mmssl_sources.shards import Shards
from mmssl_sources.table import cast_to_text, number, parse_weights, read_groups, read_keys, read_metadata, read_weights
from multimodal_ssl import BrokenItem, InputError, Manifest, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.errors import nearest

_ROWS = 64  # read from a stream at a time: pictures may have megabytes
_LOOK = 1024  # looked through at a time for what is there: bytes are not touched
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WRONG = (OSError, ValueError, RuntimeError, ImportError, TypeError, LookupError, datasets.exceptions.DatasetsError,
          httpx.HTTPError, pa.ArrowException)  # fmt: skip


class Options(NamedTuple):
    """Which columns hold what; see `open_hugging_face`."""

    items: Mapping[str, Cells]
    key: str | None
    group: str | None
    weight: str | None
    metadata: Sequence[str]

    @property
    def known(self) -> list[str]:
        """The columns of what is told of a sample."""
        named = (self.key, self.group, self.weight, *self.metadata)
        return list(dict.fromkeys(name for name in named if name is not None))


def open_dataset(
    dataset: str, *, config: str | None, split: str, streaming: bool, columns: Mapping[str, Any], **told: Any
) -> PairingSource:
    """Open a dataset; see `open_hugging_face`."""
    if not columns:
        raise InputError("columns is empty: say which column holds what, e.g. {image: image, text: caption}")
    options = Options({name: Cells.parse(name, given) for name, given in columns.items()}, **told)
    if several := [name for name, cells in options.items.items() if cells.several]:
        raise InputError(f"columns.{several[0]}: `several` is of the source `table`; name one element, such as texts.0")
    folder = Path(dataset).expanduser()
    local = folder.is_dir()
    if folder.is_file():
        raise InputError(f"{dataset} is a file: give the folder that it is in, or read it with the source `table`")
    if not local and not _NAME.fullmatch(dataset):
        raise InputError(f"there is no folder {dataset}, nor can it be the name of a dataset on the hub (OWNER/NAME)")
    saved = local and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    with _quiet():
        if saved:
            rows = _load_saved(folder, config, split, streaming)
        else:
            rows = _load(str(folder) if local else dataset, config, split, streaming, local)
        root = folder if local else None
        return (HuggingFaceStream if streaming else HuggingFace)(rows, where=Path(dataset), root=root, options=options)


@final
class HuggingFace(MapSource):
    """A dataset with random access, whose rows are mapped into memory; see `open_hugging_face`."""

    def __init__(self, rows: Any, *, where: Path, root: Path | None, options: Options) -> None:
        self.modalities = {name: cells.modality for name, cells in options.items.items()}
        if not len(rows):
            raise InputError(f"{where} has no row")
        self._rows = rows.with_format("arrow")
        self._reader = Reader(where, root, rows.features, options.items, options.known)
        present, lengths, told = [], [], []
        for table in self._rows.iter(_LOOK):
            taken = self._reader.take(table)
            present.append(self._reader.present(taken))
            lengths.append(self._reader.measure(taken))
            told.append(self._reader.tell(table))
        self._present = np.concatenate(present)  # [N, M], M being the number of names
        self._lengths = np.where(self._present, np.concatenate(lengths), np.float32(0))
        known = pa.concat_tables(told).combine_chunks()
        numbers = pa.array(np.arange(len(rows)))
        self._keys = numbers.cast(pa.string())
        if options.key is not None:
            self._keys = read_keys(known, options.key, where, numbers)
        self._groups = None if options.group is None else read_groups(known, options.group, where)
        self._weights = None if options.weight is None else read_weights(known, options.weight, where, self._keys)
        self._metadata = {name: read_metadata(known, name, where) for name in options.metadata}

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index].as_py()
        present = list(itertools.compress(self.modalities, self._present[index].tolist()))
        if not present:
            raise UnreadableError(key, f"the row has no {' and no '.join(self.modalities)}")
        taken = self._reader.take(self._rows[index : index + 1])
        return Sample(
            key,
            {name: self._read(name, taken[name], key) for name in present},
            group="" if self._groups is None else self._groups[index].as_py(),
            weight=1.0 if self._weights is None else self._weights[index].item(),
            metadata={name: column[index].as_py() for name, column in self._metadata.items()},
        )

    def manifest(self) -> Manifest:
        return Manifest(self._present, None if self._groups is None else number(self._groups), self._lengths)

    def _read(self, name: str, taken: Taken, key: str) -> Any:
        try:
            return self._reader.read(name, taken, 0)
        except ValueError as error:
            raise UnreadableError(key, f"{name}: {error}") from error


@final
class HuggingFaceStream(Shards):
    """A dataset that is read from the beginnings of its files, one a shard; see `open_hugging_face`.

    Attributes:
        skipped: rows that make no sample (SHARD/ROW), and files whose rest can't be read, as far as they were read.
    """

    def __init__(self, rows: Any, *, where: Path, root: Path | None, options: Options) -> None:
        super().__init__()
        self.modalities = {name: cells.modality for name, cells in options.items.items()}
        self._where, self._options = where, options
        first = self._first(rows, root is not None)
        if rows.features is None:  # of files without types: what the first rows are holds for all
            rows = rows.cast(datasets.Features.from_arrow_schema(first.schema))
            first = self._first(rows, root is not None)
        self._rows = rows.with_format("arrow")
        self.num_shards: int = rows.num_shards
        self._reader = Reader(where, root, rows.features, options.items, options.known)
        self._reader.take(first)
        self._reader.tell(first)

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        row = seen = 0
        for table in self._tables(shard):
            places = [f"{shard}/{number}" for number in range(row, row + len(table))]
            row += len(table)
            taken, told = self._reader.take(table), self._reader.tell(table)
            present = self._reader.present(taken)
            good = self._good(told, present, places)
            late = good[max(start - seen, 0) :]
            seen += len(good)
            if late:
                yield from self._samples(late, taken, told, present, places)

    def _first(self, rows: Any, local: bool) -> pa.Table:
        """Return the first rows; raise InputError if no file has any that can be read."""
        broken: Exception | None = None
        for shard in range(rows.num_shards):
            try:
                for table in rows.shard(rows.num_shards, shard).with_format("arrow").iter(_ROWS):
                    if len(table):
                        return table
            except _WRONG as error:
                broken = broken or error
                if not local:
                    break
        if broken is None:
            raise InputError(f"{self._where} has no row")
        raise _refuse(str(self._where), broken, local) from broken

    def _tables(self, shard: int) -> Iterator[pa.Table]:
        try:
            yield from self._rows.shard(self.num_shards, shard).iter(_ROWS)
        except _WRONG as error:
            if self._reader.root is None:  # another time the hub may give it
                raise InputError(
                    f"{self._where}: the rest of shard {shard} of {self.num_shards} did not come ({_short(error)}): "
                    "run it again, or download the dataset and give its folder"
                ) from error
            self._tell([(str(shard), f"the rest of the file can't be read: {_short(error)}")])

    def _good(self, told: pa.Table, present: np.ndarray, places: Sequence[str]) -> list[int]:
        """Return the rows that make samples, and tell the others."""
        wrong: dict[int, str] = {}
        if self._options.weight is not None:
            weights = parse_weights(told, self._options.weight, self._where)
            wrong |= dict.fromkeys(np.flatnonzero(np.isnan(weights)).tolist(), "its weight is not in (0, 1]")
        if self._options.key is not None:
            keys = cast_to_text(told, self._options.key, self._where).to_pylist()
            wrong |= {row: "it has no key" for row, key in enumerate(keys) if not key}
        nothing = f"the row has no {' and no '.join(self.modalities)}"
        wrong |= dict.fromkeys(np.flatnonzero(~present.any(axis=1)).tolist(), nothing)
        self._tell((places[row], why) for row, why in sorted(wrong.items()))
        return [row for row in range(len(places)) if row not in wrong]

    def _samples(
        self, rows: Sequence[int], taken: Mapping[str, Taken], told: pa.Table, present: np.ndarray, keys: Sequence[str]
    ) -> Iterator[Sample]:
        key, group, weight = self._options.key, self._options.group, self._options.weight
        if key is not None:
            keys = cast_to_text(told, key, self._where).to_pylist()
        groups = None if group is None else read_groups(told, group, self._where).to_pylist()
        weights = None if weight is None else parse_weights(told, weight, self._where).tolist()
        metadata = {name: read_metadata(told, name, self._where).to_pylist() for name in self._options.metadata}
        for row in rows:
            names = itertools.compress(self.modalities, present[row].tolist())
            yield Sample(
                keys[row],
                {name: self._item(name, taken[name], row) for name in names},
                group="" if groups is None else groups[row],
                weight=1.0 if weights is None else weights[row],
                metadata={name: values[row] for name, values in metadata.items()},
            )

    def _item(self, name: str, taken: Taken, row: int) -> Any:
        try:
            return self._reader.read(name, taken, row)
        except ValueError as error:  # told when the sample comes to be used
            return BrokenItem(f"{name}: {error}")


def _load_saved(folder: Path, config: str | None, split: str, streaming: bool) -> Any:
    """Load what save_to_disk wrote: one dataset, or one for each split."""
    if config is not None:
        raise InputError(f"{folder} was written by save_to_disk, which knows no configs: leave out config")
    try:
        rows = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except _WRONG as error:
        raise _refuse(str(folder), error, local=True) from error
    if isinstance(rows, datasets.DatasetDict):
        _check_splits(str(folder), [split], rows)
        rows = rows[split]
    else:
        _check_splits(str(folder), [split], [str(rows.split or "train")])
    if streaming:
        rows = rows.to_iterable_dataset(num_shards=max(1, min(len(rows.cache_files), len(rows))))
    return rows


def _load(dataset: str, config: str | None, split: str, streaming: bool, local: bool) -> Any:
    """Load what load_dataset takes; its versions that run code of the dataset are gone."""
    try:
        try:
            builder = datasets.load_dataset_builder(dataset, config)
        except ValueError as error:
            names = datasets.get_dataset_config_names(dataset)
            if config is None and len(names) > 1:
                raise InputError(f"{dataset} has several configs: give one of {', '.join(names)} as config") from error
            if config is None or config in names:
                raise
            raise InputError(f"{dataset} has no config {config!r}: {nearest(config, names)}") from error
        asked = [part.partition("[")[0].strip() for part in split.split("+")]
        if streaming:
            if asked != [split]:
                raise InputError(f"split is {split!r}, but a stream is a whole split: give its name alone")
            streams = builder.as_streaming_dataset(split=None)
            _check_splits(dataset, asked, streams)
            return streams[split]
        # Asked before all is downloaded, if that is told, and after it, when it must be known.
        if builder.info.splits or builder.config.data_files:
            _check_splits(dataset, asked, builder.info.splits or builder.config.data_files)
        builder.download_and_prepare()
        _check_splits(dataset, asked, builder.info.splits or ())
        return builder.as_dataset(split=split)
    except InputError:
        raise
    except _WRONG as error:
        raise _refuse(dataset, error, local) from error


def _check_splits(dataset: str, asked: Sequence[str], known: Iterable[Any]) -> None:
    names = list(map(str, known))  # some are a NamedSplit, which is no str
    for name in asked:
        if name not in names:
            raise InputError(f"{dataset} has no split {name!r}: {nearest(name, names)}")


def _refuse(dataset: str, error: Exception, local: bool) -> InputError:
    """Return the error that says that a dataset can't be had, and what to do."""
    if local:
        return InputError(
            f"the folder {dataset} can't be read as a dataset ({_short(error)}): it must hold files of one kind that "
            "load_dataset takes, such as Parquet, JSON or CSV, or be written by save_to_disk"
        )
    return InputError(
        f"the hub does not give the dataset {dataset!r} ({_short(error)}): check its name and the network, or download "
        f"it elsewhere (hf download {dataset} --repo-type dataset --local-dir FOLDER) and give that folder as dataset"
    )


def _short(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetsError) and error.__cause__ else error
    return textwrap.shorten(f"{type(error).__name__}: {cause}", 300)


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no progress bars."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
