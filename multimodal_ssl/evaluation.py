"""The items of an evaluation, embedded once, and how those of each modality find those of each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.metrics import Answers, answer


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a Binder makes of an evaluation.

    Attributes:
        items: name -> the items, which are one gallery, whichever source they come from.
        answers: names of queries and gallery -> how each query was answered.
    """

    items: Mapping[str, Embedded]
    answers: Mapping[tuple[str, str], Answers]


def evaluate(items: Mapping[str, Embedded]) -> Evaluation:
    """Search all items by those of every other name that has a group in common."""
    groups = {name: hash64(one.groups) for name, one in items.items()}
    answers = {
        (query, gallery): answer(items[query].vectors, items[gallery].vectors, groups[query], groups[gallery])
        for query, gallery in itertools.permutations(items, 2)
        if not set(items[query].groups).isdisjoint(items[gallery].groups)
    }
    return Evaluation(items, answers)
