"""Where the pictures of saved pages lie."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "src")
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "srcset")
_CANDIDATE = re.compile(r"[\s,]*([^\s,]\S*)([^,]*)")
_DATA = re.compile(r"data:\s*([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_REMOTE = ("http", "https", "ftp")


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that can be read.

    Attributes:
        name: the path from the root, or "data:" and the hash of what the page holds.
        path: the file; None if the page holds it.
        encoded: what the page holds: the payload of a data: URI, and whether it is base64.
        size: in bytes.
    """

    name: str
    path: Path | None
    encoded: tuple[bytes, bool]
    size: int

    def read(self) -> bytes:
        """Return its bytes; raise ValueError or OSError if that can't be."""
        if self.path is not None:
            return self.path.read_bytes()
        payload, is_base64 = self.encoded
        plain = unquote_to_bytes(payload)
        if not is_base64:
            return plain
        plain = plain.translate(None, b" \t\r\n\f")
        try:
            return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError(f"its data: URI is no base64: {error}") from error


class Absent(ValueError):
    """Says why a picture can't be had."""


def addresses(image: Mapping[str, str], sources: Iterable[Mapping[str, str]]) -> list[str]:
    """Return where a picture may lie, the best first: the widest, then the densest, then what is loaded lazily.

    What the page itself holds comes last: beside other addresses it is but a placeholder.
    """
    found: list[tuple[float, float, str]] = []
    for element in (*sources, image):
        if element.get("type", "").strip().lower() == "image/svg+xml":
            continue
        for name in _LAZY_SETS:
            found += _parse_srcset(element.get(name, ""))
    found += [(0.0, 1.0, value.strip()) for name in _LAZY if (value := image.get(name, "")).strip()]
    found.sort(key=lambda one: (_is_data(one[2]), -one[0], -one[1]))
    return list(dict.fromkeys(url for _, _, url in found))


def _parse_srcset(text: str) -> list[tuple[float, float, str]]:
    """Return the width (0 if not told), the density and the address of each candidate of a srcset."""
    found, position = [], 0
    while match := _CANDIDATE.match(text, position):
        url, told = match[1], match[2]
        if url.endswith(","):
            url, told, position = url.rstrip(","), "", match.end(1)
        else:
            position = match.end()
        width, density = 0.0, 1.0
        for word in told.split():
            if number := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([wx])", word):
                width, density = (float(number[1]), density) if number[2] == "w" else (width, float(number[1]))
        found.append((width, density, url))
    return found


class Site:
    """The folder that pages and their pictures lie in; nothing out of it is ever read.

    Args:
        max_data: bytes of a picture that a page itself holds, at most.
    """

    def __init__(self, root: Path, max_data: int) -> None:
        self.root, self.max_data = root, max_data
        self._real = os.path.realpath(root)
        self._files: dict[str, Found | str] = {}
        self._data: dict[str, Found] = {}

    def find(self, urls: Iterable[str], page: str, base: str) -> Found:
        """Return the first that is there, of a page by its path from the root; raise Absent that says why none is."""
        reasons: list[str] = []
        for url in urls:
            try:
                return self._data_uri(url) if _is_data(url) else self._local(url, page, base)
            except Absent as reason:
                reasons.append(str(reason))
        raise Absent("; ".join(dict.fromkeys(reasons)) or "it has no src")

    def _data_uri(self, url: str) -> Found:
        head = _DATA.match(url)
        if head is None:
            raise Absent("its data: URI has no comma")
        kind = head[1].strip().lower()
        if kind == "image/svg+xml":
            raise Absent("SVG is not drawn")
        if kind and not kind.startswith("image/"):
            raise Absent(f"its data: URI holds {kind[:40]}, no image")
        is_base64 = head[2].strip().lower().endswith(";base64")
        payload = url[head.end() :].encode()
        size = len(payload) * 3 // 4 if is_base64 else len(payload) - 2 * payload.count(b"%")
        if size > self.max_data:
            raise Absent(f"its data: URI holds some {size:,} bytes, more than max_data_mb allows")
        name = f"data:{hashlib.blake2b(payload, digest_size=8).hexdigest()}"
        return self._data.setdefault(name, Found(name, None, (payload, is_base64), size))

    def _local(self, url: str, page: str, base: str) -> Found:
        url = re.sub(r"[\t\r\n]", "", url).strip()
        try:
            parts, start = urlsplit(url), urlsplit(base)
        except ValueError as error:
            raise Absent(f"its address is broken: {error}") from error
        if parts.scheme in _REMOTE or (parts.netloc and parts.scheme != "file"):
            raise Absent(f"it lies elsewhere, at {parts.netloc[:80]}: pictures are not fetched")
        if parts.scheme not in ("", "file"):
            raise Absent(f"its address begins with {parts.scheme[:20]}:, which is no file")
        if not parts.path:
            raise Absent("its address names no file")
        # Programs that save pages differ in what they escape and in whether a query becomes part of the name.
        query = f"?{parts.query}" if parts.query else ""
        names = [unquote(parts.path), unquote(parts.path + query), parts.path, unquote(parts.path).replace("\\", "/")]
        folder = posixpath.dirname(page)
        is_elsewhere = bool(start.scheme in _REMOTE or start.netloc)
        if base and not is_elsewhere:
            folder = posixpath.join(folder, posixpath.dirname(unquote(start.path)))
        reason = "there is no such file"
        for name in dict.fromkeys(names):
            found = self._check(name, folder, is_url=parts.scheme == "file")
            if isinstance(found, Found):
                return found
            reason = found if found != "there is no such file" else reason
        if is_elsewhere and reason == "there is no such file":
            raise Absent(f"it lies elsewhere, at {start.netloc[:80]} by the page's base: pictures are not fetched")
        raise Absent(reason)

    def _check(self, name: str, folder: str, *, is_url: bool) -> Found | str:
        """Return the picture of that name, or why there is none."""
        if "\0" in name:
            return "its address holds a NUL"
        if is_url:
            path = os.path.relpath(os.path.normpath(name), os.path.abspath(self.root))
        else:
            path = posixpath.normpath(posixpath.join("/" if name.startswith("/") else folder, name)).lstrip("/")
            # An absolute address starts from the root, and a browser stops there; ".." from a page may lead out.
        if path == ".." or path.startswith("../"):
            return "it leads out of the folder: not read"
        if path not in self._files:
            self._files[path] = self._open(path)
        return self._files[path]

    def _open(self, path: str) -> Found | str:
        place = self.root / path
        try:
            real = os.path.realpath(place)
            if os.path.commonpath([real, self._real]) != self._real:
                return "it is a link out of the folder: not read"
            if not os.path.isfile(real):
                return "there is no such file"
            if path.lower().endswith((".svg", ".svgz")):
                return "SVG is not drawn"
            return Found(path, place, (b"", False), os.path.getsize(real))
        except (OSError, ValueError) as error:
            return f"its path can't be used: {str(error)[:80]}"


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"
