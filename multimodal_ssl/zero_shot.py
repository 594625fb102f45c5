"""Zero-shot classification: the class of an item is the one whose name, put into words, is nearest to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.binder import Binder
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.metrics import Estimate, answer, wilson_interval

TEMPLATES: dict[str, Sequence[str]] = {
    "image": ("{}", "a {}", "a photo of a {}", "a picture of the {}"),
    "video": ("{}", "a {}", "a video of a {}", "a clip of the {}"),
    "audio": ("{}", "a {}", "the sound of a {}", "a recording of the {}"),
}
PLAIN = ("{}",)  # for any other modality


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """How often items are nearest to their own class.

    Attributes:
        items: name of the items; `n` were classified, `left_out` have no label, or one that is no class.
        classes: number of classes to choose from.
        prompts: class -> what it was put into.
        top_1, top_5: share of items whose class is the nearest, or one of the five nearest.
        mean_per_class: mean over classes of their share of top 1, so that each counts alike; interval over classes.
        by_class: class -> its share of top 1.
    """

    items: str
    n: int
    left_out: int
    classes: int
    prompts: dict[str, list[str]]
    top_1: Estimate
    top_5: Estimate
    mean_per_class: Estimate
    by_class: dict[str, float]


def read_classes(path: Path) -> dict[str, str | list[str]]:
    """Read a JSON file of classes, each with its name or a list of prompts."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't read the classes {path}: {error}") from error
    if not isinstance(found, dict) or not found:
        raise InputError(f'{path} must hold classes with names or prompts, e.g. {{"cat": "cat", "dog": ["a dog"]}}')
    for name, one in found.items():
        prompts = one if isinstance(one, list) else [one]
        if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
            raise InputError(f"{path}: the class {name!r} must have a name or a list of prompts (given: {one!r:.60})")
    return found


def read_templates(path: Path) -> list[str]:
    """Read a text file of templates, one a line, with {} in the place of the name."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"can't read the templates {path}: {error}") from error
    templates = [line for line in lines if line]
    wrong = [line for line in templates if line.count("{}") != 1]
    if wrong or not templates:
        raise InputError(
            f"{path} must hold templates such as `a photo of a {{}}`, one a line (given: {', '.join(wrong) or 'none'})"
        )
    return templates


def classify(
    binder: Binder,
    items: Mapping[str, Embedded],
    name: str,
    *,
    by: str = "text",
    label: str | None = None,
    classes: Mapping[str, str | Sequence[str]] | None = None,
    templates: Sequence[str] | None = None,
) -> ZeroShot:
    """Classify items by the vectors of class names (CLIP, Radford et al. 2021, section 3.1.4).

    A class is the normalised mean over templates of the unit vectors of its name in each. Classes that tie count as
    their expectation.

    Args:
        name: of the items that are classified.
        by: name of the items, such as ``text``, that prompts are.
        label: metadata that is an item's class; its group if not given.
        classes: class -> its name, or its prompts, which are taken as they are; the labels if not given.
        templates: with {} in the place of a name; a few that suit the modality if not given.
    """
    if name not in items:
        raise InputError(f"the evaluation has no {name!r} to classify: {nearest(name, items)}")
    vectors, groups, labels = items[name].vectors, items[name].groups, labels_of(items[name], label)
    found = sorted({label for label in labels if label is not None})
    told = classes if classes is not None else {label: label for label in found}
    rows = np.flatnonzero([label in told for label in labels])
    if not len(rows):
        raise InputError(
            f"no {name} is of one of the classes: the labels are {_some(found)}, the classes {_some(list(told))}; "
            "give items a group, or say with --label which column of their metadata is the class"
        )
    filled: Sequence[str] = templates or TEMPLATES.get(binder.modalities[name].name, PLAIN)
    prompts = {
        label: [template.replace("{}", one) for template in filled] if isinstance(one, str) else list(one)
        for label, one in told.items()
    }
    names = list(prompts)
    numbers = {one: number for number, one in enumerate(names)}
    which = np.array([numbers[labels[row] or ""] for row in rows])
    answers = answer(vectors[rows], class_vectors(binder, by, prompts), which, np.arange(len(numbers)), ks=(1, 5))
    # Where the class is the group, it was not drawn: its items were.
    units = hash64(f"row {row}" if groups[row] == labels[row] else groups[row] for row in rows)
    best, second = answers.values["R@1"], answers.values["R@5"]
    chance = {k: float(answers.chance[f"R@{k}"].mean()) for k in answers.ks}
    right, number = np.bincount(which, best, len(numbers)), np.bincount(which, minlength=len(numbers))
    present = np.flatnonzero(number)
    per_class = right[present] / number[present]
    return ZeroShot(
        items=name,
        n=len(rows),
        left_out=len(labels) - len(rows),
        classes=len(prompts),
        prompts=prompts,
        top_1=Estimate(float(best.mean()), *wilson_interval(best, units), chance[1]),
        top_5=Estimate(float(second.mean()), *wilson_interval(second, units), chance[5]),
        mean_per_class=Estimate(
            float(per_class.mean()), *wilson_interval(per_class, np.arange(len(per_class))), chance[1]
        ),
        by_class={names[one]: share for one, share in zip(present, per_class.tolist(), strict=True)},
    )


def labels_of(items: Embedded, column: str | None) -> list[str | None]:
    """Return the label of each item: its group, or this column of its metadata; None of one that has none."""
    if column is None:
        # A sample without a group has one of its own: its key behind the position of its supply.
        own = (
            re.match(r"\d+/", group) and group.endswith(key)
            for group, key in zip(items.groups, items.keys, strict=True)
        )
        return [None if alone else group for group, alone in zip(items.groups, own, strict=True)]
    if not any(column in one for one in items.metadata):
        known = nearest(column, {name for one in items.metadata for name in one})
        raise InputError(f"no item has {column!r} in its metadata: {known}; a table has what `metadata: [...]` names")
    values = [one.get(column) for one in items.metadata]
    return [None if value is None else str(value) for value in values]


def class_vectors(binder: Binder, by: str, prompts: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
    """Return the normalised means [C, D] of the unit vectors of each class's prompts."""
    sizes = [len(one) for one in prompts.values()]
    vectors = binder.encode(by, [prompt for one in prompts.values() for prompt in one])
    means = np.add.reduceat(vectors, np.cumsum([0, *sizes[:-1]]), axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    unit: NDArray[np.float32] = means / np.maximum(lengths, 1e-12)
    return unit


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) or "none"
