"""What is told of one source: plain values made of a survey and a manifest."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multimodal_ssl.data import Supply, hash64
from multimodal_ssl.map_order import MapOrder
from multimodal_ssl.runlog import most_common_reasons
from multimodal_ssl.spread import Spread, spread
from multimodal_ssl.survey import Column, Survey
from multimodal_ssl.types import MapSource, Sample

TOP = 8  # of what is listed by how common it is
EXAMPLES = 3
PLAIN = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Common:
    """An item that several samples have: how many, the beginning of its text or else "", the key of the first."""

    count: int
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often items, or whole samples, are equal.

    Attributes:
        n, distinct: how many were compared, and how many different ones there are.
        sharing: how many have an equal one.
        strangers: how many have an equal one in a sample of another group: in a batch each is the other's negative.
        most: the most common ones.
    """

    n: int
    distinct: int
    sharing: int
    strangers: int
    most: list[Common]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a source.

    Attributes:
        n: samples that were counted; all of them, of a source with random access.
        count: number of groups; a sample without one counts as one.
        sharing: samples whose group another one has.
        sizes: of the groups.
        largest: samples of the largest group, and the group's name where a sample of it can be read.
        crowded: samples of an epoch that stand in a batch behind another one of their group; None: not known.
    """

    n: int
    count: int
    sharing: int
    sizes: Spread | None
    largest: tuple[int, str]
    crowded: int | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why samples can't be used: the first one's reason, how many have one like it, and their first keys."""

    count: int
    reason: str
    keys: list[str]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What can't be used.

    Attributes:
        count, tried: of all that was read.
        count_decoded, decoded: of what was decoded as well: the share to expect in training.
        reasons: of these samples; most common first.
        skipped, skipped_reasons: what could not even be made a sample.
    """

    count: int
    tried: int
    count_decoded: int
    decoded: int
    reasons: list[Reason]
    skipped: int
    skipped_reasons: list[Reason]


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """A metadata field: samples that have it, of n; different values, at least; the most common; numbers."""

    n: int
    count: int
    distinct: int
    most: list[tuple[str, int]]
    numbers: Spread | None


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that repeat, and keys that differ in capitals, accents, blanks and signs alone; some of each."""

    repeated: int
    repeated_some: list[str]
    alike: int
    alike_some: list[list[str]]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is told of a source.

    Attributes:
        label: the name of the source, and its path if it has one.
        modalities: of the items in use, by name.
        total: number of samples; None: a stream that goes on.
        tried, decoded: how many were read, and how many of these decoded.
        exact: whether `items` and `combinations` are of all samples, told by the manifest.
        items, combinations: how many samples have an item, and have just these items.
        sizes: name of the items -> measure -> its spread.
        repeats, samples_repeat: of the items by name, and of whole samples.
        weights, frequency: None where all are 1.
        tally: name -> what its encoder counts of the decoded items -> how many.
    """

    label: str
    modalities: dict[str, str]
    total: int | None
    tried: int
    decoded: int
    exact: bool
    items: dict[str, int]
    combinations: list[tuple[list[str], int]]
    groups: Groups | None
    sizes: dict[str, dict[str, Spread]]
    repeats: dict[str, Repeats]
    samples_repeat: Repeats
    keys: Keys
    unreadable: Unreadable
    weights: Spread | None
    frequency: Spread | None
    metadata: dict[str, FieldFacts]
    tally: dict[str, dict[str, int]]

    @property
    def is_sampled(self) -> bool:
        """Whether there is more than what was read."""
        return self.total is None or self.tried < self.total


@dataclass(frozen=True, slots=True)
class Shared:
    """What an evaluation shares with the sources, exactly: items of a name, whole samples, keys or groups.

    Attributes:
        count, n: samples of the evaluation that share it, of so many that have it and were read.
        some: keys of the evaluation, and each one's like in the sources.
    """

    what: str
    count: int
    n: int
    some: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """What training would read.

    Attributes:
        batch: samples of a step.
        per_epoch: batches of each source in one pass; None: a stream.
        steps: length of training; None: not known, or no config.
        visits: how often training comes to each sample of each source, in the mean; None: not known.
        left_out: samples that no batch can hold.
        refusal: why training would not begin, or "".
    """

    batch: int
    per_epoch: list[int | None]
    steps: int | None
    visits: list[float | None]
    left_out: int
    refusal: str


def tell(label: str, supply: Supply, found: Survey, order: MapOrder | None, *, apart: bool) -> SourceFacts:
    """Return what is told of a source; `order`: in which it is trained on, if that is known."""
    source, names = supply.source, supply.names
    frequency = None
    kinds: Mapping[tuple[str, ...], int] = found.kinds
    if isinstance(source, MapSource):
        manifest = source.manifest()
        frequency = manifest.frequency
        kinds = _kinds(manifest.present[:, [list(source.modalities).index(name) for name in names]], names)
    items = {name: sum(count for kind, count in kinds.items() if name in kind) for name in names}
    combinations = sorted(((list(kind), count) for kind, count in kinds.items()), key=lambda one: (-one[1], one[0]))
    whole = Column()
    whole.places.extend(range(len(found.keys)))
    whole.digests.extend(found.whole)
    return SourceFacts(
        label=label,
        modalities={name: source.modalities[name] for name in names},
        total=found.total,
        tried=found.tried,
        decoded=found.decoded,
        exact=isinstance(source, MapSource),
        items=items,
        combinations=combinations,
        groups=_groups(source, found, order, apart=apart) if isinstance(source, MapSource) else _seen_groups(found),
        sizes={name: _sizes(column) for name, column in found.columns.items()},
        repeats={name: _repeats(found, column, found.labels) for name, column in found.columns.items()},
        samples_repeat=_repeats(found, whole, {}),
        keys=_keys(found.keys),
        unreadable=_unreadable(found, source.skipped),
        weights=None if all(one == 1 for one in found.weights) else spread(found.weights),
        frequency=None if frequency is None or (frequency == 1).all() else spread(frequency),
        metadata={
            name: FieldFacts(
                len(found.keys), one.count, len(one.common), one.common.most_common(TOP), spread(one.numbers)
            )
            for name, one in found.metadata.items()
        },
        tally={name: dict(one) for name, one in found.tally.items()},
    )


def _kinds(present: NDArray[np.bool_], names: Sequence[str]) -> dict[tuple[str, ...], int]:
    rows, counts = np.unique(present, axis=0, return_counts=True) if len(present) else (present, np.array([], int))
    return {
        tuple(name for name, has in zip(names, row, strict=True) if has): count
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
    }


def _sizes(column: Column) -> dict[str, Spread]:
    found = {what: spread(values) for what, values in column.measures.items()}
    return {what: one for what, one in found.items() if one}


def _group_facts(numbers: NDArray[np.int64], name_of: Callable[[int], str], crowded: int | None) -> Groups | None:
    """Return what is told of group numbers [N]; name_of: place -> name."""
    if not len(numbers):
        return None
    _, first, sizes = np.unique(numbers, return_index=True, return_counts=True)
    if sizes.max() == 1:
        return None
    place = int(np.argmax(sizes))
    shared = int(sizes[sizes > 1].sum())
    return Groups(
        len(numbers), len(sizes), shared, spread(sizes), (int(sizes[place]), name_of(int(first[place]))), crowded
    )


def _groups(source: MapSource, found: Survey, order: MapOrder | None, *, apart: bool) -> Groups | None:
    numbers = source.manifest().group

    def name_of(row: int) -> str:
        try:
            one: Sample = source[row]
        except Exception:  # noqa: BLE001 - told among the unreadable ones; here it only has no name
            return ""
        return one.group

    if numbers is None:
        # A source may have groups and not know them before it is read: they are not kept apart then.
        return _seen_groups(found)
    return _group_facts(numbers, name_of, _crowded(order, numbers) if order and apart else None)


def _seen_groups(found: Survey) -> Groups | None:
    names: dict[int, str] = dict.fromkeys(found.groups, "")
    for shown in found.shown:
        names[int(hash64([shown.group])[0])] = shown.group
    numbers = _alone(np.array(found.groups, np.int64))
    return _group_facts(numbers, lambda place: names.get(int(numbers[place]), ""), None)


def _alone(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return group numbers [N] in which each 0, no group, is one of its own."""
    groups = groups.copy()
    none = groups == 0
    groups[none] = -1 - np.flatnonzero(none)
    return groups


def _crowded(order: MapOrder, numbers: NDArray[np.int64]) -> int:
    """Return how many samples of the first epoch stand in a batch behind another one of their group."""
    batches = (order[n][1] for n in range(order.per_epoch))
    return sum(len(rows) - len(np.unique(numbers[rows])) for rows in batches)


def _repeats(found: Survey, column: Column, labels: Mapping[int, str]) -> Repeats:
    digests, places = np.array(column.digests, np.int64), np.array(column.places, np.int64)
    if not len(digests):
        return Repeats(0, 0, 0, 0, [])
    groups = _alone(np.array(found.groups, np.int64))[places]
    values, first, which, counts = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([which, groups]), axis=1)  # of an item and a group that has it
    of_many_groups = np.bincount(pairs[0], minlength=len(values)) > 1
    most = np.argsort(-counts, kind="stable")[:TOP]
    return Repeats(
        len(digests),
        len(values),
        int(counts[counts > 1].sum()),
        int(counts[of_many_groups].sum()),
        [
            Common(int(counts[one]), labels.get(int(values[one]), ""), found.keys[places[first[one]]])
            for one in most.tolist()
            if counts[one] > 1
        ],
    )


def _keys(keys: Sequence[str]) -> Keys:
    counts = Counter(keys)
    repeated = [key for key, count in counts.items() if count > 1]
    plain = np.array([hash64([_plain(key)])[0] for key in counts], np.int64)
    values, numbers = np.unique(plain, return_counts=True)
    alike: dict[int, list[str]] = {one: [] for one in values[numbers > 1].tolist()}
    for key, number in zip(counts, plain.tolist(), strict=True):
        if number in alike:
            alike[number].append(key)
    return Keys(
        sum(counts[key] for key in repeated),
        repeated[:EXAMPLES],
        sum(map(len, alike.values())),
        [some[:EXAMPLES] for some in alike.values()][:EXAMPLES],
    )


def _plain(key: str) -> str:
    letters = "".join(one for one in unicodedata.normalize("NFKD", key) if not unicodedata.combining(one))
    return PLAIN.sub(" ", letters.casefold()).strip()


def _unreadable(found: Survey, skipped: Sequence[tuple[str, str]]) -> Unreadable:
    return Unreadable(
        found.tried - len(found.keys),
        found.tried,
        found.bad_decoded,
        found.decoded,
        _reasons(found.bad),
        len(skipped),
        _reasons({str(number): (reason, 0) for number, (_, reason) in enumerate(skipped)}, [one for one, _ in skipped]),
    )


def _reasons(bad: Mapping[str, tuple[str, int]], places: Sequence[str] = ()) -> list[Reason]:
    """Return the most common reasons; a key is a position in the places, if there are any."""
    return [
        Reason(len(keys), reason, [places[int(key)] if places else key for key in keys[:EXAMPLES]])
        for reason, keys in most_common_reasons(bad)[:TOP]
    ]
