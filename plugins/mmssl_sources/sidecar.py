"""The JSON object beside the files of a sample: its texts and what else is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the object; raise ValueError if it is none."""
    try:
        known = json.loads(body.decode("utf-8-sig"))
        if b"\\u" in body:
            json.dumps(known, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair, which is no text") from error
    if not isinstance(known, dict):
        raise ValueError(f"it is no JSON object, but {_short(known)}")
    return known


def text_of(known: Mapping[str, Any], field: str) -> str:
    """Return a field as text; raise ValueError if it holds none."""
    value = known.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        some = ", ".join(list(known)[:10]) or "none"
        raise ValueError(f"its JSON has no text in {field!r} (given: {_short(value)}; fields: {some})")
    return str(value)


def plain_of(known: Mapping[str, Any], field: str) -> str | float | None:
    """Return a field as metadata: lists and objects as JSON, None where there is none; raise ValueError if it can't."""
    value = known.get(field)
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError(f"{field!r} of its JSON is nested too deep") from error


def _short(value: Any) -> str:
    try:
        return repr(str(value)[:40])
    except RecursionError:
        return "what is nested too deep"
