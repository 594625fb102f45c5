"""Turns by shares: supplies of training take them, and within one of them the samples that have the same items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Turns:
    """Who of some is next, at each step the one that is furthest behind its share [M].

    They are counted from the first step on, or from the last one that was asked for.
    """

    def __init__(self, shares: NDArray[np.float64]) -> None:
        self.shares, self.step = shares, 0
        self.had = np.zeros(len(shares), np.int64)

    def __getitem__(self, n: int) -> tuple[int, int]:
        """Return whose turn step n is, and how many turns they had before."""
        if n < self.step:
            self.step, self.had = 0, np.zeros_like(self.had)
        turn = 0
        while self.step <= n:
            turn = int(np.argmax(self.shares * (self.step + 1) - self.had))
            self.had[turn] += 1
            self.step += 1
        return turn, int(self.had[turn]) - 1
