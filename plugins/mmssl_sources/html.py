"""Saved web pages as a pairing source: a picture and what the page says of it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np

from mmssl_sources.pages import Page, read_page
from mmssl_sources.pictures import Absent, Found, Site
from mmssl_sources.walk import walk
from multimodal_ssl import InputError, Manifest, MapSource, Sample
from multimodal_ssl.data import number_groups
from multimodal_ssl.errors import UnreadableError

BOILERPLATE = (
    r"(the |an? )?(image|img|picture|photo|photograph|foto|bild|logo|icon|thumb|thumbnail|banner|avatar|placeholder"
    r"|spacer|untitled|loading|product image|default)s?[\s_-]*\d*(\s*(of|/)\s*\d+)?\.*",
    r"\S+\.(jpe?g|png|gif|webp|svg|bmp|tiff?|avif|heic|ico)",
    r"(img|dsc|dscn|dscf|pxl|mvi|image|photo|screenshot|screen shot)[\s_-]*\d[\w.-]*",
    r"https?://\S+",
    r"[\W\d_]*",
)
_PAGES = (".html", ".htm", ".xhtml")


@final
class Html(MapSource):
    """Pictures of saved web pages and their texts, see the plugin's `open_html`.

    Attributes:
        skipped: pictures and pages that give no pair, and why; also pages whose charset had to be guessed.
    """

    def __init__(
        self,
        *,
        path: Path,
        voice: Sequence[str],
        min_words: int,
        max_words: int | None,
        skip: Sequence[str],
        metadata: Sequence[str],
        max_page: int,
        max_data: int,
        limit: int | None,
    ) -> None:
        if not voice or len(set(voice)) < len(voice):
            raise InputError(f"voice must name texts, each once (given: {list(voice)})")
        if max_words is not None and max_words < min_words:
            raise InputError(f"max_words is {max_words}, less than min_words, which is {min_words}: no text fits")
        self.modalities = {"image": "image", "text": "text"}
        self.skipped = self._skipped = list[tuple[str, str]]()
        self._voices, self._min, self._max, self._skip = voice, min_words, max_words, _compile(skip)
        self._names = tuple(metadata)
        root, pages = _find_pages(path, self._skipped)
        site = Site(root, max_data)
        pictures: dict[str, Found] = {}  # all of them, whatever voice speaks of them: groups are the same for each
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._metadata: list[dict[str, str]] = []
        numbers: list[str] = []
        for name in pages:
            if limit is not None and len(self._keys) >= limit:
                break
            for key, found, text, spoken, page in self._read(name, site, max_page, pictures):
                self._keys.append(key)
                self._texts.append(text)
                numbers.append(found.name)
                known = {"title": page.title, "page": name, "voice": spoken, "charset": page.charset}
                self._metadata.append({one: known[one] for one in self._names})
        if not self._keys:
            some = "; ".join(f"{place}: {reason}" for place, reason in self._skipped[:3])
            raise InputError(f"{path}: no picture has a text of {', '.join(voice)}; skipped: {some or 'nothing'}")
        same = _same_bytes(pictures.values())
        self._keys, self._texts, numbers = self._keys[:limit], self._texts[:limit], numbers[:limit]
        self._pictures = [pictures[one] for one in numbers]
        self._groups = [same.get(one, one) for one in numbers]

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key, found = self._keys[index], self._pictures[index]
        try:
            image = found.path or found.read()
        except ValueError as error:
            raise UnreadableError(key, f"image: {error}") from error
        items = {"image": image, "text": self._texts[index]}
        return Sample(key, items, group=self._groups[index], metadata=self._metadata[index])

    def manifest(self) -> Manifest:
        length = np.zeros((len(self), 2), np.float32)
        length[:, 1] = [len(text) for text in self._texts]
        return Manifest(np.ones((len(self), 2), bool), number_groups(self._groups), length)

    def _read(
        self, name: str, site: Site, max_page: int, pictures: dict[str, Found]
    ) -> Iterator[tuple[str, Found, str, str, Page]]:
        """Yield the key, the picture, the text, its voice and the page of each pair of a page."""
        try:
            with (site.root / name).open("rb") as file:
                data = file.read(max_page + 1)
        except OSError as error:
            self._skipped.append((name, f"the page can't be read: {error.strerror}"))
            return
        if len(data) > max_page:
            self._skipped.append((name, "the page is larger than max_page_mb allows"))
            return
        page = read_page(data)
        self._skipped += [(name, trouble) for trouble in page.trouble]
        keys: set[str] = set()
        said: set[tuple[str, str]] = set()
        for one in page.pictures:
            place = f"{name}, picture {one.number}" + (f" ({one.addresses[0][:80]})" if one.addresses else "")
            if one.unseen:
                self._skipped.append((place, one.unseen))
                continue
            try:
                found = site.find(one.addresses, name, page.base)
            except Absent as reason:
                self._skipped.append((place, str(reason)))
                continue
            pictures.setdefault(found.name, found)
            key, count = f"{name}#{found.name}", 1
            while key in keys:  # whatever is said of it, so that a picture has the same key for each voice
                count += 1
                key = f"{name}#{found.name} ({count})"
            keys.add(key)
            voice, text = self._choose(one.texts)
            if not voice:
                self._skipped.append((place, text))
            elif (found.name, text) in said:
                self._skipped.append((place, f"the page says the same of this picture before: {text[:40]!r}"))
            else:
                said.add((found.name, text))
                yield key, found, text, voice, page

    def _choose(self, texts: dict[str, str]) -> tuple[str, str]:
        """Return the first voice whose text can be taken and that text, or "" and why there is none."""
        reasons = []
        for voice in self._voices:
            text = texts.get(voice, "")
            words = len(text.split())
            if not text:
                reasons.append(f"no {voice}")
            elif pattern := next((one for one in self._skip if one.fullmatch(text)), None):
                reasons.append(f"its {voice} {text[:40]!r} is boilerplate (skip: {pattern.pattern[:40]})")
            elif words < self._min:
                reasons.append(f"its {voice} has {words} words, less than min_words")
            elif self._max is not None and words > self._max:
                reasons.append(f"its {voice} has {words} words, more than max_words")
            else:
                return voice, text
        return "", "; ".join(reasons)


def _compile(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    found = []
    for pattern in patterns:
        try:
            found.append(re.compile(pattern, re.IGNORECASE))
        except re.error as error:
            raise InputError(f"skip: {pattern!r} is no regular expression: {error}") from error
    return found


def _find_pages(path: Path, skipped: list[tuple[str, str]]) -> tuple[Path, list[str]]:
    """Return the root and the pages from there on, in the order of their names."""
    if path.is_file():
        if not path.name.lower().endswith(_PAGES):
            raise InputError(f"{path} is no page: its name must end in {', '.join(_PAGES)}")
        return path.parent, [path.name]
    files = sorted(walk(path, skipped))
    pages = [file for file in files if file.lower().endswith(_PAGES)]
    saved = {f"{page.rpartition('.')[0]}{end}/" for page in pages for end in ("_files", ".files")}
    inner = [page for page in pages if any(page[: len(one)] == one for one in _folders(page) if one in saved)]
    skipped += [(page, "it is part of another saved page, such as a frame") for page in inner]
    skipped += [
        (file, "a web archive is not read: save it as a complete page")
        for file in files
        if file.lower().endswith((".mht", ".mhtml", ".webarchive"))
    ]
    pages = [page for page in pages if page not in set(inner)]
    if not pages:
        raise InputError(f"{path} has no page, no file that ends in {', '.join(_PAGES)}, among its {len(files)} files")
    return path, pages


def _folders(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, such as "a/" and "a/b/"."""
    for match in re.finditer("/", path):
        yield path[: match.end()]


def _same_bytes(pictures: Iterable[Found]) -> dict[str, str]:
    """Return what the first picture of the same bytes is called, for those that are not it."""
    sizes: dict[int, list[Found]] = defaultdict(list)
    for one in pictures:
        sizes[one.size if one.path else _true_size(one)].append(one)
    same: dict[str, str] = {}
    for alike in sizes.values():
        first: dict[bytes, str] = {}
        for one in sorted(alike, key=lambda one: one.name) if len(alike) > 1 else ():
            try:
                digest = hashlib.blake2b(one.read()).digest()
            except (OSError, ValueError):  # told when it comes to be read
                continue
            same[one.name] = first.setdefault(digest, one.name)
    return same


def _true_size(found: Found) -> int:
    """Return the size of what a page itself holds, -1 if it can't be decoded."""
    try:
        return len(found.read())
    except ValueError:
        return -1
