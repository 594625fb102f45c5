"""What several sources skipped, as one list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import final, overload


@final
class Skipped(Sequence[tuple[str, str]]):
    """What several sources skipped, as one list that grows with theirs; each has a prefix for its places."""

    def __init__(self, parts: Sequence[tuple[str, Collection[tuple[str, str]]]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(skipped) for _, skipped in self.parts)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        return list(self)[index]

    def __iter__(self) -> Iterator[tuple[str, str]]:  # that of Sequence would build the list for each
        return ((prefix + place, reason) for prefix, skipped in self.parts for place, reason in skipped)
