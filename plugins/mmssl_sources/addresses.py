"""Files that a pattern means, and reading them: braces, wildcards, and the addresses that fsspec knows."""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from multimodal_ssl import InputError

MOST = 1_000_000  # addresses of one pattern

_BUFFER = 1 << 18  # bytes
_ARCHIVE = re.compile(r"\.(?:tar|tar\.(\w+)|(tgz|tbz2|txz))(?:\?.*)?$", re.IGNORECASE)
_COMPRESSIONS = {"gz": "gzip", "tgz": "gzip", "bz2": "bz2", "tbz2": "bz2", "xz": "xz", "txz": "xz", "zst": "zstd"}
_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the files that are meant, each once: `{000..099}` and `{a,b}` give each, `*` and `?` what is there.

    Raises InputError if a pattern means no file, or a path on this machine leads to none.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if not is_local(pattern):
            try:
                fsspec.core.url_to_fs(pattern)
            except (ImportError, ValueError) as error:  # what it takes is not installed, or there is no such protocol
                raise InputError(f"{pattern} can't be read: {error}") from error
        for number, one in enumerate(_expand_braces(pattern)):
            if number >= MOST:
                raise InputError(f"{pattern!r} means more than {MOST:,} files")
            found |= dict.fromkeys(_match(one))
    return list(found)


def is_local(address: str) -> bool:
    """Tell whether an address is a path on this machine."""
    return "://" not in address and "::" not in address


def shard_names(addresses: Sequence[str]) -> list[str]:
    """Return a name for each archive: that of the file without its suffixes, or the whole address if two are alike."""
    names = [_ARCHIVE.sub("", one).rpartition("/")[2] for one in addresses]
    return [
        name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        for name in (names if len(set(names)) == len(names) else addresses)
    ]


@contextmanager
def open_stream(address: str) -> Iterator[BinaryIO]:
    """Open a file to be read from its beginning on, never seeking; what is compressed is unpacked.

    Raises InputError where an address can't be read, OSError where the file is broken.
    """
    match = _ARCHIVE.search(address)
    suffix = ((match[1] or match[2]) if match else None) or ""
    with ExitStack() as stack:
        if is_local(address):
            file: BinaryIO = stack.enter_context(open(address, "rb"))
        else:
            options = {"block_size": 0} if address.startswith("http") else {}  # 0: not all servers give parts of a file

            def refusal(error: Exception) -> InputError:
                return InputError(f"{address} can't be read ({error!r}); a run that has begun goes on with --resume")

            try:
                remote = stack.enter_context(fsspec.open(address, "rb", **options))
            except Exception as error:
                raise refusal(error) from error
            file = _forward(remote.read, refusal)
        if suffix.lower() in _COMPRESSIONS:
            unpack = fsspec.compression.compr.get(_COMPRESSIONS[suffix.lower()])
            if unpack is None:
                raise InputError(f"{address} is compressed by zstd: pip install zstandard, or unpack it")
            file = _forward(stack.enter_context(unpack(file, mode="rb")).read1, OSError)
        yield file


class _Forward(io.RawIOBase):
    """Makes a file of a function that reads; whatever that raises becomes one kind of error."""

    def __init__(self, read: Callable[[int], bytes], refusal: Callable[[Exception], Exception]) -> None:
        self._read, self._refusal, self._position = read, refusal, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._read(len(buffer))
        except InputError:
            raise
        except Exception as error:
            # Each protocol and each compression has a library of its own, with errors of its own.
            raise self._refusal(error) from error
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


def _forward(read: Callable[[int], bytes], refusal: Callable[[Exception], Exception]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Forward(read, refusal), _BUFFER))


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
        wild = wild and not Path(pattern).exists()
        found = sorted(glob.glob(pattern, recursive=True)) if wild else [pattern]
        for one in found:
            if Path(one).is_dir():
                raise InputError(f"{one} is a folder: give its archives, such as {one.rstrip('/')}/*.tar")
            if not Path(one).is_file():
                raise InputError(f"there is no file {one} (relative paths start from {Path.cwd()})")
    elif wild:
        system, path = fsspec.core.url_to_fs(pattern)
        try:
            found = sorted(system.unstrip_protocol(one) for one in system.glob(path))
        except Exception as error:
            # Each protocol has a library of its own, with errors of its own.
            raise InputError(f"{pattern} can't be listed: {error!r}") from error
    else:
        return [pattern]
    if not found:
        raise InputError(f"no file matches {pattern}")
    return found
