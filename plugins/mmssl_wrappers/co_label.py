"""The pairing source ``co-label``: collections that nobody paired, paired at random by a label that they share."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from mmssl_wrappers.reading import count, fact, facts_of, random_access, some, tell, text_of, unknown
from mmssl_wrappers.together import Together, check_names
from multimodal_ssl import InputError, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import attempt, hash64
from multimodal_ssl.skipped import Skipped

Labels = dict[str, list[int]]


def co_label(sources: Mapping[str, PairingSource], label: str, *, repeats: int, seed: int) -> MapSource:
    """Pair collections by a label, see the plugin's `open_co_label`."""
    if len(sources) < 2:
        raise InputError(f"co-label.sources has {len(sources)}: give two or more, e.g. {{pictures: ..., sounds: ...}}")
    maps = {
        name: random_access(source, f"co-label: {name}", "write it to a table first")
        for name, source in sources.items()
    }
    names = [
        {one: one for one in source.modalities if one != label or n == 0} for n, source in enumerate(maps.values())
    ]
    check_names(names, "co-label", "give those of one another name there")
    unreadable: list[tuple[str, str]] = []
    found = [_read(name, source, label, unreadable) for name, source in maps.items()]
    shared = sorted(set.intersection(*(set(labels) for labels in found)))
    if not shared:
        told = "; ".join(f"{name}: {some(sorted(labels))}" for name, labels in zip(maps, found, strict=True))
        raise InputError(f"co-label: no {label} is in all collections ({told}); spell them alike")
    alone = sorted(set.union(*(set(labels) for labels in found)) - set(shared))
    if alone:
        left = sum(len(labels.get(one, [])) for labels in found for one in alone)
        tell(f"co-label: {count(left, 'sample')} left out, whose {label} is not in all collections, e.g. {some(alone)}")
    rows, groups = list[tuple[int, ...]](), list[str]()
    for one in shared:
        pairs = pair([labels[one] for labels in found], repeats=repeats, seed=int(hash64([f"{seed} {one}"])[0]))
        rows += pairs
        groups += [one] * len(pairs)
    skipped = Skipped([("", unreadable), *((f"{name}/", source.skipped) for name, source in maps.items())])
    return Together(list(maps.values()), names, np.array(rows, np.int64), groups, [1.0] * len(rows), skipped)


def pair(collections: list[list[int]], *, repeats: int, seed: int) -> list[tuple[int, ...]]:
    """Return different tuples of a row of each collection, those of the largest as often as told, at random.

    Each turn goes once through the largest and round and round through the others, begun at another combination of
    places. There are no more turns than combinations.
    """
    rng = random.Random(seed)
    shuffled = [rng.sample(rows, len(rows)) for rows in collections]
    sizes = [len(rows) for rows in shuffled]
    longest = sizes.index(max(sizes))
    turns = [1 if n == longest else size for n, size in enumerate(sizes)]
    pairs = []
    for turn in rng.sample(range(math.prod(turns)), min(repeats, math.prod(turns))):
        shifts = []
        for size in turns:
            turn, shift = divmod(turn, size)
            shifts.append(shift)
        pairs += [
            tuple(rows[(place + shift) % len(rows)] for rows, shift in zip(shuffled, shifts, strict=True))
            for place in range(sizes[longest])
        ]
    return pairs


def _read(name: str, source: MapSource, label: str, unreadable: list[tuple[str, str]]) -> Labels:
    """Return the rows of each label; what can't be read is added to unreadable."""
    found: Labels = defaultdict(list)
    known, without = set[str](), 0
    for row, sample in attempt(source):
        try:
            if not isinstance(sample, Sample):
                raise sample
            known |= facts_of(sample, source.modalities)
            value = text_of(fact(sample, label))
        except UnreadableError as error:
            unreadable.append((f"{name}/{error.key}", error.reason))
            continue
        if value is None:
            without += 1
        else:
            found[value].append(row)
    if not found:
        raise unknown(label, known - {label}, f"co-label.label, {name}")
    if without:
        tell(f"co-label: {count(without, 'sample')} of {name} left out, which have no {label}")
    return dict(found)
