"""Saved web pages: their pictures, and the texts that go with each."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lxml import etree

from mmssl_sources.pictures import addresses

_HEADINGS = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
_PARAGRAPHS = frozenset(
    [
        "p",
        "li",
        "dt",
        "dd",
        "td",
        "th",
        "blockquote",
        "pre",
        "address",
        "center",
        "label",
        "summary",
        "legend",
        "div",
        "section",
        "article",
        "aside",
        "main",
        "header",
        "footer",
        "nav",
        "form",
        "fieldset",
        "figure",
    ]
)
_BREAKS = frozenset(["br", "hr", "tr", "ul", "ol", "dl", "table", "option", "img"])
_SILENT = frozenset(
    [
        "head",
        "title",
        "script",
        "style",
        "noscript",
        "iframe",
        "object",
        "svg",
        "math",
        "select",
        "textarea",
        "button",
        "datalist",
        "audio",
        "video",
        "canvas",
    ]
)
_DEPTH = 2048  # elements within each other, at which libxml2 gives up
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
# Python knows others that are no charsets of pages, some of them slow on purpose-made input.
_CHARSET = re.compile(
    r"(iso-?8859-?\d{1,2}|latin-?\d|(windows|cp)-?(125\d|874|932|949)|koi8-[ru]|shift[-_]jis|sjis|euc-(jp|kr)"
    r"|gb2312|gbk|gb18030|big5(-hkscs)?|iso-2022-jp|mac-?roman|macintosh|tis-620|ks_c_5601-1987)",
    re.IGNORECASE,
)
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


@dataclass(slots=True)
class Picture:
    """A picture of a page.

    Attributes:
        number: of it on the page, from 1.
        addresses: where it may lie, the best first.
        texts: what is said of it, by voice; those that say nothing are left out.
        unseen: why nobody sees it, or "".
    """

    number: int
    addresses: list[str]
    texts: dict[str, str]
    unseen: str


class Page(NamedTuple):
    """What is read of a page.

    Attributes:
        base: the address that those of the pictures start from, "" if it is that of the page.
        trouble: what the reader should be told of it, e.g. of its charset.
    """

    title: str
    base: str
    charset: str
    pictures: list[Picture]
    trouble: list[str]


def read_page(data: bytes) -> Page:
    """Read a page. Nothing of it is executed, no entity of its own is resolved, and nothing is fetched."""
    text, charset, trouble = _decode(data)
    parser = etree.HTMLParser(
        encoding="utf-8", huge_tree=True, no_network=True, remove_comments=True, remove_pis=True, recover=True
    )
    root = etree.fromstring(text.replace("\0", "").encode(), parser)
    if root is None:
        return Page("", "", charset, [], [*trouble, "it holds no HTML"])
    if any("depth" in error.message for error in parser.error_log):
        trouble.append(f"its elements lie more than {_DEPTH} deep in each other: what comes after is not read")
    title = next(root.iter("title"), None)
    base = next((one.get("href", "") for one in root.iter("base") if one.get("href")), "")
    named = "" if title is None else _plain(title.text or "")
    return Page(named, base.strip(), charset, _Walk().run(root), trouble)


def _decode(data: bytes) -> tuple[str, str, list[str]]:
    """Return the text of a page, its charset, and what was odd: UTF-8, else the declared charset, else latin-1."""
    for mark, charset in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            text = data.decode(charset, "replace").removeprefix("\ufeff")
            return text, charset, [f"it is broken {charset}"] if "\ufffd" in text else []
    try:
        return data.decode(), "utf-8", []
    except UnicodeDecodeError:
        pass
    found = _DECLARED.search(data[:8192])
    declared = found[1].decode() if found else ""
    if _CHARSET.fullmatch(declared) and not re.fullmatch(r"iso-?8859-?1|latin-?1", declared, re.IGNORECASE):
        try:
            return data.decode(declared), declared.lower(), []
        except (UnicodeDecodeError, LookupError):
            pass
    try:
        text = data.decode("cp1252")  # what browsers take latin-1 for
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if re.fullmatch(r"iso-?8859-?1|latin-?1", declared, re.IGNORECASE):
        return text, "latin-1", []
    wrong = f"declared as {declared!r}, which it is not" if declared else "declares no charset"
    return text, "latin-1", [f"it is no UTF-8 and {wrong}: read as latin-1"]


@dataclass(slots=True, eq=False)
class _Block:
    """A heading, paragraph, figure or caption: the text in it that is in no other block."""

    kind: str
    depth: int
    parent: _Block | None
    parts: list[str] = field(default_factory=list)
    pictures: int = 0
    text: str = ""


@dataclass(slots=True, eq=False)
class _Open:
    """An element whose end is still to come: what ends with it."""

    block: _Block | None = None
    is_silent: bool = False
    is_unseen: bool = False
    figure: bool = False
    link: bool = False
    picture: bool = False


@dataclass(slots=True, eq=False)
class _Seen:
    picture: Picture
    block: _Block | None
    depth: int


class _Walk:
    """Goes once through the elements of a page and collects pictures and texts."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.block: _Block | None = None
        self.silent = self.unseen = 0
        self.figures: list[list[str]] = []  # the parts of the caption of each figure that is open
        self.links: list[str] = []
        self.sources: list[list[Mapping[str, str]]] = []
        self.seen: list[_Seen] = []
        self.captions: list[tuple[Picture, list[str]]] = []
        # Blocks and pictures as they begin, and how far up the way to each from the one before it goes.
        self.marks: list[tuple[_Block | _Seen, int]] = []
        self.up = 0

    def run(self, root: etree._Element) -> list[Picture]:
        steps = etree.iterwalk(root, events=("start", "end"))
        for event, element in steps:
            if event == "end":
                self._leave(element.tag)
                self._say(element.tail)
                continue
            self._enter(element.tag, element.attrib)
            if element.tag == "template":
                steps.skip_subtree()
            else:
                self._say(element.text)
        self._finish()
        return [one.picture for one in self.seen]

    def _say(self, text: str | None) -> None:
        if text and self.block is not None and not self.silent:
            self.block.parts.append(text)

    def _enter(self, tag: str, attributes: Mapping[str, str]) -> None:
        is_unseen = _is_unseen(attributes)
        mine = _Open(is_silent=tag in _SILENT or is_unseen, is_unseen=is_unseen)
        self.silent += mine.is_silent
        self.unseen += is_unseen
        if tag in _BREAKS:
            self._say(" ")
        kind = "heading" if tag in _HEADINGS else "caption" if tag == "figcaption" else "paragraph"
        # Within a heading or a caption all text is its own.
        is_block = kind != "paragraph" or tag in _PARAGRAPHS
        if is_block and (self.block is None or self.block.kind == "paragraph"):
            self._say(" ")
            mine.block = self.block = _Block(kind, len(self.open), self.block)
            if kind == "caption":
                if self.figures and not self.silent:
                    self.figures[-1].append(" ")
                    self.block.parts = self.figures[-1]
            elif not self.silent:
                self._mark(self.block)
        if tag == "figure":
            mine.figure = True
            self.figures.append([])
        elif tag == "a":
            mine.link = True
            self.links.append(attributes.get("title", ""))
        elif tag == "picture":
            mine.picture = True
            self.sources.append([])
        elif tag == "source" and self.sources:
            self.sources[-1].append(dict(attributes))
        elif tag == "img":
            self._see(attributes)
        self.open.append(mine)

    def _leave(self, tag: str) -> None:
        mine = self.open.pop()
        self.up = min(self.up, len(self.open))
        if mine.block is not None:
            self.block = mine.block.parent
            if self.block is not None:
                self.block.pictures += mine.block.pictures
        self.silent -= mine.is_silent
        self.unseen -= mine.is_unseen
        if mine.figure:
            self.figures.pop()
        if mine.link:
            self.links.pop()
        if mine.picture:
            self.sources.pop()
        if mine.block is not None or tag in _BREAKS:
            self._say(" ")

    def _mark(self, one: _Block | _Seen) -> None:
        self.marks.append((one, self.up))
        self.up = len(self.open)

    def _see(self, attributes: Mapping[str, str]) -> None:
        unseen = ""
        if self.unseen:
            unseen = "it is hidden"
        elif attributes.get("role", "").strip().lower() in ("none", "presentation"):
            unseen = "it is decorative: its role is presentation"
        elif "alt" in attributes and not attributes["alt"].strip():
            unseen = "it is decorative: its alt is empty"
        title = attributes.get("title", "")
        texts = {"alt": attributes.get("alt", ""), "title": title or (self.links[-1] if self.links else "")}
        where = addresses(attributes, self.sources[-1] if self.sources else ())
        seen = _Seen(Picture(len(self.seen) + 1, where, texts, unseen), self.block, len(self.open))
        self.seen.append(seen)
        if self.figures:
            self.captions.append((seen.picture, self.figures[-1]))
        if self.block is not None:
            self.block.pictures += 1
        if not unseen:
            self._mark(seen)

    def _finish(self) -> None:
        for mark, _ in self.marks:
            if isinstance(mark, _Block):
                mark.text = _plain("".join(mark.parts))
                mark.parts.clear()
        for picture, parts in self.captions:
            picture.texts["figcaption"] = "".join(parts)
        for seen, text in zip(self.seen, self._near(), strict=True):
            seen.picture.texts["near"] = text
            known = {voice: _plain(text) for voice, text in seen.picture.texts.items()}
            seen.picture.texts = {voice: text for voice, text in known.items() if text}

    def _near(self) -> list[str]:
        """Return the nearest text of each picture, as the factory defines it."""
        marks: list[tuple[_Block | _Seen, int]] = []
        up = 1 << 30
        for mark, way in self.marks:
            up = min(up, way)
            if isinstance(mark, _Seen) or mark.text:
                marks.append((mark, up))
                up = 1 << 30
        found = {}
        for place, (mark, up) in enumerate(marks):
            if isinstance(mark, _Seen):
                before = marks[place - 1][0] if place else None
                after, down = marks[place + 1] if place + 1 < len(marks) else (None, 0)
                heading = before.text if isinstance(before, _Block) and before.kind == "heading" else ""
                following = after.text if isinstance(after, _Block) else ""
                # At a tie the heading, which is as near to the picture as what follows.
                nearest = following if following and (not heading or down > up) else heading
                found[mark.picture.number] = _around(mark.block) or nearest
        return [found.get(seen.picture.number, "") for seen in self.seen]


def _around(block: _Block | None) -> str:
    """Return the text of the innermost block, or of the first further out that has some and no other picture."""
    is_first = True
    while block is not None and (is_first or block.pictures == 1):
        if block.text and block.kind != "caption":
            return block.text
        block, is_first = block.parent, False
    return ""


def _is_unseen(attributes: Mapping[str, str]) -> bool:
    return (
        attributes.get("hidden", "until-found").strip().lower() != "until-found"
        or attributes.get("aria-hidden", "").strip().lower() == "true"
        or bool(_UNSEEN.search(attributes.get("style", "")))
    )


def _plain(text: str) -> str:
    return " ".join(text.split())
