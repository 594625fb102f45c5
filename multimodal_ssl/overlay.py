"""Items of a sample, some of them changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Overlay(Mapping[str, Any]):
    """The items below, of which some are those of other samples, and some left out (None): none is read before its use.

    Args:
        above: name -> the items that it is taken from.
    """

    def __init__(self, below: Mapping[str, Any], above: Mapping[str, Mapping[str, Any] | None]) -> None:
        self.below, self.above = below, above

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.below if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        found = self.above.get(name, self.below) if isinstance(name, str) else None
        return found is not None and name in found

    def __getitem__(self, name: str) -> Any:
        found = self.above.get(name, self.below)
        if found is None:
            raise KeyError(name)
        return found[name]
