"""Answer many queries at once: each encoder runs once, and each search of equal options.

What goes wrong for one query is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmssl_server.library import Library
from multimodal_ssl import Index, InputError, Inputs, Term, Vector, search
from multimodal_ssl.index import Hit
from multimodal_ssl.retrieval import encode, unit

T = TypeVar("T")
R = TypeVar("R")


class Prepared(NamedTuple):
    """What an encoder takes of an item."""

    inputs: Inputs


class Stored(NamedTuple):
    """The item of the index with this key."""

    key: str


class Part(NamedTuple):
    """A part of a query, as a Term."""

    by: str
    item: Prepared | Stored | Vector
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """Of a search, see `multimodal_ssl.search`."""

    among: tuple[str, ...] | None = None
    k: int = 10
    where: str | None = None
    one_per_group: bool = False
    fold: float | None = None
    centre: bool | None = None
    csls: bool = False
    min_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: hits for the sum of the parts, or without options the vectors of the parts."""

    parts: Sequence[Part]
    options: Options | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors [N, D] of the parts, and hits if they were asked for."""

    vectors: NDArray[np.float32]
    hits: Sequence[Hit] = ()


@dataclass(slots=True)
class _Job:
    """A query on its way to its answer."""

    query: Query
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # of the parts that have one yet
    failure: Exception | None = None
    hits: Sequence[Hit] = ()

    def terms(self) -> list[Term]:
        return [Term(part.by, Vector(self.vectors[i]), part.weight) for i, part in enumerate(self.query.parts)]

    def result(self) -> Answer | Exception:
        return self.failure or Answer(np.stack([self.vectors[i] for i in range(len(self.query.parts))]), self.hits)


def answer(library: Library, queries: Sequence[Query]) -> list[Answer | Exception]:
    """Return the answer to each query, or why it has none."""
    index, jobs = library.index, [_Job(query) for query in queries]
    _embed(library, index, jobs)
    groups: dict[tuple[Options, str], list[_Job]] = {}
    for job in jobs:
        if job.query.options and not job.failure:
            options = _resolved(job.query, job.query.options, index)
            groups.setdefault((options, job.query.parts[0].by), []).append(job)
    for (options, _), some in groups.items():
        _search(index, options, some)
    return [job.result() for job in jobs]


def together(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """Call with all items at once, or if that fails with one after the other, so that each has a failure of its own."""
    try:
        return list(call(items))
    except Exception as error:  # noqa: BLE001 - it is told to who asked
        if len(items) == 1:
            return [error]
        return [one for item in items for one in together(call, [item])]


def _embed(library: Library, index: Index, jobs: Sequence[_Job]) -> None:
    """Give each job the vectors of its parts, or a failure."""
    fresh: dict[str, list[tuple[_Job, int, Inputs]]] = {}
    stored: list[tuple[_Job, int, str]] = []
    for job in jobs:
        for number, part in enumerate(job.query.parts):
            match part.item:
                case Prepared(inputs):
                    fresh.setdefault(part.by, []).append((job, number, inputs))
                case Stored(key):
                    stored.append((job, number, key))
                case Vector(values):
                    job.vectors[number] = unit(values)

    def look_up(some: Sequence[tuple[_Job, int, str]]) -> list[NDArray[np.float32]]:
        return [index.vector(job.query.parts[number].by, key) for job, number, key in some]

    _keep(stored, together(look_up, stored))
    for by, owners in fresh.items():

        def embed(some: Sequence[tuple[_Job, int, Inputs]], by: str = by) -> list[NDArray[np.float32]]:
            return list(library.binder.encode_prepared(by, [inputs for _, _, inputs in some]))

        _keep(owners, together(embed, owners))

    def add_up(some: Sequence[_Job]) -> list[NDArray[np.float32]]:
        return list(encode(None, index, [job.terms() for job in some], centred=False)[0])

    whole = [job for job in jobs if job.query.options and not job.failure]
    for job, result in zip(whole, together(add_up, whole), strict=True):
        if isinstance(result, Exception):  # parts that cancel each other out
            job.failure = result


def _keep(owners: Sequence[tuple[_Job, int, object]], vectors: Sequence[NDArray[np.float32] | Exception]) -> None:
    for (job, number, _), vector in zip(owners, vectors, strict=True):
        if isinstance(vector, Exception):
            job.failure = vector
        elif not np.isfinite(vector).all():
            job.failure = InputError(f"{job.query.parts[number].by}: its vector is not finite; give another")
        else:
            job.vectors[number] = vector


def _resolved(query: Query, options: Options, index: Index) -> Options:
    """Return options with the modalities that will be searched: if left out they depend on the query."""
    if options.among:
        return options
    used = dict.fromkeys(part.by for part in query.parts)
    return replace(options, among=tuple(name for name in index.counts if name not in used) or tuple(used))


def _search(index: Index, options: Options, jobs: Sequence[_Job]) -> None:
    """Give each job of equal options its hits, or the failure that they share, such as a filter that takes too long."""
    try:
        found = search(
            None, index, [job.terms() for job in jobs], among=options.among, k=options.k,
            where=options.where, one_per_group=options.one_per_group, fold=options.fold, centre=options.centre,
            csls=options.csls, min_probability=options.min_probability,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - it is told to who asked
        for job in jobs:
            job.failure = error
        return
    for job, hits in zip(jobs, found, strict=True):
        job.hits = hits
