"""What is told of the samples with the same items, from how their judges see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimodal_ssl import reasons
from multimodal_ssl.data import Traits, draw
from multimodal_ssl.evidence import belief, surroundings
from multimodal_ssl.neighbours import nearest_other
from multimodal_ssl.significance import (
    LEAST,
    Floats,
    Rate,
    decoy_p_values,
    group_p_values,
    local_false_discovery_rate,
    near_p_values,
    rank_p_values,
    wrong_rate,
)  # fmt: skip

FEW = 200  # samples, below which an interval is wide
PART = 50  # samples, from which a value of the metadata is told apart
PARTS = 50  # values of one column at most
CUTS = (0.5, 0.8, 0.9, 0.95)
LIKELY = 0.5  # probability from which something is called a reason


class Role(NamedTuple):
    """What a sample is to the judges.

    Attributes:
        supply: it comes from.
        judge: it belongs to.
        exchanged: the item that was exchanged for all other judges, if it is a decoy to them.
        origin: the key of the sample whose item they are given instead.
    """

    supply: int
    judge: int
    exchanged: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Samples with the same items as one judge sees them; [N] each, by name where there are several.

    Attributes:
        trust: log of the running agreement; NaN if the judge never trained on the sample.
        vectors: unit vectors [N, D].
        given: the same as the judge was given them, with its decoys.
    """

    keys: list[str]
    groups: NDArray[np.int64]
    trust: Floats
    vectors: Mapping[str, NDArray[np.float32]]
    given: Mapping[str, NDArray[np.float32]]
    traits: Mapping[str, list[Traits]]
    metadata: list[Mapping[str, str | float | None]]

    def take(self, rows: list[int]) -> View:
        """Return some of the samples."""
        return View(
            [self.keys[row] for row in rows],
            self.groups[rows],
            self.trust[rows],
            {name: one[rows] for name, one in self.vectors.items()},
            {name: one[rows] for name, one in self.given.items()},
            {name: [one[row] for row in rows] for name, one in self.traits.items()},
            [self.metadata[row] for row in rows],
        )

    def rest(self, name: str) -> NDArray[np.float32]:
        """Return the mean direction [N, D] of all items but one."""
        total = np.sum([one for other, one in self.vectors.items() if other != name], 0)
        mean: NDArray[np.float32] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return mean

    def fit(self, name: str) -> Floats:
        """Return how well an item goes with the others [N]: the sum of its cosines, each against what is usual."""
        item, total = self.vectors[name], np.zeros(len(self.keys))
        for other, one in self.vectors.items():
            if other != name:
                cosine = (item * one).sum(1)
                total += cosine - np.median(cosine)
        return total


@dataclass(frozen=True, slots=True)
class PartRate:
    """The rate of the samples that share one value: of the source, or of a column of the metadata."""

    column: str
    value: str
    samples: int
    gross: Rate


@dataclass(frozen=True, slots=True)
class Rates:
    """What is told of all samples with the same items.

    Attributes:
        samples: number of samples that were judged.
        gross: share of samples with an item that might be anybody's, with its 95 % interval.
        by_trust: the same by trust alone, to which what is hard is as good as wrong; of one judge the same.
        expected: cut of p_mismatch -> how many samples are above it, and how many of those are expected to be wrong.
        parts: the rates by source and metadata, highest first.
        reasons: what is wrong -> number of samples.
        notes: what a reader should know before believing the figures.
    """

    items: tuple[str, ...]
    samples: int
    gross: Rate
    by_trust: Rate
    expected: dict[str, tuple[int, float]]
    parts: list[PartRate]
    reasons: Mapping[str, int]
    notes: list[str]


class Looks(NamedTuple):
    """What the vectors tell. Of more than two items each may be the odd one, of two the second stands for both.

    Attributes:
        odd: [N], the name of the item that goes least with the others; "" of two.
        near: [N], p-value of that item among those of the nearest neighbours.
        best: [N], the row whose item would fit best instead.
        quarrel: name -> p-values [N] of it against the rest of its group.
    """

    odd: list[str]
    near: Floats
    best: NDArray[np.int64]
    quarrel: dict[str, Floats]


def judge_kind(
    items: tuple[str, ...],
    views: Sequence[View],
    roles: Mapping[str, Role],
    *,
    strangers: int,
    seed: int,
    by_source: bool,
) -> tuple[pa.Table, Rates]:
    """Return a row for each sample with these items as each judge sees it, and the rates.

    A single judge trained on all as they are, so that it ranks the last item among strangers. The rates are given by
    source, too, if asked for.
    """
    first = views[0]
    keys, groups = first.keys, first.groups
    role = [roles[key] for key in keys]
    supply, judge = (np.array([one[field] for one in role]) for field in range(2))
    decoy = np.array([one.exchanged is not None for one in role])
    looks = _look(items, views, judge, strangers, seed)
    everything, alone = np.arange(len(keys)), list[int]()
    if len(views) > 1:
        places = {name: place if len(items) > 2 else 0 for place, name in enumerate(items)}
        suspect = np.array([places[one or items[-1]] for one in looks.odd])
        exchanged = np.array([places.get(one.exchanged or "", 0) for one in role])
        foreign = judge != np.arange(len(views))[:, None]  # [J, N]: samples of another judge
        kind = np.where(decoy & foreign, exchanged, suspect)
        evidence = np.stack(
            [
                _evidence(items, view, decoy & foreign[index], kind[index], asked=decoy | foreign[index])
                for index, view in enumerate(views)
            ]
        )
        scores, alone = belief(evidence, judge, decoy, source=supply, kind=kind)
        drawn = draw(keys)

        def ranked(rows: NDArray[np.int64], scores: Floats = scores) -> Floats:
            return decoy_p_values(
                scores[:, rows], judge[rows], decoy[rows], source=supply[rows],
                suspect=suspect[rows], exchanged=exchanged[rows], drawn=drawn[rows],
            )  # fmt: skip

        trusted = ranked(everything, evidence[..., 0])
    else:
        rest, last = first.rest(items[-1]), first.vectors[items[-1]]
        trusted = rank_p_values(rest, last, groups, strangers=strangers, seed=seed)

        def ranked(rows: NDArray[np.int64], scores: Floats = trusted) -> Floats:
            return scores[rows]

    p_values = ranked(everything)
    known = np.isfinite(p_values)
    gross = by_trust = Rate(1.0, 0.0, 1.0)  # nothing is known
    if known.any():
        decoys = int(decoy[np.isin(supply, supply[known])].sum())
        gross, by_trust = (
            wrong_rate(one[known], groups[known], decoys=decoys or None, seed=seed) for one in (p_values, trusted)
        )
    probability = np.full(len(keys), np.nan)
    probability[known] = local_false_discovery_rate(p_values[known], gross.value)
    why = _reasons(first, looks, probability, seed)
    columns = {
        "key": keys, "items": [", ".join(items)] * len(keys), "p_value": _nullable(p_values),
        "p_mismatch": _nullable(probability), "odd": [one or None for one in looks.odd],
        "suggestion": [keys[row] for row in looks.best], "reasons": why,
    }  # fmt: skip
    rates = Rates(
        items, int(known.sum()), gross, by_trust,
        {str(cut): _above(probability, cut) for cut in CUTS},
        _by_part(first, p_values, ranked, supply, decoy, seed, by_source=by_source),
        reasons.count(why), _notes(known, gross, supply, judge, decoy, alone),
    )  # fmt: skip
    types = {"p_value": pa.float64(), "p_mismatch": pa.float64(), "reasons": pa.list_(pa.string())}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    return pa.table(columns, schema), rates


def rows_of_unreadable(unreadable: Sequence[tuple[str, str]], schema: pa.Schema) -> pa.Table:
    """Return the samples that could not be read as rows of the table: they have a reason and no figures."""
    rows = [{"key": key, "reasons": [f"unreadable: {why}"]} for key, why in unreadable]
    return pa.Table.from_pylist(rows, schema)


def _look(items: tuple[str, ...], views: Sequence[View], judge: NDArray[np.int64], strangers: int, seed: int) -> Looks:
    """Return what each sample looks like to its own judge, to whom it is no decoy."""
    sides = items if len(items) > 2 else items[-1:]
    count = len(judge)
    fit, near, best = (np.zeros((len(sides), count)) for _ in range(3))
    quarrel = {name: np.full(count, np.nan) for name in items}
    for index, view in enumerate(views):
        rows = np.flatnonzero(judge == index)
        for name in items:
            rest, item = view.rest(name), view.vectors[name]
            odd = group_p_values(rest, item, view.groups, strangers=strangers, seed=seed)
            quarrel[name][rows] = odd[rows]
            if name in sides:
                side = sides.index(name)
                fit[side, rows] = view.fit(name)[rows]
                near[side, rows] = near_p_values(rest, item, view.groups, rows)
                best[side, rows] = nearest_other(item, rest[rows], rows)  # its own may be memorised
    least, all_rows = fit.argmin(0), np.arange(count)
    names = [sides[one] if len(sides) > 1 else "" for one in least]
    return Looks(names, near[least, all_rows], best[least, all_rows].astype(np.int64), quarrel)


def _evidence(
    items: tuple[str, ...],
    view: View,
    decoy: NDArray[np.bool_],
    kind: NDArray[np.int64],
    *,
    asked: NDArray[np.bool_],
) -> Floats:
    """Return the evidence [N, 3] on the samples asked for, as a judge was given them: trust, rival and parallel."""
    given = replace(view, vectors=view.given)
    evidence = np.full((len(view.keys), 3), np.nan)
    evidence[:, 0] = view.trust
    for place, name in enumerate(items if len(items) > 2 else items[-1:]):
        rows = np.flatnonzero(asked & (kind == place))
        evidence[rows, 1:] = surroundings(given.rest(name), given.vectors[name], decoy, rows)
    return evidence


def _reasons(view: View, looks: Looks, probability: Floats, seed: int) -> reasons.Reasons:
    """Return what is wrong with each sample."""
    alike = _of_known(looks.near, view.groups, seed)
    exact = reasons.repeated(view.keys, list(view.traits.values()))
    close = reasons.nearly_repeated(view.keys, list(view.vectors.values()), view.groups)
    return reasons.merge(
        [
            [[f"mismatch of {odd}" if odd else "mismatch"] if one >= LIKELY else []
             for one, odd in zip(probability, looks.odd, strict=True)],
            [["resembles"] if not one >= LIKELY and other >= LIKELY else []
             for one, other in zip(probability, alike, strict=True)],
            *(reasons.quarrelling(name, _of_known(odd, view.groups, seed), LIKELY)
              for name, odd in looks.quarrel.items()),
            exact,
            [[] if one else other for one, other in zip(exact, close, strict=True)],
            *(reasons.shared(name, one, view.groups) for name, one in view.traits.items()),
            *(reasons.counted(name, one) for name, one in view.traits.items()),
        ]
    )  # fmt: skip


def _of_known(p_values: Floats, groups: NDArray[np.int64], seed: int) -> Floats:
    """Return the local false discovery rate of the p-values that are known."""
    probability = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    rate = wrong_rate(p_values[known], groups[known], resamples=1, seed=seed).value if len(known) else 1.0
    if rate < LIKELY:  # else the models can't tell: neighbours are all alike, or the members of a group are not
        probability[known] = local_false_discovery_rate(p_values[known], rate)
    return probability


def _by_part(
    view: View,
    everywhere: Floats,
    ranked: Callable[[NDArray[np.int64]], Floats],
    supply: NDArray[np.int64],
    decoy: NDArray[np.bool_],
    seed: int,
    *,
    by_source: bool,
) -> list[PartRate]:
    """Return the rates of the commonest values of each column of the metadata, and of each source if it is told.

    The samples of each are ranked among the decoys of its own if these are enough, since it may be harder than the
    rest; if not they have the p-values that they have everywhere.
    """
    names = dict.fromkeys(name for one in view.metadata for name in one)
    columns: dict[str, list[str | float | None]] = {name: [one.get(name) for one in view.metadata] for name in names}
    if by_source:
        columns = {**columns, "source": supply.tolist()}
    parts = []
    for column, values in columns.items():
        counts = Counter(value for value in values if value not in (None, ""))
        for value, _ in counts.most_common(PARTS):
            rows = np.flatnonzero([one == value for one in values])
            p_values = ranked(rows)
            if (np.isfinite(p_values) < np.isfinite(everywhere[rows])).any():  # too few decoys of its own
                p_values = everywhere[rows]
            known = np.isfinite(p_values)
            if known.sum() >= PART:
                decoys = int(decoy[rows][np.isin(supply[rows], supply[rows][known])].sum())
                rate = wrong_rate(p_values[known], view.groups[rows[known]], decoys=decoys or None, seed=seed)
                parts.append(PartRate(column, str(value), int(known.sum()), rate))
    return sorted(parts, key=lambda part: (part.column, -part.gross.value))


def _notes(
    known: NDArray[np.bool_],
    gross: Rate,
    supply: NDArray[np.int64],
    judge: NDArray[np.int64],
    decoy: NDArray[np.bool_],
    alone: Sequence[int],
) -> list[str]:
    samples = int(known.sum())
    notes = []
    for source, unknown in sorted(Counter(supply[~known].tolist()).items()):
        there = int((supply == source).sum())
        decoys = np.bincount(judge[decoy & (supply == source)], minlength=judge.max() + 1).min()
        why = "a judge did not train on them: train longer (samples with fewer items than others come more rarely)"
        if decoy.any() and decoys < LEAST:
            why = f"only {decoys} of them could be decoys of a judge, and it takes {LEAST} to judge by"
        notes.append(f"{unknown:,} of {there:,} samples of source {source} have no p-value and are in no rate: {why}")
    notes += [
        f"source {source} has too few decoys to weigh other evidence than trust by: what is hard may pass for wrong"
        for source in sorted({*alone} & {*supply[known].tolist()})
    ]
    if not samples:
        return notes
    if samples < FEW:
        width = gross.high - gross.low
        notes.append(
            f"{samples} samples are few: the rate lies between {gross.low:.1%} and {gross.high:.1%}, {width:.1%} wide"
        )
    if gross.high >= 0.95:
        notes.append(
            "the judges tell hardly a sample from a mismatch: either nearly all are wrong, or they have learnt too "
            "little to judge; train longer or take stronger encoders before you believe it"
        )
    if not gross.value:
        notes.append(f"no mismatch was found; there may be up to {gross.high:.1%}")
    if not decoy.any():
        notes.append(
            "judged by a model that was trained on these very samples: it believes what it memorised, so the rate is "
            "too low; --judges 2 compares each with known mismatches"
        )
    return notes


def _above(probability: Floats, cut: float) -> tuple[int, float]:
    chosen = probability[probability >= cut]
    return len(chosen), round(float(chosen.sum()), 1)


def _nullable(values: Floats) -> list[float | None]:
    return [float(one) if np.isfinite(one) else None for one in values]
