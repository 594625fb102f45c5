"""Files that a pattern means: braces, wildcards, and the addresses that fsspec knows."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from multimodal_ssl import InputError

MOST = 1_000_000  # addresses of one pattern

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the files that are meant, each once: `{000..099}` and `{a,b}` give each, `*` and `?` what is there.

    Raises InputError if a pattern means no file, or a path on this machine leads to none.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        for one in _expand_braces(pattern):
            if len(found) > MOST:
                raise InputError(f"{pattern!r} means more than {MOST:,} files")
            found |= dict.fromkeys(_match(one))
    return list(found)


def is_local(address: str) -> bool:
    """Tell whether an address is a path on this machine."""
    return "://" not in address and "::" not in address


def shard_names(addresses: Sequence[str]) -> list[str]:
    """Return a name for each archive: that of the file without its suffixes, or the whole address if two are alike."""
    names = [re.sub(r"\.(tar(\.\w+)?|tgz|tbz2|txz)$", "", one.rpartition("/")[2]) for one in addresses]
    return names if len(set(names)) == len(names) else list(addresses)


def _expand_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, some = match.groups()
    if some is None:
        width = len(first) if first.startswith("0") else 0
        low, high = int(first), int(last)
        if abs(high - low) > MOST:
            raise InputError(f"{pattern!r} means more than {MOST:,} files")
        choices: Sequence[str] = [f"{one:0{width}}" for one in range(low, high + 1)]
        if not choices:
            raise InputError(f"{pattern!r}: {first} comes after {last}")
    else:
        choices = some.split(",")
    for choice in choices:
        yield from _expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _match(pattern: str) -> list[str]:
    wild = any(sign in pattern for sign in "*?[")
    if is_local(pattern):
        found = sorted(glob.glob(pattern)) if wild else [pattern]
        for one in found:
            if Path(one).is_dir():
                raise InputError(f"{one} is a folder: give its archives, such as {one.rstrip('/')}/*.tar")
            if not Path(one).is_file():
                raise InputError(f"there is no file {one} (relative paths start from {Path.cwd()})")
    elif wild:
        import fsspec

        system, path = fsspec.core.url_to_fs(pattern)
        try:
            found = sorted(system.unstrip_protocol(one) for one in system.glob(path))
        except OSError as error:
            raise InputError(f"{pattern} can't be listed: {error}") from error
    else:
        return [pattern]
    if not found:
        raise InputError(f"no file matches {pattern}")
    return found
