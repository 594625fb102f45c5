"""A folder as a pairing source: files that share a path but for the suffix are one sample."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, final

import numpy as np

from mmssl_sources.sidecar import parse_object, plain_of, text_of
from mmssl_sources.walk import walk
from multimodal_ssl import InputError, Manifest, MapSource, Sample
from multimodal_ssl.data import number_groups
from multimodal_ssl.errors import UnreadableError, nearest


@final
class Folder(MapSource):
    """Files that share a stem, see the plugin's `open_folder`."""

    def __init__(
        self,
        *,
        path: Path,
        items: Mapping[str, Sequence[str]],
        modalities: Mapping[str, str],
        sidecar: str,
        fields: Mapping[str, str],
        metadata: Sequence[str],
        label: str | None,
        group_by_folder: bool,
        limit: int | None,
    ) -> None:
        owners = _owners(items, sidecar if fields or metadata else None)
        names = [*items, *fields, *([label] if label else [])]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(f"{repeated[0]!r} is given more than once by items, fields and label")
        for name in modalities:
            if name not in names:
                raise InputError(f"modalities: there is no {name!r}: {nearest(name, names)}")
        self.modalities = {name: modalities.get(name, name) for name in names}
        self._root, self._items, self._fields, self._metadata = path, tuple(items), dict(fields), tuple(metadata)
        self._label, self._group_by_folder = label, group_by_folder
        self.skipped = self._skipped = list[tuple[str, str]]()
        rows, self._spellings = self._scan(owners, [*items, None])
        self._keys = sorted(rows)[:limit]
        # Which spelling of its suffix each file has, [N, M + 1], the sidecar's last; 0 where there is none.
        self._files = np.frombuffer(b"".join(rows[key].tobytes() for key in self._keys), np.uint16).reshape(
            -1, len(items) + 1
        )
        has = self._files > 0
        in_folder = np.array(["/" in key for key in self._keys])
        columns = [*has[:, :-1].T, *[has[:, -1]] * len(fields), *([in_folder] if label else [])]
        self._present = np.column_stack(columns)  # [N, number of names]
        if len(names) > 1 and self._present.sum(1).max() < 2:
            raise InputError(
                f"{path}: no two files differ in their suffix alone, so that there is no pair; the first are "
                + ", ".join(repr(self._path(row, place).name) for row, place in np.argwhere(has)[:3].tolist())
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key, present = self._keys[index], tuple(compress(self.modalities, self._present[index].tolist()))
        items: dict[str, Any] = {
            name: self._path(index, place) for place, name in enumerate(self._items) if name in present
        }
        try:
            known = self._read_sidecar(index) if self._files[index, -1] else {}
            items |= {name: text_of(known, field) for name, field in self._fields.items() if name in present}
            metadata = {name: plain_of(known, name) for name in self._metadata}
        except ValueError as error:
            raise UnreadableError(key, str(error)) from error
        folder = key.rpartition("/")[0]
        if self._label and self._label in present:
            items[self._label] = folder.rpartition("/")[2].replace("_", " ").replace("-", " ")
        return Sample(
            key,
            items,
            group=folder if self._group_by_folder else "",
            metadata=metadata,
        )

    def manifest(self) -> Manifest:
        folders = [key.rpartition("/")[0] for key in self._keys] if self._group_by_folder else []
        return Manifest(self._present, number_groups(folders) if folders else None)

    def _path(self, index: int, place: int) -> Path:
        return self._root / (self._keys[index] + self._spellings[self._files[index, place] - 1])

    def _read_sidecar(self, index: int) -> Mapping[str, Any]:
        path = self._path(index, -1)
        try:
            return parse_object(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name} can't be read: {error}") from error

    def _scan(
        self, owners: Mapping[str, str | None], names: Sequence[str | None]
    ) -> tuple[dict[str, array[int]], list[str]]:
        """Return the files of each key, as in `_files`, and the spellings of suffixes."""
        rows: dict[str, array[int]] = {}
        spellings: dict[str, int] = {}
        others: Counter[str] = Counter()
        longest_first = sorted(owners, key=len, reverse=True)
        for file in walk(self._root, self._skipped):
            suffix = next((one for one in longest_first if file.lower().endswith(one)), None)
            key = file[: len(file) - len(suffix or "")]
            if suffix is None or not key or key.endswith("/"):
                others[Path(file).suffix] += 1
                continue
            spelling = spellings.setdefault(file[len(key) :], len(spellings) + 1)
            place, row = names.index(owners[suffix]), rows.setdefault(key, array("H", [0] * len(names)))
            if row[place]:
                self._skipped.append((file, f"there is another file of {owners[suffix] or 'metadata'} for {key}"))
            else:
                row[place] = spelling
        if not self._fields:  # the JSON is no item then
            for key in [key for key, row in rows.items() if not any(row[:-1])]:
                file = key + list(spellings)[rows.pop(key)[-1] - 1]
                others[Path(file).suffix] += 1
                self._skipped.append((file, "there is nothing but its JSON"))
        if not rows:
            wanted = [suffix for suffix, owner in owners.items() if owner is not None or self._fields]
            found = ", ".join(f"{count} {suffix or 'without'}" for suffix, count in others.most_common(5))
            raise InputError(
                f"{self._root} has no file that ends in {', '.join(wanted)}; what it has: {found or 'no files'}"
            )
        return rows, list(spellings)


def _owners(items: Mapping[str, Sequence[str]], sidecar: str | None) -> dict[str, str | None]:
    """Return whose each suffix is: the name of items, or None for the sidecar's."""
    owners: dict[str, str | None] = {}
    pairs = [(suffix, name) for name, suffixes in items.items() for suffix in suffixes]
    for suffix, name in [*pairs, *([(sidecar, None)] if sidecar else [])]:
        small = suffix.lower()
        if not small.startswith(".") or len(small) < 2 or "/" in small:
            raise InputError(f"{suffix!r} is no suffix such as '.jpg'")
        if small in owners:
            raise InputError(f"the suffix {suffix!r} is given twice: each belongs to one name of items")
        owners[small] = name
    if not owners:
        raise InputError("items is empty: say which suffix holds what, e.g. {image: [.jpg, .png], text: .txt}")
    return owners
