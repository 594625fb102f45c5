"""Readings at any times, resampled to a regular grid; per channel, for its missing values count for nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Method: TypeAlias = Literal["nearest", "linear", "mean"]


class Spots(NamedTuple):
    """Which readings make the value of each grid point [G].

    Attributes:
        first, last: for mean those from first to before last; else the last at or before it, and the first at or after
            it, which are -1 and N where there is none.
    """

    first: Ints
    last: Ints


def find(times: Ints, grid: Ints, method: Method, tolerance: int) -> Spots:
    """Return the spots of a grid [G] among the times [N] of readings, both in ns, the latter rising."""
    if method == "mean":
        return Spots(np.searchsorted(times, grid - tolerance), np.searchsorted(times, grid + tolerance))
    after = np.searchsorted(times, grid)
    exact = np.append(times, np.iinfo(np.int64).max)[after] == grid
    return Spots(np.where(exact, after, after - 1), after)


def narrow(spots: Spots, valid: NDArray[np.bool_], method: Method) -> Spots:
    """Return the spots of one channel, whose values are valid [N] (bool) or missing."""
    if method == "mean":
        return spots  # a sum can leave out the missing ones
    count, places = len(valid), np.arange(len(valid))
    before = np.append(np.maximum.accumulate(np.where(valid, places, -1)), -1)  # index -1 is the last, which is -1
    after = np.append(np.minimum.accumulate(np.where(valid, places, count)[::-1])[::-1], count)
    return Spots(before[spots.first], after[spots.last])


def present(
    times: Ints, grid: Ints, spots: Spots, method: Method, tolerance: int, valid: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return which grid points have a value, [G] (bool); valid is None if all readings are."""
    if method == "mean":
        if valid is None:
            return spots.last > spots.first
        upto = np.concatenate([[0], np.cumsum(valid)])
        found: NDArray[np.bool_] = upto[spots.last] > upto[spots.first]
        return found
    before, after = _near(times, grid, spots, tolerance)
    return before & after if method == "linear" else before | after


def resample(
    times: Ints, values: NDArray[np.float32], grid: Ints, method: Method, tolerance: int
) -> NDArray[np.float32]:
    """Return values [C, N] at the points of a grid, [C, G], NaN where no reading is within the tolerance.

    nearest takes the nearest reading, the earlier of two. linear goes straight from the last reading to the next one,
    both within the tolerance. mean is that of the readings from tolerance before to just before tolerance after.
    """
    spots = find(times, grid, method, tolerance)
    out = np.full((len(values), len(grid)), np.nan, np.float32)
    for row, channel in zip(out, values, strict=True):
        valid = ~np.isnan(channel)
        if not valid.any():
            continue
        own = spots if valid.all() else narrow(spots, valid, method)
        here = present(times, grid, own, method, tolerance, valid)
        if method == "mean":
            row[here] = _mean(channel, valid, Spots(own.first[here], own.last[here]))
        elif method == "linear":
            row[here] = _between(times, channel, grid[here], Spots(own.first[here], own.last[here]))
        else:
            row[here] = channel[_nearest(times, grid[here], Spots(own.first[here], own.last[here]))]
    return out


def count_missing(
    times: Ints, values: NDArray[np.float32], grid: Ints, method: Method, tolerance: int
) -> NDArray[np.int64]:
    """Return how many of the C channels `resample` leaves NaN at each point, [G]."""
    spots = find(times, grid, method, tolerance)
    missing = np.zeros(len(grid), np.int64)
    whole = 0
    for channel in values:
        valid = ~np.isnan(channel)
        if valid.all():
            whole += 1
        else:
            missing += ~present(times, grid, narrow(spots, valid, method), method, tolerance, valid)
    if whole:
        missing += whole * ~present(times, grid, spots, method, tolerance, None)
    return missing


def _near(times: Ints, grid: Ints, spots: Spots, tolerance: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether the reading before, and the one after, is within the tolerance."""
    if not len(times):
        return np.zeros(len(grid), bool), np.zeros(len(grid), bool)
    before = (spots.first >= 0) & (grid - times[spots.first] <= tolerance)
    after = (spots.last < len(times)) & (times[np.minimum(spots.last, len(times) - 1)] - grid <= tolerance)
    return before, after


def _nearest(times: Ints, grid: Ints, spots: Spots) -> Ints:
    last = np.minimum(spots.last, len(times) - 1)
    earlier = (spots.first >= 0) & ((spots.last == len(times)) | (grid - times[spots.first] <= times[last] - grid))
    return np.where(earlier, spots.first, last)


def _between(times: Ints, channel: NDArray[np.float32], grid: Ints, spots: Spots) -> NDArray[np.float64]:
    start, end = times[spots.first], times[spots.last]
    share = (grid - start) / np.maximum(end - start, 1)
    before, after = channel[spots.first].astype(np.float64), channel[spots.last].astype(np.float64)
    return before + (after - before) * share


def _mean(channel: NDArray[np.float32], valid: NDArray[np.bool_], spots: Spots) -> NDArray[np.float64]:
    # The end of one bin to the start of the next is a sum too, of no use; the 0 at the end lets a bin reach it.
    edges = np.stack([spots.first, spots.last], 1).ravel()
    padded = np.append(np.where(valid, channel, 0).astype(np.float64), 0)
    counts = np.append(valid, False).astype(np.int64)
    mean: NDArray[np.float64] = np.add.reduceat(padded, edges)[::2] / np.add.reduceat(counts, edges)[::2]
    return mean
