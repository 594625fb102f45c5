"""What lies where in a tar archive (POSIX.1-2001 and GNU). Nothing is ever extracted."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes: a header, and what every member is padded to
LARGEST = 1 << 60  # bytes of an archive: offsets are 64 bits
LONGEST_NAME = 1 << 16  # bytes of an extended header: more is no name but an attack
_EMPTY = bytes(BLOCK)
_KINDS = {
    b"1": "it is a hard link", b"2": "it is a symbolic link", b"3": "it is a device", b"4": "it is a device",
    b"6": "it is a pipe", b"S": "it is a sparse file", b"V": "it is the label of a volume",
}  # fmt: skip


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        offset, size: of its bytes in the archive.
        wrong: why it is not to be read, if so.
    """

    name: str
    offset: int
    size: int
    wrong: str | None = None


def members(file: BinaryIO, length: int | None = None) -> Iterator[Member]:
    """Yield the files in an archive in their order; folders are passed over.

    A broken header is told as a member that is wrong, and reading goes on at the next good one; so is an end that is
    missing, or the member that it cuts off.

    Args:
        file: at its beginning. If it can't seek, the bytes of a member must be read before the next is asked for.
        length: bytes of the archive, if known.
    """
    position, longer, gap, lost = 0, _Longer(), -1, False
    while True:
        _advance(file, position)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            if gap < 0 or header.strip(b"\0"):
                yield Member(f"byte {position}", position, 0, "the archive ends here, without its mark of the end")
            return
        offset = position + BLOCK
        if header == _EMPTY:  # the end, unless something follows
            gap, position = position if gap < 0 else gap, offset
            continue
        size = _number(header[124:136]) if sums_up(header) else None
        if gap >= 0 or size is None:
            if not lost:
                yield Member(
                    f"byte {position if gap < 0 else gap}", position, 0, "there is no header where one should be"
                )
            longer = _Longer()
        gap, lost = -1, size is None
        if size is None:
            position = offset
            continue
        kind = header[156:157]
        if kind in b"xgLK":
            if size <= LONGEST_NAME:
                longer.take(kind, file.read(size))
            else:
                yield Member(f"byte {position}", position, 0, f"an extended header of {size:,} bytes")
                if kind in b"xL":
                    longer.wrong = "the extended header before it can't be read"
        else:
            name, wrong = longer.name or _name(header), longer.wrong
            if kind in b"123456":
                size = 0  # whatever is claimed: no bytes follow
            elif longer.size is not None:
                size = longer.size
            if longer.used:
                longer = _Longer()
            if kind in b"07\0":
                if length is not None and offset + size > length:
                    yield Member(name, offset, size, "the archive ends within it")
                    return
                if not name.endswith("/"):  # so were folders written before there was POSIX
                    yield Member(name, offset, size, wrong or _trick(name))
            elif kind not in b"5DMN":
                yield Member(name, offset, size, _KINDS.get(kind, f"it is of the unknown type {kind!r}"))
        position = offset + -(-size // BLOCK) * BLOCK


class _Longer:
    """What extended headers say of the member that follows."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.size: int | None = None
        self.wrong: str | None = None

    @property
    def used(self) -> bool:
        return self.name is not None or self.size is not None or self.wrong is not None

    def take(self, kind: bytes, body: bytes) -> None:
        if kind == b"L":
            self.name = _text(body.split(b"\0", 1)[0])
        while kind == b"x" and (match := re.match(rb"(\d{1,9}) ([^=]{1,999})=", body)):
            length, name = int(match[1]), match[2]
            value = body[match.end() : length - 1]
            if name == b"path":
                self.name = _text(value)
            elif name == b"size":
                self.size = _number(value, base=10)
                if self.size is None:
                    self.wrong = f"its size is {value[:40]!r}"
            elif name.startswith(b"GNU.sparse."):
                self.wrong = _KINDS[b"S"]
            body = body[max(length, 1) :]


def sums_up(header: bytes) -> bool:
    """Tell whether a block is a header."""
    told = _number(header[148:156])  # the sum of all bytes, its own field being 8 blanks
    if not told:
        return False
    told += sum(header[148:156]) - 8 * ord(" ")
    # The low half of Adler-32 is 1 + the sum modulo 65521, and is computed in C.

    return zlib.adler32(header) & 0xFFFF == (1 + told) % 65521


def _number(field: bytes, base: int = 8) -> int | None:
    """Return a number: digits, or for large ones base 256 (GNU); None if it is none, or of no file on earth."""
    if field[:1] == b"\x80":
        number = int.from_bytes(field[1:])
    else:
        try:
            number = int(field.split(b"\0", 1)[0].strip() or b"0", base)
        except ValueError:
            return None
    return number if 0 <= number < LARGEST else None


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0", 1)[0], b""
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _trick(name: str) -> str | None:
    parts = name.split("/")
    return "its path leads out of the archive" if ".." in parts or not parts[0] else None


def _advance(file: BinaryIO, position: int) -> None:
    """Go on to a position: by seeking where that is possible, else by reading."""
    if file.seekable():
        file.seek(position)
        return
    while (rest := position - file.tell()) > 0:
        if not file.read(min(rest, io.DEFAULT_BUFFER_SIZE)):
            return
