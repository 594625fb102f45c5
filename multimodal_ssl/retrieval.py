"""Search an Index by items of any modality or several at once, among one modality or many, where a filter holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.binder import Binder
from multimodal_ssl.database import Item
from multimodal_ssl.errors import InputError
from multimodal_ssl.exact import exact
from multimodal_ssl.index import Hit, Index
from multimodal_ssl.store import check_vectors

WIDER = 10  # candidates for each answer, where not the cosine alone decides among them
NEIGHBOURS = 10  # whose mean cosine tells how near a place is to everything (K of CSLS)
ITSELF = 1 - 1e-5  # the cosine from which a neighbour is the same vector

Vectors = NDArray[np.float32]


class Vector(NamedTuple):
    """What was embedded before, such as an item of the index (`Index.vector`): a unit vector [D], in a Term's place."""

    values: Vectors


class Term(NamedTuple):
    """A part of a query: an item or path of the modality `by`, or a Vector of it.

    A negative weight is for what is not to be there.
    """

    by: str
    item: Any
    weight: float = 1.0


class Witness(NamedTuple):
    """A training sample that lies near a query and its answer: the cosines with both, and its items, by modality."""

    with_query: float
    with_hit: float
    items: dict[str, Item]


class Queries(NamedTuple):
    """What is asked for: the modalities [Q] asked by, unit vectors [Q, D], and these with the means taken off."""

    by: NDArray[np.str_]
    plain: Vectors
    shifted: Vectors


class Candidates(NamedTuple):
    """What may be answers, all [Q, C]: scores to rank by, ids, positions of their modalities, probabilities or NaN."""

    scores: Vectors
    ids: NDArray[np.int64]
    places: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def search(
    binder: Binder | None,
    index: Index,
    queries: Sequence[Any],
    *,
    by: str = "text",
    among: str | Sequence[str] | None = None,
    k: int = 10,
    where: str | None = None,
    one_per_group: bool = False,
    fold: float | None = None,
    centre: bool | None = None,
    csls: bool = False,
    min_probability: float = 0.0,
    product: bool = False,
) -> list[list[Hit]]:
    """Return the k items that are nearest to each query, the best first; fewer where fewer match.

    Args:
        binder: that made the index; None where all that is asked for are Vectors of it.
        queries: items or paths of the modality `by`, or sequences of Terms, whose weighted vectors are added up.
        among: the modalities to search; None takes all that the query is not of.
        where: a condition on metadata, such as ``license = 'MIT' and year >= 2020`` (docs/filters.md).
        one_per_group: whether only the best item of each group is an answer.
        fold: the cosine with a better answer of its modality from which an item is left out.
        centre: whether the mean of each modality is taken off, without which the items of one modality stand before
            all of another (the modality gap, Liang et al. 2022); None takes it off where several are searched.
        csls: whether ranking goes by twice the cosine less the mean cosines of query and item with their nearest in the
            other modality, so that hubs, items that are near to every query, come later (Conneau et al. 2018, eq. 3).
        min_probability: what is less probably a match is left out, so that a query may have no answer.
        product: whether the vectors of a query's Terms are multiplied in place of added up: what goes with all of them
            at once by a Binder that was trained by ``symile`` (Saporta et al. 2024).
    """
    if isinstance(queries, str | bytes | Path):
        raise InputError(f"queries are a list, not one: give [{queries!r:.60}]")
    if not 0 <= min_probability <= 1:
        raise InputError(f"min_probability is {min_probability}, not from 0 to 1")
    if binder:
        index.check(binder.fingerprint())
    asked = [_terms(one, by) for one in queries]
    used = list(dict.fromkeys(term.by for terms in asked for term in terms))
    names = [among] if isinstance(among, str) else list(among or [name for name in index.counts if name not in used])
    names = names or used
    centred = len(names) > 1 and not product if centre is None else centre
    vectors = multiply(binder, index, asked) if product else encode(binder, index, asked, centred=centred)
    if product and centred:
        raise InputError("a product of vectors is of whole ones: leave out centre")
    everything = Queries(np.array([terms[0].by for terms in asked]), *vectors)
    allowed = index.where(names, where) if where else [None] * len(names)
    answers: list[list[Hit]] = [[] for _ in asked]
    fetch = k * WIDER if centred or csls or one_per_group or fold is not None else k
    todo = list(range(len(asked)))
    while todo:
        some = Queries(everything.by[todo], everything.plain[todo], everything.shifted[todo])
        parts = [
            _candidates(index, name, place, some, fetch, allowed[place], centred=centred, csls=csls)
            for place, name in enumerate(names)
        ]
        is_all = all(one.ids.shape[1] < fetch for one in parts)
        found = _best_first(parts)
        if min_probability:
            _check_probabilities(found, some, names)
        items = index.store.items(np.unique(found.ids[:, :k]).tolist())
        again = []
        for row, query in enumerate(todo):
            answers[query], is_short = _chosen(
                index, names, Candidates(*(field[row] for field in found)), items, k, one_per_group=one_per_group,
                fold=fold, min_probability=min_probability,
            )  # fmt: skip
            if is_short and not is_all:
                again.append(query)
        todo, fetch = again, fetch * 4
    return answers


def why(
    binder: Binder, index: Index, training: Index, query: Any, hit: Hit, *, by: str = "text", k: int = 5
) -> list[Witness]:
    """Return the k training samples that lie nearest to a query and an answer to it, by the sum of both cosines.

    Args:
        training: an index of what the Binder was trained on, as `mmssl index RUN --of sources` makes it.
        query: as for `search`.
    """
    training.check(binder.fingerprint())
    terms, gallery = _terms(query, by), hit.item.modality
    asked = encode(binder, index, [terms], centred=False)[0]
    sides = {terms[0].by: asked, gallery: index.vectors(gallery, np.array([hit.item.id]))}
    near = [training.nearest(name, vector, k * WIDER)[1][0] for name, vector in sides.items()]
    items = training.store.items(np.concatenate(near)[np.concatenate(near) >= 0].tolist()).values()
    keys = sorted({item.key for item in items})
    ids = {name: training.store.find(name, keys) for name in sides}
    found = []
    for key in keys:
        if all(key in one for one in ids.values()):
            cosines = [
                float(training.vectors(name, np.array([ids[name][key]]))[0] @ vector[0])
                for name, vector in sides.items()
            ]
            some = {name: training.store.items([ids[name][key]])[ids[name][key]] for name in sides}
            found.append(Witness(cosines[0], cosines[-1], some))
    return sorted(found, key=lambda one: -(one.with_query + one.with_hit))[:k]


def encode(
    binder: Binder | None, index: Index, asked: Sequence[Sequence[Term]], *, centred: bool
) -> tuple[Vectors, Vectors]:
    """Return the unit vectors [Q, D] of queries, and those of which the mean of each modality was taken off."""
    plain = np.zeros((len(asked), index.dim), np.float32)
    shifted = plain.copy()
    for by, owners, vectors in _parts(binder, index, asked):
        mean = index.mean(by) if centred and by in index.counts else np.zeros(index.dim, np.float32)
        for (query, term), vector, moved in zip(owners, vectors, unit(vectors - mean), strict=True):
            plain[query] += term.weight * vector
            shifted[query] += term.weight * moved
    if (np.linalg.norm(plain, axis=1) < 1e-3).any():
        raise InputError("the parts of a query cancel each other out: give them other weights")
    return unit(plain), unit(shifted)


def multiply(binder: Binder | None, index: Index, asked: Sequence[Sequence[Term]]) -> tuple[Vectors, Vectors]:
    """Return the elementwise products of queries' vectors at length 1 [Q, D], twice: no mean is taken off of them."""
    for term in itertools.chain.from_iterable(asked):
        if term.weight != 1:
            raise InputError(f"a product has no weights, but {term.by} has {term.weight:g}: leave it out")
    found = np.ones((len(asked), index.dim))  # float64, in which no product of many small numbers becomes 0
    for _, owners, vectors in _parts(binder, index, asked):
        for (query, _), vector in zip(owners, vectors, strict=True):
            found[query] *= vector
    whole = np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
    return whole, whole


def _parts(
    binder: Binder | None, index: Index, asked: Sequence[Sequence[Term]]
) -> Iterator[tuple[str, list[tuple[int, Term]], Vectors]]:
    """Yield each modality that is asked by, the numbers of the queries and their Terms [N], and vectors of these."""
    for by in dict.fromkeys(term.by for terms in asked for term in terms):
        owners = [(query, term) for query, terms in enumerate(asked) for term in terms if term.by == by]
        yield by, owners, _embedded(binder, index, by, [term.item for _, term in owners])


def unit(vectors: Vectors) -> Vectors:
    """Return vectors [..., D] at length 1; 0 stays 0."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)


def _embedded(binder: Binder | None, index: Index, by: str, items: Sequence[Any]) -> Vectors:
    """Return the vectors [N, D] of items, of which some may be Vectors."""
    fresh = [place for place, item in enumerate(items) if not isinstance(item, Vector)]
    vectors = np.empty((len(items), index.dim), np.float32)
    if fresh:
        if not binder:
            raise InputError(f"some {by} to search by is no Vector: without a Binder nothing can be embedded")
        vectors[fresh] = binder.encode(by, [items[place] for place in fresh])
    for place, item in enumerate(items):
        if isinstance(item, Vector):
            vectors[place] = check_vectors(np.asarray(item.values)[None], index.dim)
    return vectors


def _terms(query: Any, by: str) -> list[Term]:
    is_several = isinstance(query, list | tuple) and query and all(isinstance(one, Term) for one in query)
    terms = list(query) if is_several and not isinstance(query, Term) else [query]
    return [one if isinstance(one, Term) else Term(by, one) for one in terms]


def _candidates(
    index: Index,
    name: str,
    place: int,
    queries: Queries,
    count: int,
    allowed: NDArray[np.int64] | None,
    *,
    centred: bool,
    csls: bool,
) -> Candidates:
    """Return those of one modality."""
    cosines, ids = index.nearest(name, queries.plain, count, among=allowed)
    scores = cosines
    if centred:
        vectors = unit(index.vectors(name, ids) - index.mean(name))  # [Q, C, D]
        scores = np.where(ids >= 0, np.einsum("qcd,qd->qc", vectors, queries.shifted), -np.inf).astype(np.float32)
    probabilities = np.full(ids.shape, np.nan)
    for by in dict.fromkeys(queries.by.tolist()):
        rows = queries.by == by
        probabilities[rows] = index.probability(by, name, queries.plain[rows], cosines[rows])
        if csls:
            scores[rows] = _csls(index, by, name, scores[rows], ids[rows], centred=centred)
    return Candidates(scores, ids, np.full(ids.shape, place), probabilities)


def _csls(index: Index, by: str, name: str, scores: Vectors, ids: NDArray[np.int64], *, centred: bool) -> Vectors:
    """Return scores [Q, C] without what makes a hub; the neighbours of an item are of a sample of the index's."""
    if by not in index.counts:
        raise InputError(f"this index holds no {by}: what is a hub among {name} for {by} can't be told; leave csls out")
    bank, (unique, places) = index.background(by), np.unique(ids, return_inverse=True)
    items = index.vectors(name, unique)
    if centred:
        bank, items = unit(bank - index.mean(by)), unit(items - index.mean(name))
    of_items = _nearness(exact(bank, items, NEIGHBOURS + 1)[0])[places.reshape(ids.shape)]
    of_queries = _nearness(-np.sort(-scores, axis=1)[:, : NEIGHBOURS + 1])[:, None]
    return 2 * scores - of_queries - of_items


def _nearness(cosines: Vectors) -> Vectors:
    """Return the mean [N] of the first cosines [N, K + 1], descending, but for that of a vector with itself."""
    cosines = np.pad(cosines, ((0, 0), (0, 1)), constant_values=-np.inf)[:, : NEIGHBOURS + 1]
    others = np.where(cosines[:, :1] >= ITSELF, cosines[:, 1:], cosines[:, :-1])
    is_there = np.isfinite(others)
    return np.asarray(np.where(is_there, others, 0).sum(1) / np.maximum(is_there.sum(1), 1), np.float32)


def _best_first(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of several modalities as those of one, the best of each query first."""
    scores, ids, places, probabilities = (np.concatenate(fields, axis=1) for fields in zip(*parts, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, ids, places = (np.take_along_axis(one, order, 1) for one in (scores, ids, places))
    return Candidates(scores, ids, places, np.take_along_axis(probabilities, order, 1))


def _check_probabilities(found: Candidates, queries: Queries, names: Sequence[str]) -> None:
    """Raise InputError if some candidate has no probability."""
    for row in np.flatnonzero((np.isnan(found.probabilities) & (found.ids >= 0)).any(1)).tolist():
        raise InputError(
            f"this index can't tell how probable a match of {queries.by[row]} among {', '.join(names)} is: it holds "
            "too few groups that have both"
        )


def _chosen(
    index: Index,
    names: Sequence[str],
    some: Candidates,
    items: Mapping[int, Item],
    k: int,
    *,
    one_per_group: bool,
    fold: float | None,
    min_probability: float,
) -> tuple[list[Hit], bool]:
    """Return the answers among the candidates [C] of one query, and whether more candidates might give more answers.

    Args:
        items: of the first k candidates, by id.
    """
    hits: list[Hit] = []
    groups: set[str] = set()
    kept: dict[int, list[Vectors]] = {place: [] for place in range(len(names))}
    there = some.ids >= 0
    for start in range(0, len(some.ids), k):
        part = slice(start, start + k)
        if start:
            items = index.store.items(some.ids[part][there[part]].tolist())
        for score, id, place, probability in zip(*(field[part].tolist() for field in some), strict=True):
            if id not in items or probability < min_probability:
                continue
            item = items[id]
            if one_per_group and item.group in groups:
                continue
            if fold is not None:
                vector = index.vectors(names[place], np.array([id]))[0]
                if any(float(vector @ other) >= fold for other in kept[place]):
                    continue
                kept[place].append(vector)
            groups.add(item.group)
            hits.append(Hit(score, item, None if math.isnan(probability) else probability))
            if len(hits) == k:
                return hits, False
    is_improbable = bool(min_probability and there.any() and some.probabilities[there][-1] < min_probability)
    return hits, not is_improbable
