"""The audit: which pairs of the training data are wrong, told by models that never saw them (cross-fitting)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimodal_ssl.config import Config, FoldConfig, PluginConfig
from multimodal_ssl.data import hash64
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.errors import InputError
from multimodal_ssl.files import replacing, write_text
from multimodal_ssl.pipeline import fit, load, open_supplies, trained_pairs
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.significance import (
    Rate,
    local_false_discovery_rate,
    near_p_values,
    rank_p_values,
    wrong_rate,
)  # fmt: skip

FEW = 200  # pairs, below which an interval is too wide to be of use
CUTS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class PairRate:
    """What is told of one pair of modalities.

    Attributes:
        pairs: number of pairs that were judged.
        gross: share of pairs whose partner might be anybody's, with its 95 % interval.
        any_upper: at most this share is wrong, partners that only resemble the right one among them.
        expected: cut of p_mismatch -> how many pairs are above it, and how many of those are expected to be wrong.
    """

    first: str
    second: str
    pairs: int
    gross: Rate
    any_upper: float
    expected: dict[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Audit:
    """The judgement of every pair, worst first: key, first, second, p_value, p_mismatch, suggestion; and the rates."""

    table: pa.Table
    rates: list[PairRate]
    unreadable: list[tuple[str, str]]

    def save(self, folder: Path) -> None:
        """Write audit.parquet and audit.json."""
        with replacing(folder / "audit.parquet") as temporary:
            pq.write_table(self.table, temporary)
        figures = {"rates": [asdict(one) for one in self.rates], "unreadable": self.unreadable}
        write_text(folder / "audit.json", json.dumps(figures, indent=2))


@dataclass(slots=True)
class _Judged:
    """The pairs of one fold: [N] each; suggestion is the key of the partner that would fit best."""

    keys: list[str]
    groups: NDArray[np.int64]
    p_values: NDArray[np.float64]
    near: NDArray[np.float64]
    suggestions: list[str]


def audit(
    config: Config, folder: Path, *, folds: int = 2, strangers: int = 1000, catalog: Catalog | None = None
) -> Audit:
    """Judge all pairs of the sources of a config.

    For each fold a model is trained on the others, with the active complementary loss, in a run folder of its own; a
    run that is there already is taken, one that was stopped goes on.
    """
    catalog = catalog or Catalog.discover()
    judged: dict[tuple[str, str], list[_Judged]] = {}
    unreadable: list[tuple[str, str]] = []
    for index in range(folds):
        run = folder / f"fold-{index}"
        binder = load(run, catalog=catalog) if (run / "binder.json").exists() else fit(
            _of_fold(config, run, folds, index, out=True), resume=True, catalog=catalog
        )  # fmt: skip
        supplies = open_supplies(_of_fold(config, run, folds, index, out=False).sources, catalog)
        found, lost = embed(binder, supplies, workers=config.train.workers)
        unreadable += lost
        for first, second in trained_pairs(supplies):
            one = _judge(found[first], found[second], strangers=strangers, seed=config.seed)
            judged.setdefault((first, second), []).append(one)
    parts, rates = [], []
    for (first, second), of_folds in judged.items():
        groups = np.concatenate([one.groups for one in of_folds])
        p_values, near = (np.concatenate([getattr(one, field) for one in of_folds]) for field in ("p_values", "near"))
        gross = wrong_rate(p_values, groups, seed=config.seed)
        probability = local_false_discovery_rate(p_values, gross.value)
        keys = list(itertools.chain.from_iterable(one.keys for one in of_folds))
        expected = {str(cut): _above(probability, cut) for cut in CUTS}
        upper = wrong_rate(near, groups, seed=config.seed).value
        rates.append(PairRate(first, second, len(keys), gross, max(gross.value, upper), expected))
        columns = {
            "key": keys, "first": [first] * len(keys), "second": [second] * len(keys), "p_value": p_values.tolist(),
            "p_mismatch": probability.tolist(),
            "suggestion": list(itertools.chain.from_iterable(one.suggestions for one in of_folds)),
        }  # fmt: skip
        parts.append(pa.table(columns))
    table = pa.concat_tables(parts).sort_by([("p_mismatch", "descending"), ("p_value", "descending")])
    return Audit(table, rates, unreadable)


def _of_fold(config: Config, run: Path, folds: int, index: int, *, out: bool) -> Config:
    """Return the config of one fold: trained on without it (out), or the fold alone."""
    if any(source.fold for source in config.sources):
        raise InputError("a config of folds can't be audited: take away sources.N.fold")
    fold = FoldConfig(of=folds, index=index, out=out)
    sources = tuple(source.model_copy(update={"fold": fold}) for source in config.sources)
    objective = PluginConfig(name="acl")
    return config.model_copy(update={"run": run, "sources": sources, "evaluation": (), "objective": objective})


def _judge(first: Embedded, second: Embedded, *, strangers: int, seed: int) -> _Judged:
    places = {key: place for place, key in enumerate(second.keys)}
    rows = [(row, places[key]) for row, key in enumerate(first.keys) if key in places]
    left, right = (np.array([pair[side] for pair in rows], np.int64) for side in (0, 1))
    a, b = first.vectors[left], second.vectors[right]
    keys = [first.keys[row] for row in left]
    groups = hash64(first.groups[row] for row in left)
    p_values = rank_p_values(a, b, groups, strangers=strangers, seed=seed)
    best = _best_partners(a, b)
    return _Judged(keys, groups, p_values, near_p_values(a, b, groups), [keys[row] for row in best])


def _best_partners(a: NDArray[np.float32], b: NDArray[np.float32]) -> Sequence[int]:
    """Return the position [N] of the b that is nearest to each a."""
    import faiss

    index = faiss.IndexFlatIP(b.shape[1])
    index.add(b)
    return index.search(a, 1)[1][:, 0].tolist()


def _above(probability: NDArray[np.float64], cut: float) -> tuple[int, float]:
    chosen = probability[probability >= cut]
    return len(chosen), round(float(chosen.sum()), 1)
