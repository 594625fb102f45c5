"""Subtitles: what is said when, from SRT and WebVTT files and from streams in video files."""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmssl_video.container import Media, MediaError, opened, origin, read_lazy

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^}]*\}|\{/?[biuBIU]\}")
_NO_CUE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")


class Cue(NamedTuple):
    """What is said from start to end (seconds)."""

    start: float
    end: float
    text: str


def parse(data: bytes | str) -> tuple[list[Cue], list[tuple[str, str]]]:
    """Return the cues of an SRT or WebVTT file in order of time, and the lines that can't be used, with why.

    It is UTF-8, or UTF-16 with a byte order mark. Tags are taken off, entities are resolved.
    """
    lines = _text(data).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cues: list[Cue] = []
    broken: list[tuple[str, str]] = []
    row = 0
    while row < len(lines):
        end = row
        while end < len(lines) and lines[end].strip():
            end += 1
        block = lines[row:end]
        # A file that lacks blank lines has several cues in a block.
        timed = [place for place, line in enumerate(block) if "-->" in line]
        head = bool(block) and ((block[0].startswith("WEBVTT") and row == 0) or bool(_NO_CUE.match(block[0])))
        if block and not timed and not head:
            broken.append((f"line {row + 1}", f"{block[0][:40]!r} has no time"))
        for number, place in enumerate(timed):
            last = len(block)
            if number + 1 < len(timed):
                last = timed[number + 1]
                last -= last - place > 1 and block[last - 1].strip().isdigit()
            cue = _cue(block[place], block[place + 1 : last])
            if isinstance(cue, str):
                broken.append((f"line {row + place + 1}", cue))
            elif cue.text:
                cues.append(cue)
        row = end + 1
    return sorted(cues, key=lambda cue: cue.start), broken


def read_file(item: Media) -> tuple[list[Cue], list[tuple[str, str]]]:
    """Read subtitles from a path, or from the bytes or the text of a file."""
    found: Any = read_lazy(item)
    if isinstance(found, bytes | str):
        return parse(found)
    try:
        return parse(found.read_bytes())
    except OSError as error:
        raise MediaError(f"its subtitles can't be read: {error.strerror or error}") from error


def read_stream(media: Media) -> list[Cue]:
    """Return the cues of the first stream of subtitles in a video file that is text; none if there is none.

    The file is read to its end, but nothing else is decoded.
    """
    cues = []
    with opened(media) as container:
        begin = origin(container)
        stream = next((one for one in container.streams.subtitles if one.codec_context is not None), None)
        if stream is None:
            return []
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            start = float(packet.pts * packet.time_base) - begin
            end = start + float((packet.duration or 0) * packet.time_base)
            for one in packet.decode():
                text = clean(one.dialogue.decode("utf-8", "replace")) if hasattr(one, "dialogue") else ""
                if text and end > start:
                    cues.append(Cue(start, end, text))
    return sorted(cues, key=lambda cue: cue.start)


def spoken(cues: Sequence[Cue], start: float, end: float) -> str:
    """Return what is said from start to end: the cues of which half lies there, or that fill half of it."""
    said = []
    for cue in cues:
        shared = min(cue.end, end) - max(cue.start, start)
        if shared > 0 and 2 * shared >= min(cue.end - cue.start, end - start):
            said.append(cue.text)
    return " ".join(said)


def clean(text: str) -> str:
    """Return the words of a cue without tags, entities and line breaks."""
    plain = _TAG.sub("", text.replace("\\N", " ").replace("\\n", " ").replace("\\h", " "))
    return " ".join(html.unescape(plain).split())


def _cue(times: str, lines: Sequence[str]) -> Cue | str:
    """Return a cue, or why it is none."""
    found = _TIMES.fullmatch(times)
    if not found:
        return f"{times.strip()[:60]!r} is no time such as 00:00:01,000 --> 00:00:02,000"
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end <= start:
        return f"{times.strip()[:60]!r} ends before it begins"
    return Cue(start, end, clean("\n".join(lines)))


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, part = parts
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0) + int((part or "").ljust(3, "0")) / 1000


def _text(data: bytes | str) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise MediaError(f"its subtitles are not UTF-8 (at byte {error.start}): convert the file") from error
