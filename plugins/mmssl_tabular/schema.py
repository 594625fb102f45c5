"""What columns there are, what they hold, and the numbers that stand for it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmssl_tabular.modality import Row, is_missing
from multimodal_ssl import InputError
from multimodal_ssl.errors import nearest

FEW, STRAY = 50, 0.05  # of more values than that, what is no number in a smaller share is a slip
BEYOND = 1.0  # widths of a bin: how far a number counts outside the range that was seen


class Encoded(NamedTuple):
    """What stands for a row.

    Attributes:
        numbers: the piecewise-linear encoding of each number, 0 where there is none [C, bins] (float32).
        codes: 0 for a number, else that of its category; of column i, 1 + 2i is missing and 2 + 2i unknown [C] (int64).
    """

    numbers: NDArray[np.float32]
    codes: NDArray[np.int64]


class Schema:
    """The columns of the rows of one encoder, C of them, at first none.

    Attributes:
        edges: column of numbers -> the edges of its bins [bins + 1], rising.
        values: column of categories -> category -> code.
    """

    def __init__(self, *, bins: int) -> None:
        self.bins = bins
        self.names: list[str] = []
        self.edges: dict[str, NDArray[np.float64]] = {}
        self.values: dict[str, dict[str, int]] = {}

    def learn(self, rows: Iterable[Row], *, categories: Sequence[str], columns: int, vocabulary: int) -> None:
        """Find the columns, the bins of their numbers (their quantiles) and their commonest categories."""
        counts: dict[str, Counter[float | str]] = {}
        for row in rows:
            for name, cell in row.items():
                counts.setdefault(name, Counter()).update([] if is_missing(cell) else [cell])
        if len(counts) > columns:
            raise InputError(f"the rows have {len(counts)} columns, but columns={columns}: set it to that or more")
        for name in categories:
            if counts and name not in counts:
                raise InputError(f"categories: no row has a column {name!r}: {nearest(name, counts)}")
        self.names, self.edges, self.values = list(counts), {}, {}
        found: Counter[tuple[str, str]] = Counter()
        for name, count in counts.items():
            numbers = [] if name in categories else [_number(cell) for cell in count]
            _refuse_strays(name, count, numbers)
            if numbers and not np.isnan(numbers).any():
                spread = np.repeat(numbers, list(count.values()))
                self.edges[name] = np.quantile(spread, np.linspace(0, 1, self.bins + 1))
            else:
                self.values[name] = {}
                for cell, times in count.items():
                    found[name, _category(cell)] += times
        common = sorted(found, key=lambda one: (-found[one], one))[:vocabulary]
        for code, (name, category) in enumerate(common, 1 + 2 * columns):
            self.values[name][category] = code

    def encode(self, row: Row) -> Encoded:
        """Encode the cells of a row in the order of the columns; those that it lacks are missing."""
        for name in row:
            if name not in self.edges and name not in self.values:
                raise ValueError(f"no row had a column {name!r} before training: {nearest(name, self.names)}")
        numbers = np.zeros((len(self.names), self.bins), np.float32)
        codes = np.zeros(len(self.names), np.int64)
        found: dict[int, float] = {}
        for place, name in enumerate(self.names):
            cell = row.get(name, math.nan)
            if is_missing(cell):
                codes[place] = 1 + 2 * place
            elif name in self.values:
                codes[place] = self.values[name].get(_category(cell), 2 + 2 * place)
            elif math.isnan(number := _number(cell)):
                raise ValueError(f"column {name!r} was of numbers before training, but now holds {cell!r}")
            else:
                found[place] = number
        if found:
            edges = np.stack([self.edges[self.names[place]] for place in found])
            numbers[list(found)] = encode_numbers(np.array(list(found.values())), edges)
        return Encoded(numbers, codes)

    def dump(self) -> str:
        """Return it as JSON."""
        edges = {name: one.tolist() for name, one in self.edges.items()}
        return json.dumps({"names": self.names, "edges": edges, "values": self.values})

    def restore(self, text: str) -> None:
        """Take what `dump` gave."""
        told = json.loads(text)
        self.names, self.values = told["names"], told["values"]
        self.edges = {name: np.array(one) for name, one in told["edges"].items()}


def _refuse_strays(name: str, count: Counter[float | str], numbers: Sequence[float]) -> None:
    """Raise InputError if the cells of a column are numbers but for a few; numbers are its different cells or empty."""
    strays = [cell for cell, number in zip(count, numbers, strict=False) if math.isnan(number)]
    if strays and count.total() > FEW and sum(count[cell] for cell in strays) < STRAY * count.total():
        shown = ", ".join(map(repr, strays[:3])) + ", ..." * (len(strays) > 3)
        raise InputError(
            f"column {name!r} holds numbers, but {sum(count[cell] for cell in strays)} of its {count.total():,} values "
            f"are none ({shown}): make them empty, or name the column in `categories`"
        )


def encode_numbers(numbers: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far numbers [n] have come in each of their bins [n, bins], whose edges are [n, bins + 1].

    That is 0 below a bin and 1 above it (Gorishniy et al. 2022, eq. 1). It is linear beyond the first and last edge,
    too, for a while. A bin without width is a step.
    """
    low, widths, number = edges[:, :-1], np.diff(edges), numbers[:, np.newaxis]
    share = np.where(widths > 0, (number - low) / np.where(widths > 0, widths, 1), number >= edges[:, 1:])
    inside = share.clip(0, 1)
    inside[:, 0] = share[:, 0].clip(-BEYOND, inside[:, 0])
    inside[:, -1] = share[:, -1].clip(inside[:, -1], 1 + BEYOND)
    return inside


def _number(cell: float | str) -> float:
    """Return a cell as a number, NaN if it is none."""
    try:
        number = math.nan if isinstance(cell, str) and "_" in cell else float(cell)  # Python takes 1_0 for 10
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _category(cell: float | str) -> str:
    """Return a cell as a category: 3 and "3" are the same."""
    return cell if isinstance(cell, str) else str(int(cell)) if cell.is_integer() else repr(cell)
