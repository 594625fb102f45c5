"""What of an evaluation was trained on: items, and pairs of items, that have a twin among the training samples.

A twin is equal if the encoder can't tell the two apart (the digest of what it takes), near if the run's own vectors
have a cosine of NEAR at least. A model that tells little apart finds many near twins: look at them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.evaluation import Evaluation
from multimodal_ssl.metrics import Answers, wilson_interval
from multimodal_ssl.reasons import NEAR, joint_digests, near_twins


@dataclass(frozen=True, slots=True)
class Twin:
    """A sample of the evaluation, by its key, and its twin in training; the cosine is the least of their items'."""

    key: str
    twin: str
    equal: bool
    cosine: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which of n samples have twins in these items, worst first; two items have them in one sample of training.

    `crowded` is how many have a near twin of another group in the evaluation itself: the model tells them not apart.
    """

    items: tuple[str, ...]
    n: int
    crowded: int
    twins: list[Twin]


@dataclass(frozen=True, slots=True)
class Share:
    """R@1 of n queries, with its 95 % interval over groups."""

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LeakedRecall:
    """R@1 of all queries, of those whose pair, and of those whose own item has no twin; None if no query is left."""

    query: str
    gallery: str
    all: Share | None
    new_pair: Share | None
    new_item: Share | None


@dataclass(frozen=True, slots=True)
class Leaks:
    """What an evaluation shares with training, and what it does to R@1; `near` is the cosine of near twins."""

    near: float
    overlaps: list[Overlap]
    recall: list[LeakedRecall]


def find_leaks(evaluation: Evaluation, training: Mapping[str, Embedded]) -> Leaks:
    """Look for twins of the evaluation among what was trained on; both have to be embedded with traits."""
    names = [name for name in evaluation.items if name in training]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    overlaps = [_overlap(evaluation.items, training, some) for some in [*((name,) for name in names), *pairs]]
    leaked = {frozenset(one.items): {twin.key for twin in one.twins} for one in overlaps}
    recall = []
    for (query, gallery), answers in evaluation.answers.items():
        keys = [evaluation.items[query].keys[row] for row in answers.rows]
        pair, own = leaked.get(frozenset((query, gallery)), set()), leaked.get(frozenset((query,)), set())
        shares = (_recall(answers, keys, without) for without in (set(), pair, own))
        recall.append(LeakedRecall(query, gallery, *shares))
    return Leaks(NEAR, overlaps, recall)


def _overlap(items: Mapping[str, Embedded], training: Mapping[str, Embedded], names: Sequence[str]) -> Overlap:
    own, known = _together(items, names), _together(training, names)
    keys, others = own[0].keys, known[0].keys
    views, other_views = [one.vectors for one in own], [one.vectors for one in known]
    twins, crowded = [], 0
    if keys:
        groups = hash64(own[0].groups)
        crowded = int((near_twins(views, views, groups, groups) >= 0).sum())
    if keys and others:
        by_digest = dict(zip(joint_digests([one.traits for one in known]), range(len(others)), strict=True))
        equal = [by_digest.get(digests, -1) for digests in joint_digests([one.traits for one in own])]
        near = near_twins(views, other_views, np.zeros(len(keys), np.int64), np.ones(len(others), np.int64))
        for row, twin in enumerate(np.where(np.array(equal) >= 0, equal, near).tolist()):
            if twin >= 0:
                cosine = min(float(a[row] @ b[twin]) for a, b in zip(views, other_views, strict=True))
                twins.append(Twin(keys[row], others[twin], equal[row] >= 0, cosine))
    return Overlap(tuple(names), len(keys), crowded, sorted(twins, key=lambda one: (-one.equal, -one.cosine, one.key)))


def _together(found: Mapping[str, Embedded], names: Sequence[str]) -> list[Embedded]:
    """Return the items of the samples that have all of these, each in the same order."""
    places = [{key: row for row, key in enumerate(found[name].keys)} for name in names]
    keys = [key for key in places[0] if all(key in one for one in places)]
    together = []
    for name, place in zip(names, places, strict=True):
        rows = [place[key] for key in keys]
        traits = [found[name].traits[row] for row in rows]
        groups = [found[name].groups[row] for row in rows]
        together.append(Embedded(found[name].vectors[rows], keys, groups, traits=traits))
    return together


def _recall(answers: Answers, keys: Sequence[str], without: Collection[str]) -> Share | None:
    left = np.array([key not in without for key in keys])
    if not left.any():
        return None
    values = answers.values["R@1"][left]
    return Share(len(values), float(values.mean()), *wilson_interval(values, answers.groups[left]))
