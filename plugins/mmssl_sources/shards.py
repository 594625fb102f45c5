"""What sources that are read shard by shard have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from multimodal_ssl import PairingSource, Sample


class Shards(PairingSource):
    """A source of several shards: all of them are read one after the other, and what is skipped is told once.

    Its own `read` gives `_tell` place and reason of what it skips, in each epoch anew.
    """

    def __init__(self) -> None:
        self.skipped: Sequence[tuple[str, str]]
        self.skipped = self._skipped = list[tuple[str, str]]()  # one list that grows, since wrappers keep it
        self._told = set[tuple[str, str]]()

    def _tell(self, skipped: Iterable[tuple[str, str]]) -> None:
        for one in skipped:
            if one not in self._told:
                self._told.add(one)
                self._skipped.append(one)

    def __iter__(self) -> Iterator[Sample]:
        return itertools.chain.from_iterable(self.read(shard, 0) for shard in range(self.num_shards))
