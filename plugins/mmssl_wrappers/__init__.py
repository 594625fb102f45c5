"""Pairing sources that are made of other ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from multimodal_ssl import AnySource, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register


def open_limit(*, source: AnySource, count: Annotated[int, Ge(1)], seed: int | None = None) -> PairingSource:
    """The first so many samples of a source, all if it has fewer.

    Args:
        seed: take so many at random instead, in their order. Of a stream these are the samples whose key has the
            least hash with the seed; it is read once for it when it is opened.
    """
    from mmssl_wrappers.limit import limit

    return limit(source, count, seed=seed)


def open_filter(
    *, source: AnySource, where: str | None = None, has: Sequence[str] = (), key: str | None = None
) -> PairingSource:
    """The samples of a source that pass all conditions; the others are left out, not told as bad.

    What can't be read stays, so that training records it, but where the source knows that it lacks an item of `has`.
    With `where` or `key` the samples are read once, without their items being decoded, when the source is opened; of a
    stream only as many as it takes to find one that passes.

    Args:
        where: a condition on metadata, key and group, such as "license = 'MIT' and year >= 2020" (docs/filters.md).
        has: names of items that a sample must have.
        key: regular expression that must be found in the key.
    """
    from mmssl_wrappers.filter import filtered

    return filtered(source, where=where, has=has, key=key)


def open_dedup(
    *,
    source: AnySource,
    by: Sequence[str],
    near: dict[str, float | str] | None = None,
    then: Literal["drop", "group"] = "drop",
) -> PairingSource:
    """A source without its duplicates: of samples whose items are equal the first stays.

    Items are equal if their bytes are: those of a file, or of a text in UTF-8. What can't be read is equal to nothing.
    How many were dropped is told on stderr. They are not among what the source skipped, since nothing is wrong with
    them. All samples are read once when the source is opened, also of a stream, and the pictures decoded for near.hash.

    Args:
        by: names of the items that must all be equal; what neither of two samples has is equal.
        near: of one name, {hash: 3} compares pictures by a difference hash of 64 bits, of which so many may differ;
            pictures of one colour must be equal. All pairs are found: up to 11 bits by looking up bands of 16 bits,
            with more by comparing all. {run: runs/x, above: 0.98} compares the vectors of a trained run by their
            cosine, all with all. What is dropped is near to one that stays.
        then: group makes duplicates, and all that share a group with one, a group instead of dropping them.
    """
    from mmssl_wrappers.dedup import deduplicate, parse_near

    return deduplicate(source, by, parse_near(near), then).source


def open_split(
    *,
    source: AnySource,
    part: str,
    shares: dict[str, float],
    seed: int = 0,
    by: Literal["group"] | list[str] = "group",
) -> PairingSource:
    """One part of a source: samples of one group are never in two parts, and a sample without a group is drawn by key.

    Each group is drawn by a hash of its name, so that rows that are added move no other, and the same group is in the
    same part of every source. Shares are of groups: parts are about as large as they say where groups are many.

    Args:
        part: the part to take, such as train.
        shares: name of a part -> share of the groups, in sum 1. Their order counts.
        by: names of items: samples that share a group or an equal item (see dedup) belong together, as does what either
            of them shares with others. A row that is added can join two lots, which may move one of them.
    """
    from mmssl_wrappers.split import split

    return split(source, part, shares, seed=seed, by=by)


def open_mix(
    *,
    sources: list[AnySource],
    weights: list[float] | None = None,
    temperature: float = 1.0,
    share_groups: bool = False,
) -> PairingSource:
    """Several sources as one, whose batches mix their samples; the keys begin with the position, such as "0/KEY".

    An epoch makes as many visits as the sources have together, N = n_0 + n_1 + ...; source i, whose share is s_i, has
    s_i * N of them, and each of its samples is visited s_i * N / n_i times on average. Without weights s_i is
    n_i^(1/temperature) divided by the sum of these: 1 visits each sample once, 5 favours small sources, and a very
    large temperature gives all sources the same share. Where one of the sources is a stream the shards are those of
    all, and there are neither weights nor temperature.

    Args:
        weights: the share of each source, divided by their sum.
        share_groups: groups of one name are one group, whichever source they are of; else they are apart.
    """
    from mmssl_wrappers.mix import mix

    return mix(sources, weights, temperature, share_groups=share_groups)


def open_co_label(
    *, sources: dict[str, AnySource], label: str, repeats: Annotated[int, Ge(1)] = 1, seed: int = 0
) -> PairingSource:
    """Collections that nobody paired, paired at random by a label that they share, which becomes the group.

    Of each label there are as many samples as the largest collection has, each item of which is used once, those of
    the others as evenly as can be. The keys are "KEY1+KEY2". All sources need random access, and are read once when
    this one is opened. Samples whose label is not in all collections are left out, and counted on stderr.

    Args:
        sources: what a collection is called in messages -> the collection.
        label: metadata, "group", or items that are texts; those of the first collection are kept.
        repeats: how often each item of the largest collection is used, with another partner each time, as far as
            there are any.
    """
    from mmssl_wrappers.co_label import co_label

    return co_label(sources, label, repeats=repeats, seed=seed)


def open_join(
    *,
    left: AnySource,
    right: AnySource,
    by: str | list[str] | dict[str, str | list[str]],
    how: Literal["key", "fuzzy", "time", "place"] = "key",
    tolerance: float | str | None = None,
    many: Literal["all", "best", "first"] | None = None,
    rename: dict[str, str] | None = None,
) -> PairingSource:
    """Samples of two sources that are of the same thing, as one sample with the items of both; their keys are "L+R".

    Both sources need random access, and are read once when this one is opened. Samples without a partner are left out,
    and counted on stderr; what can't be read is among what the source skipped. The group is left's, or else right's;
    samples that share one of left or of right are of one group too, as are all of their groups. Weights are multiplied.

    Args:
        by: what both are compared by: metadata, "key", "group", or items that are texts; {left: a, right: b} where the
            names differ. For place the names of latitude and longitude, [lat, lon], in degrees.
        how: key takes equal texts. fuzzy takes texts whose token sort ratio (rapidfuzz) is high, which doesn't mind the
            order of words but case, and multiplies the weight by it. All different texts are compared that are not too
            unlike in length: at 90, left times right is gone through at about 70 million pairs a second for texts of 25
            characters, at 12 million for those of 80. time takes numbers or ISO times, place points of a sphere, both
            without comparing all.
        tolerance: for fuzzy the least ratio, from 0 to 100 (90 if not given). For time the most seconds or a duration
            such as 5min, in us, ms, s, min, h, d or w; numbers are seconds then. For place the most metres.
        many: which partners a sample of left gets: all, each in a sample of its own; the best, that is the most alike
            or nearest; or the first. It is all for key and best for the others, if not given. Of equally good ones the
            first is best. A sample of right may be the partner of several.
        rename: new names of items of right, where left has the same: {image: photo}.
    """
    from mmssl_wrappers.join import join

    return join(left, right, by, how=how, tolerance=tolerance, many=many, rename=rename or {})


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("limit", open_limit)
    register("filter", open_filter)
    register("dedup", open_dedup)
    register("split", open_split)
    register("mix", open_mix)
    register("co-label", open_co_label)
    register("join", open_join)
