"""What a user can put right: said in one line by the command line, which then exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Says what was given, what was expected and what to do next."""


class StorageError(InputError):
    """Says that files are at fault and not what was asked: damaged, full or in use."""


class UnreadableError(Exception):
    """One sample that its source can't read; the data engine records it and goes on.

    Args:
        key: the sample's key.
        reason: why it can't be read.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type[UnreadableError], tuple[str, str]]:
        return UnreadableError, (self.key, self.reason)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" if a known name is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "none is known"
