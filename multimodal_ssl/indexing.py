"""Build the index of a run."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml

from multimodal_ssl.ann import Kind
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import dump_config
from multimodal_ssl.data import Supply
from multimodal_ssl.embed import Embedded, embedded, joined
from multimodal_ssl.errors import InputError
from multimodal_ssl.index import Index, check_folder, replace_index
from multimodal_ssl.pipeline import open_supplies, run_config
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import load

BATCH, COMMIT = 256, 16  # samples that are embedded together, batches that are committed together


def build_index(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    folder: Path | str | None = None,
    of: Literal["evaluation", "sources"] = "evaluation",
    kind: Kind | None = None,
    recall: float = 0.95,
    memory: float | None = None,
    binder: Binder | None = None,
    catalog: Catalog | None = None,
) -> Index:
    """Embed the items of a run's evaluation (or training) sources into an index in a folder, else in RUN/index.

    What was stopped goes on where it was. An index that is there answers until the new one takes its place.

    Args:
        kind, recall, memory: of the search structures, see `ann.build`.
    """
    folder = Path(folder or Path(run) / "index")
    check_folder(folder)
    catalog = catalog or Catalog.discover()
    config = run_config(run, overrides)
    supplies = open_supplies(getattr(config, of), catalog)
    if not supplies:
        raise InputError(
            f"the config of {run} has no `{of}:` sources; `mmssl index {run} --of sources` takes the others"
        )
    binder = binder or load(run, catalog=catalog)
    sources = yaml.safe_load(dump_config(config))[of]
    index = fill(building(folder), binder, supplies, sources, workers=config.train.workers)
    return finish(index, folder, kind=kind, recall=recall, memory=memory)


def building(folder: Path) -> Path:
    """Return where an index grows before it takes its place."""
    return folder.with_name(f"{folder.name}.building")


def fill(folder: Path, binder: Binder, supplies: Sequence[Supply], sources: Any, *, workers: int = 0) -> Index:
    """Embed all that supplies hold into an index in a folder, from where an earlier call was stopped.

    Args:
        sources: what the supplies were opened from, as plain values.
    """
    check_folder(folder)
    facts = {"sources": sources, "recipe": json.loads(binder.recipe), "version": version("multimodal-ssl")}
    index = _begun(folder, binder, facts)
    parts: dict[str, list[Embedded]] = {}
    done = int(index.store.facts.get("batches", 0))
    stream = embedded(binder, supplies, start=done, batch=BATCH, workers=workers, previews=True)
    for number, (found, _) in enumerate(stream, done + 1):
        for name, items in found.items():
            parts.setdefault(name, []).append(items)
        if number % COMMIT == 0 or not found:
            for name, some in parts.items():
                index.add(name, joined(some), update=True)  # those of a batch that was not noted any more are there
            index.store.note(batches=number)
            parts.clear()
    return index


def finish(
    index: Index, folder: Path, *, kind: Kind | None = None, recall: float = 0.95, memory: float | None = None
) -> Index:
    """Build the structures of an index, learn its probabilities, and move it to a folder."""
    if not index.counts:
        raise InputError("nothing could be read of what was to be indexed")
    for name in index.counts:
        index.optimise(name, kind=kind, recall=recall, memory=memory)
    index.calibrate()
    index.close()
    return replace_index(index.store.folder, folder)


def _begun(folder: Path, binder: Binder, facts: Mapping[str, Any]) -> Index:
    """Open an index whose building was stopped, if it is of this Binder and these sources, or begin a new one."""
    if folder.exists():
        with contextlib.suppress(InputError):
            index = Index(folder)
            if index.store.facts.items() >= {**facts, "fingerprint": binder.fingerprint()}.items():
                return index
            index.close()
        shutil.rmtree(folder)
    return Index.create(folder, binder.fingerprint(), binder.dim, **facts)
