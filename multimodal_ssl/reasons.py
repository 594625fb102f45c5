"""What else is wrong with samples: they repeat, share an item with many, were cut, do not fit their group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import Traits
from multimodal_ssl.neighbours import neighbours

MANY = 10  # groups that share one item
NEAR = 0.99  # cosine, in all modalities, from which two samples of different groups are near duplicates

Reasons = list[list[str]]


def repeated(keys: Sequence[str], traits: Sequence[Sequence[Traits]]) -> Reasons:
    """Return of each sample the one before it that its encoders can't tell from it; traits: of each item [N]."""
    seen: dict[tuple[int, ...], str] = {}
    found: Reasons = []
    for key, digests in zip(keys, joint_digests(traits), strict=True):
        before = seen.setdefault(digests, key)
        found.append([] if before == key else [f"duplicate of {before}"])
    return found


def joint_digests(traits: Sequence[Sequence[Traits]]) -> list[tuple[int, ...]]:
    """Return the digests of each sample, from the traits of each of its items [N]."""
    return [tuple(one.digest for one in items) for items in zip(*traits, strict=True)]


def nearly_repeated(keys: Sequence[str], views: Sequence[NDArray[np.float32]], groups: NDArray[np.int64]) -> Reasons:
    """Return of each sample the nearest one of another group, if in all views [N, D] it is as good as the same."""
    twins = near_twins(views, views, groups, groups)
    return [[f"near duplicate of {keys[twin]}"] if twin >= 0 else [] for twin in twins]


def near_twins(
    views: Sequence[NDArray[np.float32]],
    others: Sequence[NDArray[np.float32]],
    groups: NDArray[np.int64],
    other_groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the row [N] among the others of the nearest one of another group that is the same in all views, or -1.

    The same, that is: a cosine of NEAR at least. Views [N, D] and others [M, D] are unit vectors. Only the few nearest
    are looked at: a sample among many of its own group may be missed.
    """
    joint, all_others = (np.concatenate(one, 1) / np.sqrt(len(one), dtype=np.float32) for one in (views, others))
    found = np.full(len(joint), -1)
    for column in neighbours(all_others, joint, 8).T[::-1]:  # the nearest comes last and stays
        same = groups != other_groups[column]
        for view, other in zip(views, others, strict=True):
            same &= (view * other[column]).sum(1) >= NEAR
        found = np.where(same, column, found)
    return found


def shared(name: str, traits: Sequence[Traits], groups: NDArray[np.int64]) -> Reasons:
    """Return of each item how many other groups have the same one, if they are many: it says little of each."""
    holders: dict[int, set[int]] = defaultdict(set)
    for one, group in zip(traits, groups.tolist(), strict=True):
        holders[one.digest].add(group)
    counts = [len(holders[one.digest]) - 1 for one in traits]
    return [[f"{name} of {count} other groups"] if count >= MANY else [] for count in counts]


def counted(name: str, traits: Sequence[Traits]) -> Reasons:
    """Return what the encoder tells of each item, such as ``text truncated``."""
    return [[f"{name} {what}" for what, count in one.tally.items() if count] for one in traits]


def quarrelling(name: str, probability: NDArray[np.float64], least: float) -> Reasons:
    """Return which items do not fit their group, from the probability [N] of it (NaN: nothing to compare with)."""
    return [[f"{name} does not fit its group"] if one >= least else [] for one in probability]


def merge(parts: Sequence[Reasons]) -> Reasons:
    """Return all reasons of each sample."""
    return [[reason for part in row for reason in part] for row in zip(*parts, strict=True)]


def count(reasons: Sequence[Sequence[str]]) -> Mapping[str, int]:
    """Return how many samples have each kind of reason, numbers and keys left out."""
    kinds: dict[str, int] = defaultdict(int)
    for row in reasons:
        for kind in {_kind(reason) for reason in row}:
            kinds[kind] += 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _kind(reason: str) -> str:
    for told in ("near duplicate of", "duplicate of", "unreadable"):
        if reason.startswith(told):
            return told.removesuffix(" of")
    return " ".join("many" if word.isdecimal() else word for word in reason.split())
