"""What a person should look at in the facts of sources, in sentences; what matters most comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from multimodal_ssl.config import TrainConfig
from multimodal_ssl.facts import Reason, Schedule, Shared, SourceFacts

FEW = 0.01  # share of samples below which nothing is said
COMMON = 0.05  # share of samples from which one item of theirs is told
CROWD = 0.2  # share of samples from which one group is told


def remark(
    sources: Sequence[SourceFacts],
    evaluation: Sequence[SourceFacts],
    leaks: Sequence[Shared],
    schedule: Schedule | None,
    train: TrainConfig | None,
    encoders: Mapping[str, str],
) -> list[str]:
    """Return the sentences."""
    found: list[str] = []
    if schedule and schedule.refusal:
        found.append(f"training would refuse this: {schedule.refusal}")
    for position, one in enumerate(sources):
        place = f"source {position}: " if len(sources) > 1 else ""
        found += [place + text for text in _unreadable(one, train)]
    for position, one in enumerate(evaluation):
        found += [f"evaluation {position}: {text}" for text in _unreadable(one, None)]
    found += _leaks(leaks, evaluation)
    for position, one in enumerate(sources):
        place = f"source {position}: " if len(sources) > 1 else ""
        parts = (_items(one), _groups(one, schedule), _repeats(one), _tally(one, encoders), _keys(one))
        found += [place + text for part in parts for text in part]
    if schedule and schedule.left_out:
        found.append(
            f"{schedule.left_out:,} samples are left out of training: the objective takes none of their items "
            f"together, or fewer than {schedule.batch} (train.batch) others have them"
        )
    return found


def share_of(count: int, total: int) -> str:
    """Return a share as a person reads it."""
    share = count / max(total, 1)
    return f"{share:.1%}" if share < 0.1 and count else f"{share:.0%}"


def said(reason: Reason) -> str:
    """Return a reason on one line of moderate length."""
    text = " ".join(reason.reason.split())
    return text if len(text) <= 160 else text[:159] + "…"


def _unreadable(one: SourceFacts, train: TrainConfig | None) -> Iterator[str]:
    bad = one.unreadable
    if bad.tried and bad.count == bad.tried:
        yield f"not one of {bad.tried:,} samples can be read: {said(bad.reasons[0])}"
    elif bad.count:
        count, tried = (bad.count_decoded, bad.decoded) if bad.count_decoded else (bad.count, bad.tried)
        reasons = "; ".join(f"{said(reason)} ({reason.count:,} x)" for reason in bad.reasons[:2])
        text = f"{share_of(count, tried)} unreadable ({count:,} of {tried:,}): {reasons}"
        if train and count > train.max_unreadable * tried:
            text += f"; training stops above train.max_unreadable={train.max_unreadable}"
        yield text
    if bad.skipped:
        yield f"{bad.skipped:,} skipped before they were samples: {said(bad.skipped_reasons[0])}"


def _leaks(leaks: Sequence[Shared], evaluation: Sequence[SourceFacts]) -> Iterator[str]:
    kinds = {name: kind for one in evaluation for name, kind in one.modalities.items()}
    for one in leaks:
        if one.what in ("keys", "groups") or not one.count:
            continue
        like = f", e.g. {one.some[0][0]} is {one.some[0][1]} there"
        if one.what == "samples":
            yield f"{share_of(one.count, one.n)} of the evaluation's samples are in the sources, item for item{like}"
        elif kinds.get(one.what) != "text":  # words repeat in every language
            yield f"{share_of(one.count, one.n)} of the evaluation's {one.what} items are in the sources{like}"


def _items(one: SourceFacts) -> Iterator[str]:
    total = sum(count for _, count in one.combinations)
    for name, count in one.items.items():
        if not count and total:
            yield f"no sample has {name}"
    alone = sum(count for names, count in one.combinations if len(names) < 2)
    if len(one.modalities) > 1 and alone > FEW * total:
        yield f"{share_of(alone, total)} of the samples ({alone:,}) have fewer than two items: nothing can be paired"


def _groups(one: SourceFacts, schedule: Schedule | None) -> Iterator[str]:
    groups = one.groups
    if groups is None:
        return
    size, name = groups.largest
    if size > CROWD * groups.n:
        yield f"group of {size:,} of {groups.n:,} samples{f' ({name!r})' if name else ''}: none is another's negative"
    if schedule and groups.crowded and groups.crowded > FEW * groups.n:
        yield (
            f"{share_of(groups.crowded, groups.n)} of the samples can't be kept apart from another of their group in "
            f"batches of {schedule.batch}: lower train.batch"
        )


def _repeats(one: SourceFacts) -> Iterator[str]:
    whole = one.samples_repeat
    read = "" if not one.is_sampled else " of those read"
    if whole.sharing > FEW * whole.n:
        yield f"{share_of(whole.sharing, whole.n)} of the samples{read} are equal to another, item for item"
    for name, repeats in one.repeats.items():
        if repeats.n > 1 and repeats.distinct == 1:
            yield f"all {name} items are equal: they tell nothing"
            continue
        if repeats.strangers > FEW * repeats.n:
            yield (
                f"{share_of(repeats.strangers, repeats.n)} of the samples{read} share their {name} with another of "
                "another group: in a batch each counts as the other's mistake; `group` tells that they belong together"
            )
        elif repeats.sharing > FEW * repeats.n:
            yield f"{share_of(repeats.sharing, repeats.n)} of the samples{read} share their {name} with another"
        for most in repeats.most[:1]:
            if most.count > max(COMMON * repeats.n, 2):
                what = repr(most.text) if most.text else f"that of {most.key}"
                yield f"one {name}, {what}, is that of {share_of(most.count, repeats.n)} of the samples{read}"


def _tally(one: SourceFacts, encoders: Mapping[str, str]) -> Iterator[str]:
    decoded = one.decoded - one.unreadable.count_decoded
    for name, counts in one.tally.items():
        for what, count in counts.items():
            if count <= FEW * decoded:
                continue
            if what == "truncated" and (tokens := one.sizes.get(name, {}).get("tokens")):
                yield (
                    f"{share_of(count, decoded)} of the {name} items are longer than the {tokens.most:,.0f} tokens of "
                    f"their encoder, {encoders.get(name, '')}: the rest is cut off"
                )
            else:
                yield f"{name} {what}: {share_of(count, decoded)} of the items that were prepared"


def _keys(one: SourceFacts) -> Iterator[str]:
    if one.keys.repeated:
        some = ", ".join(map(repr, one.keys.repeated_some))
        yield f"{one.keys.repeated:,} samples have a key that another one has, too: an audit refuses that; {some}"
    if one.keys.alike:
        some = " and ".join(map(repr, one.keys.alike_some[0]))
        yield f"{one.keys.alike:,} keys are nearly those of another, e.g. {some}"
