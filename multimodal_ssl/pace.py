"""How fast samples come: each stage in one process, all of them in workers, and what limits."""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from multimodal_ssl.data import Feed, Supply, Ticket, batches
from multimodal_ssl.survey import Clock, Survey, evenly, stream_parts
from multimodal_ssl.types import Encoder, Inputs, MapSource, Modality

LONGEST = 20  # seconds that the feed is measured
ADVICE = {
    "read": "keep the data on a faster disk, or in fewer and larger files",
    "load": "store {name} smaller or in a format that decodes faster",
    "prepare": "choose cheaper preparation in encoders.{name}",
    "collate": "lower train.batch",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage takes of the time of all samples (share), and the samples it does in a second, in one process."""

    stage: str
    name: str
    per_second: float
    share: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast samples come.

    Attributes:
        stages: in the order of their work.
        samples: decoded ones on which the stages were timed.
        one_process: samples a second, from the stages.
        workers, feed, fed: worker processes, samples a second that came from them, and of how many that was measured;
            None: too few batches to measure.
        batch: samples of a batch of the feed.
        cores: of this machine.
        sentence: what limits, and what to do.
    """

    stages: list[Stage]
    samples: int
    one_process: float
    workers: int
    feed: float | None
    fed: int
    batch: int
    cores: int
    sentence: str


class _Nothing(Encoder):
    """Stands for an encoder where there is none: prepares nothing."""

    modality, width = "", 1

    def prepare(self, item: object, rng: object = None) -> Inputs:
        return torch.zeros(())

    def forward(self, inputs: Inputs) -> torch.Tensor:
        raise NotImplementedError("it stands for an encoder in preparation only")


def measure_pace(
    supplies: Sequence[Supply],
    modalities: Mapping[str, Modality],
    encoders: Mapping[str, Encoder],
    surveys: Sequence[Survey],
    *,
    limit: int,
    batch: int,
    workers: int,
    seed: int,
) -> Pace | None:
    """Tell how fast samples come; None if too few could be decoded."""
    stages, one_process, samples = _stages([one.clock for one in surveys])
    if not samples:
        return None
    decoded = sum(one.decoded for one in surveys)
    batch = max(1, min(batch, decoded // (4 * max(1, workers))))
    given = encoders or {name: _Nothing() for supply in supplies for name in supply.names}
    feed = Feed(supplies, given, modalities, seed=seed)
    rate, fed = _time(feed, _tickets(supplies, limit=limit, batch=batch), workers)
    cores = os.cpu_count() or 1
    said = _sentence(stages, one_process, workers, rate, cores)
    return Pace(stages, samples, one_process, workers, rate, fed, batch, cores, said)


def _stages(clocks: Sequence[Clock]) -> tuple[list[Stage], float, int]:
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for clock in clocks:
        for key, value in clock.seconds.items():
            seconds[key] += value
            counts[key] += clock.counts[key]
    samples = counts.get(("read", ""), 0)
    total = sum(seconds.values())
    if not samples or not total:
        return [], 0.0, 0
    order = ["read", "load", "prepare", "collate"]
    stages = [
        Stage(stage, name, counts[stage, name] / max(value, 1e-9), value / total)
        for (stage, name), value in sorted(seconds.items(), key=lambda one: order.index(one[0][0]))
    ]
    return stages, samples / total, samples


def _tickets(supplies: Sequence[Supply], *, limit: int, batch: int) -> Iterator[Ticket]:
    """Yield tickets of full batches of the samples that were decoded."""
    for position, supply in enumerate(supplies):
        pending: dict[tuple[str, ...], list[object]] = defaultdict(list)
        for names, row in _rows(supply, limit):
            pending[names].append(row)
            if names and len(pending[names]) == batch:
                rows = pending.pop(names)
                yield Ticket(0, position, names, rows, range(batch))  # type: ignore[arg-type]  # rows or Samples


def _rows(supply: Supply, limit: int) -> Iterator[tuple[tuple[str, ...], object]]:
    source = supply.source
    if isinstance(source, MapSource):
        rows = evenly(len(source), limit)
        places = [list(source.modalities).index(name) for name in supply.names]
        for row, has in zip(rows.tolist(), source.manifest().present[rows][:, places].tolist(), strict=True):
            yield tuple(itertools.compress(supply.names, has)), row
    else:
        for samples, share in stream_parts(source, limit):
            for sample in itertools.islice(samples, share):
                yield tuple(name for name in supply.names if name in sample.items), sample


def _time(feed: Feed, tickets: Iterator[Ticket], workers: int) -> tuple[float | None, int]:
    """Return samples a second once every worker is at work, and on how many that was measured."""
    began, start, fed = time.perf_counter(), 0.0, 0
    ended = began
    with torch.no_grad():
        for number, one in enumerate(batches(feed, tickets, workers=workers)):
            ended = time.perf_counter()
            if number < max(1, workers):
                start = ended
            else:
                fed += len(one.keys) + len(one.unreadable)
            if ended - began > LONGEST:
                break
    return (fed / (ended - start) if fed and ended > start else None), fed


def _sentence(stages: Sequence[Stage], one_process: float, workers: int, feed: float | None, cores: int) -> str:
    worst = max(stages, key=lambda one: one.share)
    what = {"read": "reading from the source", "load": f"decoding {worst.name}", "prepare": f"preparing {worst.name}",
            "collate": f"collating {worst.name}"}[worst.stage]  # fmt: skip
    text = f"{what} takes {worst.share:.0%} of a sample's time; one process gives {one_process:,.0f} samples/s"
    if feed is not None:
        text += f", {workers} worker{'s' * (workers != 1)} gave {feed:,.0f}"
    if feed is not None and workers and feed < one_process:
        advice = "so many workers do not pay for what they cost here: try fewer"
    elif workers < cores:
        advice = f"raise train.workers (this machine has {cores} cores)"
    else:
        advice = f"more than {workers} workers do not help on {cores} cores"
    return f"{text}: if training waits, {advice}, or {ADVICE[worst.stage].format(name=worst.name)}"
