"""Items of samples under names and a key of their own, none of which is looked at before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

from multimodal_ssl.errors import UnreadableError


@final
class Items(Mapping[str, Any]):
    """The items of one sample, each taken from the items of another when it is asked for, which may decode it.

    Args:
        key: that of the sample, which is told of an item that can't be read.
        places: name -> the items that it is taken from, and its name there.
    """

    def __init__(self, key: str, places: Mapping[str, tuple[Mapping[str, Any], str]]) -> None:
        self.key, self.places = key, places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places  # Mapping's own would decode

    def __getitem__(self, name: str) -> Any:
        items, old = self.places[name]
        try:
            return items[old]
        except UnreadableError as error:
            raise UnreadableError(self.key, error.reason) from error


def rekeyed(key: str, items: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the items of a sample that has another key now; those of a dict can all be read."""
    return items if isinstance(items, dict) else Items(key, {name: (items, name) for name in items})


def find(items: Mapping[str, Any], name: str) -> Any:
    """Return an item, or the UnreadableError that says why it can't be read."""
    try:
        return items[name]
    except UnreadableError as error:
        return error


def overlay(key: str, below: Mapping[str, Any], above: Mapping[str, Mapping[str, Any] | None]) -> Items:
    """Return the items below, of which some are those of other samples, and some left out (None).

    Args:
        above: name -> the items that it is taken from.
    """
    taken = {name: above.get(name, below) for name in below}
    return Items(key, {name: (items, name) for name, items in taken.items() if items is not None and name in items})
