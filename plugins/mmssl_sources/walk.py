"""The files of a folder, and where a path in one leads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from multimodal_ssl import InputError


def walk(root: Path, skipped: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the paths of all files from the root on, but for what is hidden; what leads elsewhere is skipped."""
    if not root.is_dir():
        raise InputError(f"{root} is no folder (relative paths start from {Path.cwd()})")
    real, todo = root.resolve(), [""]
    while todo:
        begin = todo.pop()
        try:
            entries = sorted(os.scandir(root / begin), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((begin, f"the folder can't be read: {error.strerror}"))
            continue
        for entry in entries:
            path = begin + entry.name
            if entry.name.startswith("."):
                continue
            if not _is_utf8(path):
                skipped.append((ascii(path), "its name is no UTF-8"))
            elif entry.is_dir(follow_symlinks=False):
                todo.append(f"{path}/")
            elif entry.is_symlink() and (entry.is_dir() or real not in Path(entry.path).resolve().parents):
                skipped.append((path, "it is a link to a folder, or out of this one: not followed"))
            elif not entry.is_file():
                skipped.append((path, "it is no file"))
            else:
                yield path


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
