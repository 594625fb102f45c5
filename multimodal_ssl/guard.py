"""The old skill of encoders, which training for something new may cost: measured before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from multimodal_ssl.binder import Binder
from multimodal_ssl.blending import untrained
from multimodal_ssl.comparison import Comparison, compare
from multimodal_ssl.data import Supply, hash64
from multimodal_ssl.embed import embed
from multimodal_ssl.errors import InputError
from multimodal_ssl.evaluation import Evaluation
from multimodal_ssl.metrics import Answers, answer
from multimodal_ssl.pipeline import open_supplies, run_config
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import load


def guard(run: Path | str, *, binder: Binder | None = None, catalog: Catalog | None = None) -> list[Comparison]:
    """Compare the old skill of a run's encoders after training (`this`) with that before (`other`)."""
    catalog = catalog or Catalog.discover()
    binder = binder or load(run, catalog=catalog)
    supplies = open_guard(run, catalog)
    return compare(old_skill(binder, supplies), old_skill(untrained(run, catalog=catalog), supplies))


def open_guard(run: Path | str, catalog: Catalog) -> list[Supply]:
    """Open the guard's sources of a run; raise InputError if its config has none."""
    config = run_config(run)
    if not config.guard:
        raise InputError(f"the config of {run} has no `guard:` sources, which show what the encoders could do before")
    return open_supplies(config.guard, catalog)


def old_skill(binder: Binder, supplies: Sequence[Supply], *, workers: int = 0) -> Evaluation:
    """Measure what encoders can do without their heads.

    Of each modality whether the other items of a group are found by one of it, half of each group being the gallery;
    and between two modalities whose encoders have no head, whose features so share a space, retrieval.
    """
    bare = binder.with_encoders({name: binder.encoder(name) for name in binder.encoders}, binder.modalities)
    bare.heads = nn.ModuleDict({name: nn.Identity() for name in binder.encoders})
    items, _ = embed(bare, supplies, workers=workers)
    answers: dict[tuple[str, str], Answers] = {}
    groups = {name: hash64(one.groups) for name, one in items.items()}
    joint = [name for name in items if isinstance(binder.heads[name], nn.Identity)]
    for name, one in items.items():
        gallery = _second(groups[name])
        if gallery.any():
            found = answer(one.vectors[gallery], one.vectors[~gallery], groups[name][gallery], groups[name][~gallery])
            answers[name, name] = found
    for query in joint:
        for gallery_name in joint:
            if query != gallery_name and not set(items[query].groups).isdisjoint(items[gallery_name].groups):
                answers[query, gallery_name] = answer(
                    items[query].vectors, items[gallery_name].vectors, groups[query], groups[gallery_name]
                )
    if not answers:
        raise InputError(
            "the guard's sources show no skill: no two of their items are of one group, and no two modalities share a "
            "space before training (head: none); give sources with groups, such as classes"
        )
    return Evaluation(items, answers)


def _second(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return of each item whether it is the second, the fourth ... of its group."""
    order = np.argsort(groups, kind="stable")
    begins = np.concatenate([[True], np.diff(groups[order]) != 0])
    place = np.arange(len(groups)) - np.maximum.accumulate(np.where(begins, np.arange(len(groups)), 0))
    second = np.empty(len(groups), bool)
    second[order] = place % 2 == 1
    return second


def mean_recall(answers: Mapping[tuple[str, str], Answers]) -> float:
    """Return R@1, the mean over directions."""
    return float(np.mean([one.values["R@1"].mean() for one in answers.values()]))
