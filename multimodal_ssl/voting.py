"""Sources that speak of the same things: how right each is, and so how far each of their pairs is to be trusted.

Samples of one key in several sources are about one thing. Where their items are the same the sources vouch for each
other, where they differ they contradict each other. Nobody knows who is right; the accuracy of each source is what
explains best how often they agree (Dawid and Skene 1979, with one accuracy a source; Ratner et al. 2016, data
programming).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import Supply, attempt, number_groups
from multimodal_ssl.digests import item_digest
from multimodal_ssl.errors import InputError, UnreadableError
from multimodal_ssl.types import Manifest, MapSource, Sample

PRIOR = (7.0, 3.0)  # a source is as if seen right in 7 of 10 cases before: it decides where nothing overlaps
ROUNDS = 200
LEAST = 1e-3  # weight of a pair that all evidence is against


@dataclass(frozen=True, slots=True)
class Voice:
    """What is told of one source.

    Attributes:
        samples: pairs that could be read, each once.
        coverage: share of all keys that it has.
        overlap: share of its keys that another source has, too.
        conflict: share of its keys on which another source contradicts it.
        accuracy: share of its pairs that are right, estimated.
    """

    source: int
    samples: int
    coverage: float
    overlap: float
    conflict: float
    accuracy: float


class Votes(NamedTuple):
    """One vote a row: who says of which key what; [V] each. An answer is as common as the saying in it."""

    voters: NDArray[np.int64]
    keys: NDArray[np.int64]
    answers: NDArray[np.int64]
    sayings: NDArray[np.int64]


def weigh(votes: Votes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability [V] that each vote is right, and the accuracy [S] of each voter, by EM.

    A voter is right with its accuracy a, else says anything, common things more often. With p the share of its saying
    among all votes, the odds of an answer of a key against all its answers being wrong are p^(1 - n) * prod a / (1 - a)
    over the n who give it, to 1 - sum of the p. The prior keeps a voter who is never compared near where it began; of
    two voters only the product is known, so that they come out alike.
    """
    voters, keys, answers, sayings = votes
    _, common, counts = np.unique(sayings, return_inverse=True, return_counts=True)
    (of, _), first, which, backers = np.unique(
        np.stack([keys, answers]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )  # of: the key of each candidate, which: the candidate of each vote
    which = which.reshape(-1)
    p = (counts / len(answers))[common[first]]
    number = int(keys.max()) + 1
    nobody = np.log(np.clip(1 - np.bincount(of, p, number), 1e-12, None))  # log-odds are against all being wrong
    votes_of = np.bincount(voters)
    accuracy = np.full(len(votes_of), PRIOR[0] / sum(PRIOR))
    for _ in range(ROUNDS):
        score = (1 - backers) * np.log(p) + np.bincount(which, np.log(accuracy / (1 - accuracy))[voters])
        top = nobody.copy()
        np.maximum.at(top, of, score)
        total = np.exp(nobody - top) + np.bincount(of, np.exp(score - top[of]), number)
        probability = (np.exp(score - top[of]) / total[of])[which]
        before = accuracy
        accuracy = (np.bincount(voters, probability) + PRIOR[0]) / (votes_of + sum(PRIOR))
        if np.abs(accuracy - before).max() < 1e-9:
            break
    return probability, accuracy


def merge(supplies: Sequence[Supply]) -> tuple[list[Supply], list[Voice]]:
    """Return the supplies, those of the same items as one that they voted on, and what is told of each voice."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, supply in enumerate(supplies):
        alike[tuple(sorted(supply.names))].append(position)
    merged, voices = [], []
    for positions in alike.values():
        some = [supplies[position] for position in positions]
        if len(some) > 1:
            source = Voted(dict(zip(positions, some, strict=True)))
            voices += source.voices
            some = [Supply(source, some[0].names, sum(one.share for one in some))]
        merged += some
    if not voices:
        raise InputError("vote: no two sources have the same items, so there is nothing to vote on")
    return merged, voices


class Voted(MapSource):
    """The samples of several MapSources, each pair once, with its probability as a factor of its weight.

    The supplies, by their position in the config, are of the same names. A second pair of one key has the key "KEY#2";
    all of one key are of one group. The metadata tell which supplies said so, as "0 2", so that an audit has a rate of
    each company of voices. Raises InputError for sources without random access, or whose items differ in modality.
    """

    def __init__(self, supplies: Mapping[int, Supply]) -> None:
        first = next(iter(supplies.values()))
        self.sources: list[MapSource] = []
        for supply in supplies.values():
            if not isinstance(supply.source, MapSource):
                raise InputError(
                    f"vote: {type(supply.source).__name__} has no random access; write it to a table first"
                )
            self.sources.append(supply.source)
            for name in first.names:
                kind, other = first.source.modalities[name], supply.source.modalities[name]
                if kind != other:
                    raise InputError(f"vote: {name!r} is {kind!r} in one source and {other!r} in another")
        self.modalities = {name: first.source.modalities[name] for name in first.names}
        skipped: list[tuple[str, str]] = []
        groups: dict[str, str] = {}
        told = [_read(source, self.modalities, skipped, groups) for source in self.sources]
        self.skipped = skipped
        names = {key: place for place, key in enumerate(dict.fromkeys(key for one in told for key, _ in one))}
        keys = np.array([names[key] for one in told for key, _ in one], np.int64)
        digests = np.array([items for one in told for _, items in one], np.int64).reshape(len(keys), -1)
        voters = np.repeat(np.arange(len(told)), list(map(len, told)))
        answers = _number(digests)
        self.weights, accuracy = weigh(Votes(voters, keys, answers, _number(digests[:, _varying(keys, digests)])))
        votes = np.stack([voters, keys, answers, [row for one in told for row in one.values()]], 1)
        positions = list(supplies)
        self.voices = _describe(votes, accuracy, len(names), positions)
        company: dict[tuple[int, int], set[int]] = defaultdict(set)
        for voter, key, answer, _ in votes.tolist():
            company[key, answer].add(positions[voter])
        _, chosen = np.unique(votes[:, 1:3], axis=0, return_index=True)
        chosen = np.sort(chosen)
        self._votes, self.weights = votes[chosen], np.maximum(self.weights[chosen], LEAST)
        self._company = [" ".join(map(str, sorted(company[key, answer]))) for _, key, answer, _ in self._votes.tolist()]
        seen: Counter[int] = Counter()
        self._suffix = []
        key_of = list(names)
        self._group = [groups.get(key_of[key], key_of[key]) for key in self._votes[:, 1].tolist()]
        for key in self._votes[:, 1].tolist():
            seen[key] += 1
            self._suffix.append(f"#{seen[key]}" if seen[key] > 1 else "")

    def __len__(self) -> int:
        return len(self._votes)

    def __getitem__(self, index: int) -> Sample:
        voter, _, _, row = self._votes[index].tolist()
        sample = self.sources[voter][row]
        weight = sample.weight * float(self.weights[index])
        metadata = {**sample.metadata, "voices": self._company[index]}
        return replace(
            sample, key=sample.key + self._suffix[index], group=self._group[index], weight=weight, metadata=metadata
        )

    def manifest(self) -> Manifest:
        present = np.empty((len(self), len(self.modalities)), bool)
        length, frequency = np.zeros(present.shape, np.float32), np.ones(len(self), np.float32)
        knows_length = knows_frequency = False
        for voter, source in enumerate(self.sources):
            mine, names = self._votes[:, 0] == voter, list(source.modalities)
            columns = [names.index(name) for name in self.modalities]
            known = source.manifest().take(self._votes[mine, 3])
            present[mine] = known.present[:, columns]
            if known.length is not None:
                length[mine], knows_length = known.length[:, columns], True
            if known.frequency is not None:
                frequency[mine], knows_frequency = known.frequency, True
        return Manifest(
            present,
            number_groups(self._group),
            length if knows_length else None,
            frequency if knows_frequency else None,
        )


def _read(
    source: MapSource, modalities: Mapping[str, str], skipped: list[tuple[str, str]], groups: dict[str, str]
) -> dict[tuple[str, tuple[int, ...]], int]:
    """Return the row of each pair that can be read, by its key and the digests of its items (0 of one that it lacks).

    What can't be read is added to skipped, and of each key the first group that is given to groups.
    """
    found: dict[tuple[str, tuple[int, ...]], int] = {}
    for row, sample in attempt(source):
        if isinstance(sample, Sample):
            there = [(name, kind) for name, kind in modalities.items() if name in sample.items]
            try:
                known = {name: item_digest(sample.items, name, kind) for name, kind in there}
            except (UnreadableError, OSError, ValueError) as error:
                skipped.append((sample.key, str(getattr(error, "reason", error))))
                continue
            digests = tuple(known.get(name, 0) for name in modalities)
            found.setdefault((sample.key, digests), row)
            if sample.group:
                groups.setdefault(sample.key, sample.group)
        else:
            skipped.append((sample.key, sample.reason))
    skipped += source.skipped
    return found


def _varying(keys: NDArray[np.int64], digests: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the items that are said of a key, as columns of the digests [V, items]; the others are what it is said of.

    Those are the same in all votes on a key, or nearly so: they differ on less than half as many keys as the one that
    differs most.
    """
    answers = [np.unique(np.stack([keys, one]), axis=1).shape[1] for one in digests.T]
    more = np.array(answers) - len(np.unique(keys))
    return np.flatnonzero(more >= more.max() / 2)


def _number(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number [V] for each row, equal where rows are."""
    numbers: NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers


def _describe(
    votes: NDArray[np.int64], accuracy: NDArray[np.float64], number: int, positions: Sequence[int]
) -> list[Voice]:
    answers: dict[int, Counter[int]] = defaultdict(Counter)
    for _, key, answer, _ in votes.tolist():
        answers[key][answer] += 1
    voices = []
    for voter, right in enumerate(accuracy.tolist()):
        own = votes[votes[:, 0] == voter]
        others = [answers[key].total() - 1 for key in own[:, 1].tolist()]
        against = [answers[key].total() - answers[key][answer] for _, key, answer, _ in own.tolist()]
        coverage, overlap, conflict = len(own) / number, _share(others), _share(against)
        voices.append(Voice(positions[voter], len(own), coverage, overlap, conflict, round(right, 4)))
    return voices


def _share(counts: Sequence[int]) -> float:
    return sum(count > 0 for count in counts) / max(1, len(counts))
