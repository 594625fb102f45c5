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
            if entry.is_dir(follow_symlinks=False) and _is_utf8(path):
                todo.append(f"{path}/")
            elif wrong := _wrong(entry, real):
                skipped.append((ascii(path) if not _is_utf8(path) else path, wrong))
            else:
                yield path


def _wrong(entry: os.DirEntry[str], real: Path) -> str | None:
    """Tell why an entry is no file to be read, if so."""
    if not _is_utf8(entry.name):
        return "its name is no UTF-8"
    try:
        if entry.is_symlink() and (entry.is_dir() or real not in Path(entry.path).resolve().parents):
            return "it is a link to a folder, or out of this one: not followed"
        return None if entry.is_file() else "it is no file"
    except (OSError, RuntimeError) as error:  # such as a link that leads to itself
        return f"it can't be looked at: {error}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
