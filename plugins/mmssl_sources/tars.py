"""What lies where in a tar archive (POSIX.1-2001 and GNU). Nothing is ever extracted."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes: a header, and what every member is padded to
LONGEST_NAME = 1 << 16  # bytes of an extended header: more is no name but an attack
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

    A broken header is told as a member that is wrong, and reading goes on at the next good one; so is a member that the
    end of the archive cuts off.

    Args:
        file: at its beginning. If it can't seek, the bytes of a member must be read before the next is asked for.
        length: bytes of the archive, if known.
    """
    position, longer, lost, empty = 0, _Longer(), False, False
    while True:
        _advance(file, position)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            if header.strip(b"\0"):
                yield Member(f"byte {position}", position, 0, "the archive ends within a header")
            return
        offset = position + BLOCK
        if not header.strip(b"\0"):  # two empty blocks end an archive
            if empty:
                return
            position, empty = offset, True
            continue
        empty = False
        size = _number(header[124:136])
        if size is None or size < 0 or not _sums_up(header):
            if not lost:
                yield Member(f"byte {position}", position, 0, "there is no header where one should be")
            lost, position, longer = True, offset, _Longer()
            continue
        lost = False
        kind = header[156:157]
        if kind in b"xgL" and kind:
            if size > LONGEST_NAME:
                yield Member(f"byte {position}", position, 0, f"an extended header of {size} bytes")
            else:
                longer.take(kind, file.read(size))
        else:
            name, size = longer.name or _name(header), size if longer.size is None else longer.size
            longer = _Longer()
            if kind in (b"0", b"\0", b"7"):
                cut = length is not None and offset + size > length
                yield Member(name, offset, size, "the archive ends within it" if cut else _trick(name))
            elif kind not in b"5KDMN":
                yield Member(name, offset, size, _KINDS.get(kind, f"it is of the unknown type {kind!r}"))
        position = offset + -(-size // BLOCK) * BLOCK


class _Longer:
    """What extended headers say of the member that follows."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.size: int | None = None

    def take(self, kind: bytes, body: bytes) -> None:
        if kind == b"L":
            self.name = _text(body.rstrip(b"\0"))
        while kind == b"x" and (match := re.match(rb"(\d{1,9}) (path|size|[^=]{1,999})=", body)):
            length = int(match[1])
            value = body[match.end() : length].rstrip(b"\n")
            if match[2] == b"path":
                self.name = _text(value)
            elif match[2] == b"size" and value.isdigit():
                self.size = int(value)
            body = body[max(length, 1) :]


def _sums_up(header: bytes) -> bool:
    told = _number(header[148:156])  # the sum of all bytes, its own field being 8 blanks
    if told is None:
        return False
    # The low half of Adler-32 is 1 + the sum modulo 65521, and is computed in C.
    return zlib.adler32(header) & 0xFFFF == (1 + told + sum(header[148:156]) - 8 * ord(" ")) % 65521


def _number(field: bytes) -> int | None:
    """Return a number: octal digits, or for large ones base 256 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None


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
