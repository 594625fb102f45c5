"""The audit: which pairs of the training data are wrong, told by models that never saw them (cross-fitting)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimodal_ssl import reasons
from multimodal_ssl.config import Config, FoldConfig, PluginConfig
from multimodal_ssl.data import Supply, Traits, attempt, hash64, told
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.errors import InputError
from multimodal_ssl.files import replacing, write_text
from multimodal_ssl.pipeline import fit, load, open_training, trained_pairs
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.significance import (
    Floats,
    Rate,
    group_p_values,
    local_false_discovery_rate,
    near_p_values,
    rank_p_values,
    wrong_rate,
)  # fmt: skip
from multimodal_ssl.subset import fold_of
from multimodal_ssl.types import MapSource, Sample

FEW = 200  # pairs, below which an interval is wide
PART = 50  # pairs, from which a value of the metadata is told apart
PARTS = 50  # values of one column at most
CUTS = (0.5, 0.8, 0.9, 0.95)
LIKELY = 0.5  # probability from which something is called a reason


@dataclass(frozen=True, slots=True)
class PartRate:
    """The rate of the pairs that share one value: of the source, or of a column of the metadata."""

    column: str
    value: str
    pairs: int
    gross: Rate


@dataclass(frozen=True, slots=True)
class PairRate:
    """What is told of one pair of modalities.

    Attributes:
        pairs: number of pairs that were judged.
        gross: share of pairs whose partner might be anybody's, with its 95 % interval.
        any_upper: at most this share is wrong, partners that only resemble the right one among them.
        expected: cut of p_mismatch -> how many pairs are above it, and how many of those are expected to be wrong.
        parts: the rates by source and metadata, highest first.
        reasons: what is wrong -> number of pairs.
        notes: what a reader should know before believing the figures.
    """

    first: str
    second: str
    pairs: int
    gross: Rate
    any_upper: float
    expected: dict[str, tuple[int, float]]
    parts: list[PartRate]
    reasons: Mapping[str, int]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Audit:
    """The judgement of every pair, worst first: key, first, second, p_value, p_mismatch, suggestion, reasons."""

    table: pa.Table
    rates: list[PairRate]
    unreadable: list[tuple[str, str]]

    def save(self, folder: Path) -> None:
        """Write audit.parquet and audit.json."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "audit.parquet") as temporary:
            pq.write_table(self.table, temporary)
        figures = {"rates": [asdict(one) for one in self.rates], "unreadable": self.unreadable}
        write_text(folder / "audit.json", json.dumps(figures, indent=2))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All pairs of two modalities as one model sees them, in the order of the sources: [N] each."""

    keys: list[str]
    groups: NDArray[np.int64]
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    traits: tuple[list[Traits], list[Traits]]
    metadata: list[Mapping[str, str | float | None]]

    def take(self, rows: list[int]) -> _Pairs:
        """Return some of the pairs."""
        first, second = ([one[row] for row in rows] for one in self.traits)
        return _Pairs(
            [self.keys[row] for row in rows],
            self.groups[rows],
            self.a[rows],
            self.b[rows],
            (first, second),
            [self.metadata[row] for row in rows],
        )


def audit(
    config: Config, folder: Path, *, folds: int = 2, strangers: int = 1000, catalog: Catalog | None = None
) -> Audit:
    """Judge all pairs of the sources of a config.

    For each fold a model is trained on the others, with the active complementary loss, in a run folder of its own; a
    run that is there already is taken, one that was stopped goes on. One fold means no such care: the run of the config
    itself judges what it was trained on, and believes what it memorised, so that it finds too few.

    Raises InputError, before anything is trained, if a key repeats or all pairs are of one group.
    """
    catalog = catalog or Catalog.discover()
    if any(source.fold for source in config.sources):
        raise InputError("a config of folds can't be audited: take away sources.N.fold")
    supplies, _ = open_training(config, catalog)
    place = _survey(supplies, folds)
    views: dict[tuple[str, str], list[_Pairs]] = {}
    unreadable: dict[tuple[str, str], None] = {}
    for index in range(folds):
        judge = config if folds == 1 else _judge_of(config, folder / f"fold-{index}", folds, index)
        is_there = (judge.run / "binder.json").exists()
        binder = load(judge.run, catalog=catalog) if is_there else fit(judge, resume=True, catalog=catalog)
        found, lost = embed(binder, supplies, workers=config.train.workers, traits=True)
        unreadable |= dict.fromkeys(lost)
        for first, second in trained_pairs(supplies):
            views.setdefault((first, second), []).append(_pair_up(found[first], found[second]))
    parts, rates = [], []
    for (first, second), every in views.items():
        seen = _align(every)
        fold = np.array([place[key] for key in seen[0].keys])
        table, rate = _judge(first, second, seen, fold, strangers, config.seed, told=len(supplies) > 1)
        parts.append(table)
        rates.append(rate)
    table = pa.concat_tables(parts).sort_by([("p_mismatch", "descending"), ("p_value", "descending")])
    return Audit(pa.concat_tables([table, _rows_of(list(unreadable), table.schema)]), rates, list(unreadable))


def _survey(supplies: Sequence[Supply], folds: int) -> dict[str, int]:
    """Return the fold of each sample; raise InputError if keys repeat or there are fewer groups than folds."""
    names: dict[str, str] = {}
    repeated: list[str] = []
    for position, supply in enumerate(supplies):
        source = supply.source
        samples = (one for _, one in attempt(source)) if isinstance(source, MapSource) else iter(source)
        for sample in samples:
            if isinstance(sample, Sample):
                key = told(supplies, position, sample.key)
                repeated += [key] if key in names else []
                names[key] = sample.group or sample.key
    if repeated:
        some = ", ".join(map(repr, dict.fromkeys(repeated[:20])))
        raise InputError(f"{len(repeated):,} samples have a key that another one has, too; make them unique: {some}")
    groups = sorted(set(names.values()))
    place = fold_of(list(names.values()), folds)
    if np.bincount(fold_of(groups, folds), minlength=folds).min() < 2:
        raise InputError(
            f"the {len(names):,} samples are of {len(groups):,} groups, too few for two in each of {folds} folds, and "
            "without two there is no stranger to compare a partner with: leave out `group`, or give fewer --folds"
        )
    return dict(zip(names, place.tolist(), strict=True))


def _judge_of(config: Config, run: Path, folds: int, index: int) -> Config:
    """Return the config of the model that judges one fold: trained on all others."""
    fold = FoldConfig(of=folds, index=index)
    sources = tuple(source.model_copy(update={"fold": fold}) for source in config.sources)
    objective = PluginConfig(name="acl")
    return config.model_copy(
        update={"run": run, "sources": sources, "evaluation": (), "objective": objective, "audit": None}
    )


def _pair_up(first: Embedded, second: Embedded) -> _Pairs:
    places = {key: place for place, key in enumerate(second.keys)}
    rows = [(row, places[key]) for row, key in enumerate(first.keys) if key in places]
    left, right = (np.array([pair[side] for pair in rows], np.int64) for side in (0, 1))
    return _Pairs(
        [first.keys[row] for row in left],
        hash64(first.groups[row] for row in left),
        first.vectors[left],
        second.vectors[right],
        ([first.traits[row] for row in left], [second.traits[row] for row in right]),
        [first.metadata[row] for row in left],
    )


def _align(views: Sequence[_Pairs]) -> list[_Pairs]:
    """Return the views of the pairs that all models could see."""
    known = set.intersection(*(set(one.keys) for one in views))
    return [one.take([row for row, key in enumerate(one.keys) if key in known]) for one in views]


def _judge(
    first: str, second: str, seen: Sequence[_Pairs], fold: NDArray[np.int64], strangers: int, seed: int, *, told: bool
) -> tuple[pa.Table, PairRate]:
    """Judge each pair by the view of the model of its fold."""
    keys, groups, metadata = seen[0].keys, seen[0].groups, seen[0].metadata
    p_values, near, odd_a, odd_b = (np.full(len(keys), np.nan) for _ in range(4))
    suggestions = np.empty(len(keys), np.int64)
    for index, view in enumerate(seen):
        rows = np.flatnonzero(fold == index)
        if not len(rows):
            raise InputError(f"fold {index} holds no {first}-{second} pair: give fewer --folds")
        a, b, of = view.a[rows], view.b[rows], groups[rows]
        p_values[rows] = rank_p_values(a, b, of, strangers=strangers, seed=seed)
        near[rows] = near_p_values(a, b, of)
        odd_a[rows] = group_p_values(b, a, of, strangers=strangers, seed=seed)
        odd_b[rows] = group_p_values(a, b, of, strangers=strangers, seed=seed)
        suggestions[rows] = _best_partners(a, view.b)
    gross, near_rate = (wrong_rate(one, groups, seed=seed) for one in (p_values, near))
    probability = local_false_discovery_rate(p_values, gross.value)
    alike = _of_known(near, groups, seed)
    exact = reasons.repeated(keys, *seen[0].traits)
    near_ones = reasons.nearly_repeated(keys, seen[0].a, seen[0].b, groups)
    why = reasons.merge(
        [
            [["mismatch"] if one >= LIKELY else [] for one in probability],
            [["resembles"] if one < LIKELY <= other else [] for one, other in zip(probability, alike, strict=True)],
            *(
                reasons.quarrelling(name, _of_known(odd, groups, seed), LIKELY)
                for name, odd in ((first, odd_a), (second, odd_b))
            ),
            exact,
            [[] if one else other for one, other in zip(exact, near_ones, strict=True)],
            *(reasons.shared(name, one, groups) for name, one in zip((first, second), seen[0].traits, strict=True)),
            *(reasons.counted(name, one) for name, one in zip((first, second), seen[0].traits, strict=True)),
        ]
    )
    columns = {
        "key": keys, "first": [first] * len(keys), "second": [second] * len(keys), "p_value": p_values.tolist(),
        "p_mismatch": probability.tolist(), "suggestion": [keys[row] for row in suggestions], "reasons": why,
    }  # fmt: skip
    rate = PairRate(
        first, second, len(keys), gross, max(gross.value, near_rate.value),
        {str(cut): _above(probability, cut) for cut in CUTS},
        _by_part(keys, metadata, p_values, groups, seed, told=told),
        reasons.count(why), _notes(len(keys), gross, folds=len(seen)),
    )  # fmt: skip
    types = {"p_value": pa.float64(), "p_mismatch": pa.float64(), "reasons": pa.list_(pa.string())}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    return pa.table(columns, schema), rate


def _of_known(p_values: Floats, groups: NDArray[np.int64], seed: int) -> Floats:
    """Return the local false discovery rate of the p-values that are known."""
    probability = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    rate = wrong_rate(p_values[known], groups[known], resamples=1, seed=seed).value if len(known) else 1.0
    if rate < LIKELY:  # else the models can't tell: neighbours are all alike, or the members of a group are not
        probability[known] = local_false_discovery_rate(p_values[known], rate)
    return probability


def _by_part(
    keys: Sequence[str],
    metadata: Sequence[Mapping[str, str | float | None]],
    p_values: Floats,
    groups: NDArray[np.int64],
    seed: int,
    *,
    told: bool,
) -> list[PartRate]:
    """Return the rates of the commonest values of each column, and of each source if a key begins with its position."""
    columns = {name: [one.get(name) for one in metadata] for name in dict.fromkeys(k for m in metadata for k in m)}
    if told:
        columns = {"source": [key.partition("/")[0] for key in keys], **columns}
    parts = []
    for column, values in columns.items():
        known = Counter(value for value in values if value is not None)
        for value, count in known.most_common(PARTS):
            if count >= PART:
                rows = np.array([row for row, one in enumerate(values) if one == value])
                parts.append(PartRate(column, str(value), count, wrong_rate(p_values[rows], groups[rows], seed=seed)))
    return sorted(parts, key=lambda part: (part.column, -part.gross.value))


def _notes(pairs: int, gross: Rate, *, folds: int) -> list[str]:
    notes = []
    if pairs < FEW:
        width = gross.high - gross.low
        notes.append(
            f"{pairs} pairs are few: the rate lies between {gross.low:.1%} and {gross.high:.1%}, {width:.1%} wide"
        )
    if gross.high >= 0.95:
        notes.append(
            "the models tell hardly a partner from a stranger: either nearly all pairs are wrong, or they have learnt "
            "too little to judge; train longer or take stronger encoders before you believe it"
        )
    if not gross.value:
        notes.append(f"no mismatch was found; there may be up to {gross.high:.1%}")
    if folds == 1:
        notes.append(
            "judged by a model that was trained on these very pairs: it believes what it memorised, so the rate is too "
            "low; --folds 2 judges each pair by a model that never saw it"
        )
    return notes


def _best_partners(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the position [N] of the b that is nearest to each a."""
    import faiss

    index = faiss.IndexFlatIP(b.shape[1])
    index.add(b)
    best: NDArray[np.int64] = index.search(a, 1)[1][:, 0]
    return best


def _above(probability: NDArray[np.float64], cut: float) -> tuple[int, float]:
    chosen = probability[probability >= cut]
    return len(chosen), round(float(chosen.sum()), 1)


def _rows_of(unreadable: Sequence[tuple[str, str]], schema: pa.Schema) -> pa.Table:
    """Return the samples that could not be read as rows of the table: they have a reason and no figures."""
    rows = [{"key": key, "reasons": [f"unreadable: {why}"]} for key, why in unreadable]
    return pa.Table.from_pylist(rows, schema)
