"""What sources that are read shard by shard have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from multimodal_ssl import PairingSource, Sample


class Shards(PairingSource):
    """A source of several shards: all of them are read one after the other, and what is skipped is told once.

    Its own `read` adds to ``_skipped`` place and reason of what it skips, in each epoch anew.
    """

    def __init__(self) -> None:
        self._skipped: dict[tuple[str, str], None] = {}

    @property
    def skipped(self) -> list[tuple[str, str]]:  # type: ignore[override]  # an attribute there, made anew here
        return list(self._skipped)

    def __iter__(self) -> Iterator[Sample]:
        return itertools.chain.from_iterable(self.read(shard, 0) for shard in range(self.num_shards))
