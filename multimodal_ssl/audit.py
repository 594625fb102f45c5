"""The audit: which samples of the training data are wrong, told by runs that took known mismatches for samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal_ssl.config import Config, DecoyConfig
from multimodal_ssl.data import Supply, full_key, hash64, readable
from multimodal_ssl.decoys import choose_decoys, random_access
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.errors import InputError
from multimodal_ssl.files import replacing, write_text
from multimodal_ssl.pipeline import check_same, fit, open_training
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import load
from multimodal_ssl.significance import LEAST
from multimodal_ssl.strict import PluginConfig
from multimodal_ssl.trust import Trust
from multimodal_ssl.verdict import Rates, Role, View, judge_kind, rows_of_unreadable


@dataclass(frozen=True, slots=True)
class Audit:
    """The judgement of every sample, worst first: key, items, p_value, p_mismatch, odd, suggestion, reasons."""

    table: pa.Table
    rates: list[Rates]
    unreadable: list[tuple[str, str]]

    def save(self, folder: Path) -> None:
        """Write audit.parquet and audit.json."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "audit.parquet") as temporary:
            pq.write_table(self.table, temporary)
        figures = {"rates": [asdict(one) for one in self.rates], "unreadable": self.unreadable}
        write_text(folder / "audit.json", json.dumps(figures, indent=2))


def audit(
    config: Config, folder: Path, *, judges: int = 2, strangers: int = 1000, catalog: Catalog | None = None
) -> Audit:
    """Judge all samples of the sources of a config.

    Each judge is a run on all of them, with the active complementary loss, in which a tenth (of few, up to a quarter)
    are decoys: they exchanged an item on purpose. A sample is ranked among them by what tells them (see evidence.py).
    A run that is there already is taken, one that was stopped goes on. One judge means no such care: the run of the
    config itself ranks each partner among strangers, and believes what it memorised, so that it finds too few.

    Raises InputError, before anything is trained, if a key repeats, the samples are too few or too alike
    for decoys, or a source has no random access to plant them in; and if a judge that is there is of another config.
    """
    catalog = catalog or Catalog.discover()
    if config.decoys:
        raise InputError("this is the run of a judge, some of its samples are decoys: audit the config it was made for")
    supplies, _ = open_training(config, catalog)
    if judges > 1:
        for supply in supplies:
            random_access(supply)
    roles = _survey(supplies)
    panel: list[DecoyConfig | None] = [None]
    if judges > 1:
        panel = [DecoyConfig(judges=judges, judge=index) for index in range(judges)]
        roles |= _decoys(supplies, DecoyConfig(judges=judges, judge=0), config.seed)
    kinds: dict[tuple[str, ...], list[View]] = {}
    unreadable: dict[tuple[str, str], None] = {}
    for index, decoys in enumerate(panel):
        judge = _judge_of(config, folder / f"judge-{index}", decoys) if decoys else config
        is_there = (judge.run / "binder.json").exists()
        if decoys and is_there:
            try:
                check_same(judge)
            except InputError as error:
                raise InputError(f"{error}, or audit into another folder with --out OTHER") from error
        binder = load(judge.run, catalog=catalog) if is_there else fit(judge, resume=True, catalog=catalog)
        found, lost = embed(binder, supplies, workers=config.train.workers, traits=True)
        unreadable |= dict.fromkeys(lost)
        holders = _holders(found)
        planted = _planted(holders, roles, index)
        if decoys:
            planted = _check_samples(judge.run, found, planted)
        trust = Trust.load(judge.run / "trust.parquet", judge.trust) if decoys else Trust(judge.trust)
        for items, view in _by_items(found, holders, planted, trust, roles, index).items():
            kinds.setdefault(items, []).append(view)
    judged = [
        judge_kind(items, _align(views), roles, strangers=strangers, seed=config.seed, by_source=len(supplies) > 1)
        for items, views in kinds.items()
        if len(views) == judges
    ]
    if not judged:
        raise InputError("no sample has two items that could be read: there is nothing to judge")
    table = pa.concat_tables([table for table, _ in judged])
    table = table.sort_by([("p_mismatch", "descending"), ("p_value", "descending")])
    lost_rows = rows_of_unreadable(list(unreadable), table.schema)
    return Audit(pa.concat_tables([table, lost_rows]), [rates for _, rates in judged], list(unreadable))


def _survey(supplies: Sequence[Supply]) -> dict[str, Role]:
    """Return each sample by its key, none a decoy; raise InputError if keys repeat or all samples are of one group."""
    roles: dict[str, Role] = {}
    groups: set[str] = set()
    repeated: list[str] = []
    for position, supply in enumerate(supplies):
        for sample in readable(supply.source):
            key = full_key(supplies, position, sample.key)
            repeated += [key] if key in roles else []
            roles[key] = Role(position, 0)
            groups.add(sample.group or sample.key)
    if repeated:
        some = ", ".join(map(repr, dict.fromkeys(repeated[:20])))
        raise InputError(f"{len(repeated):,} samples have a key that another one has, too; make them unique: {some}")
    if len(groups) < 2:
        raise InputError(
            f"the {len(roles):,} samples are all of one group, so that there is no stranger to compare a partner "
            "with: leave out `group`"
        )
    return roles


def _decoys(supplies: Sequence[Supply], config: DecoyConfig, seed: int) -> dict[str, Role]:
    """Return the role of each sample by its key; raise InputError if there are too few decoys to judge by."""
    roles: dict[str, Role] = {}
    for position in range(len(supplies)):
        found = choose_decoys(supplies, position, config, seed)
        for row, (key, judge, origin) in enumerate(zip(found.keys, found.judge.tolist(), found.origin, strict=True)):
            decoy = (found.items[row], found.keys[origin]) if origin != row else ()
            roles[key] = Role(position, judge, *decoy)
    decoys = Counter(one.judge for one in roles.values() if one.exchanged)
    counts = [decoys[judge] for judge in range(config.judges)]
    if min(counts) < LEAST:
        raise InputError(
            f"only {min(counts)} of {len(roles):,} samples could exchange an item with one of another group, and it "
            f"takes {LEAST} decoys to judge by: leave out `group`, give more samples, or fewer --judges"
        )
    return roles


def _judge_of(config: Config, run: Path, decoys: DecoyConfig) -> Config:
    """Return the config of a judge."""
    objective = PluginConfig(name="acl")
    changes = {"run": run, "evaluation": (), "objective": objective, "audit": None, "decoys": decoys}
    return config.model_copy(update=changes)


def _holders(found: Mapping[str, Embedded]) -> dict[str, dict[str, int]]:
    """Return key -> name -> the row of the item."""
    holders: dict[str, dict[str, int]] = {}
    for name, embedded in found.items():
        for row, key in enumerate(embedded.keys):
            holders.setdefault(key, {})[name] = row
    return holders


def _planted(
    holders: Mapping[str, Mapping[str, int]], roles: Mapping[str, Role], judge: int
) -> dict[str, tuple[str, int]]:
    """Return the item, and the row of the one given in its place, of each decoy to a judge: those that are there."""
    planted = {}
    for key, role in roles.items():
        if role.exchanged and role.origin and role.judge != judge:
            row = holders.get(role.origin, {}).get(role.exchanged)
            if row is not None:
                planted[key] = role.exchanged, row
    return planted


def _check_samples(
    run: Path, found: Mapping[str, Embedded], planted: dict[str, tuple[str, int]]
) -> dict[str, tuple[str, int]]:
    """Keep what the encoders of a judge are given; return the decoys that are what they were then.

    Samples that are new, or are gone, do no harm. Raises InputError if others than decoys were something else.
    """
    path = run / "samples.parquet"
    digests = {
        f"{name} of {key}": one.digest
        for name, each in found.items()
        for key, one in zip(each.keys, each.traits, strict=True)
    }
    given = {f"decoy {key}": found[name].traits[row].digest for key, (name, row) in planted.items()}
    if path.exists():
        table = pq.ParquetFile(path).read()
        before = dict(zip(table["item"].to_pylist(), table["digest"].to_pylist(), strict=True))
    else:
        before = digests | given
        with replacing(path) as temporary:
            pq.write_table(pa.table({"item": [*before], "digest": [*before.values()]}), temporary)
    changed = [name for name, one in digests.items() if before.get(name, one) != one]
    if changed:
        raise InputError(
            f"{len(changed):,} items have changed since {run} was trained on them ({', '.join(changed[:3])}): "
            f"audit them into another folder with --out OTHER, or delete {run.parent}"
        )
    return {key: one for key, one in planted.items() if before.get(f"decoy {key}") == given[f"decoy {key}"]}


def _by_items(
    found: Mapping[str, Embedded],
    holders: Mapping[str, Mapping[str, int]],
    planted: Mapping[str, tuple[str, int]],
    trust: Trust,
    roles: Mapping[str, Role],
    judge: int,
) -> dict[tuple[str, ...], View]:
    """Return what a judge sees of the known samples that have the same two items or more, by the names of these."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for key, places in holders.items():
        if len(places) > 1 and key in roles:
            alike.setdefault(tuple(places), []).append(key)
    views = {}
    for names, keys in alike.items():
        rows = {name: np.array([holders[key][name] for key in keys]) for name in names}
        given = {name: one.copy() for name, one in rows.items()}
        believed = np.log(trust.values(hash64(keys)).astype(np.float64))
        for place, key in enumerate(keys):
            if roles[key].exchanged and roles[key].judge != judge:  # a decoy to this one
                name, row = planted.get(key, ("", 0))
                if name in given:
                    given[name][place] = row
                else:
                    believed[place] = np.nan  # nobody knows what it was
        first = found[names[0]]
        vectors = {name: found[name].vectors[one] for name, one in rows.items()}
        views[names] = View(
            keys,
            hash64(first.groups[row] for row in rows[names[0]]),
            believed,
            vectors,
            {
                name: vectors[name] if (one == rows[name]).all() else found[name].vectors[one]
                for name, one in given.items()
            },
            {name: [found[name].traits[row] for row in one] for name, one in rows.items()},
            [first.metadata[row] for row in rows[names[0]]],
        )
    return views


def _align(views: Sequence[View]) -> list[View]:
    """Return the views of the samples that all judges could see."""
    known = set.intersection(*(set(one.keys) for one in views))
    return [
        one if len(one.keys) == len(known) else one.take([row for row, key in enumerate(one.keys) if key in known])
        for one in views
    ]
