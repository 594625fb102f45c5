"""What a run tells while it trains: metrics, unreadable samples, warnings and a progress bar."""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multimodal_ssl.files import replacing, write_text

ROWS = pa.schema({"key": pa.string(), "reason": pa.string(), "step": pa.int64()})
REASONS = 10  # of unreadable samples that are told at the end


class RunLog:
    """metrics.jsonl, TensorBoard and rows.parquet of a run; what lies beyond the resumed step is cut off."""

    def __init__(self, run_dir: Path, start: int, *, enabled: bool) -> None:
        self.enabled = enabled
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.notes: dict[str, list[float]] = defaultdict(list)
        self.steps = 0
        self.bad: dict[str, tuple[str, int]] = {}  # key -> why it could not be read, and when first
        self.written = 0  # of these
        self.warned: set[str] = set()
        self.metrics_path = run_dir / "metrics.jsonl"
        self.rows_path = run_dir / "rows.parquet"
        if enabled:
            from torch.utils.tensorboard import SummaryWriter  # a search needs none

            kept = [one for one in _read_lines(self.metrics_path) if one["step"] <= start]
            _write_lines(self.metrics_path, kept)
            self.counts.update({name: n for name, n in (kept or [{}])[-1].items() if "/" in name})
            if start and self.rows_path.exists():
                rows = pq.ParquetFile(self.rows_path).read().to_pylist()
                self.bad = {row["key"]: (row["reason"], row["step"]) for row in rows if row["step"] < start}
            self._write_rows()
            self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Say what was counted and how many samples could not be read."""
        if self.enabled:
            self.board.close()
            console = Console(stderr=True)
            for what, value in self.counts.items():
                if what.endswith("/batches"):  # which have a table
                    continue
                console.print(f"{what}: {value:,} times")
            self._write_rows()
            if self.bad:
                console.print(f"{len(self.bad):,} samples could not be read, see {self.rows_path}:", highlight=False)
                for reason, keys in most_common_reasons(self.bad)[:REASONS]:
                    text = f"  {len(keys):,} x {reason}, e.g. {keys[0]}"
                    console.print(text, markup=False, highlight=False, soft_wrap=True)

    def add(self, **values: float) -> None:
        """Add the values of one step to the means that `write` reports."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] += value

    def note(self, name: str, value: float) -> None:
        """Add a value that not every step has to the mean of those that have it."""
        self.notes[name].append(value)

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to the counts of all of training."""
        for what, value in counts.items():
            self.counts[what] += value

    def mean(self, name: str) -> float:
        """Return the mean since the last `write`."""
        return self.sums[name] / max(1, self.steps)

    def write(self, step: int, **values: float) -> dict[str, float]:
        """Write the means since the last call, the counts and these values; return the means."""
        means = {name: self.mean(name) for name in self.sums}
        means |= {name: sum(some) / len(some) for name, some in self.notes.items()}
        record = {"step": step, **means, **values, **self.counts}
        if self.enabled:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in record.items():
                self.board.add_scalar(name, value, step)
            if len(self.bad) > self.written:
                self._write_rows()
        self.sums.clear()
        self.notes.clear()
        self.steps = 0
        return means

    def unreadable(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Record each sample that can't be read once."""
        for key, reason in samples:
            self.bad.setdefault(key, (reason, step))

    def _write_rows(self) -> None:
        rows = [{"key": key, "reason": reason, "step": step} for key, (reason, step) in self.bad.items()]
        with replacing(self.rows_path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, ROWS), temporary)
        self.written = len(self.bad)

    def warn(self, advice: str | None) -> None:
        """Say an advice once."""
        if advice and advice[:30] not in self.warned and self.enabled:
            self.warned.add(advice[:30])
            Console(stderr=True).print(f"[yellow]warning:[/] {advice}")


def most_common_reasons(bad: Mapping[str, tuple[str, int]]) -> list[tuple[str, list[str]]]:
    """Return the reasons, those that differ in quoted words and numbers alone as one, and their keys; most first."""
    alike: dict[str, list[str]] = defaultdict(list)
    for key, (reason, _) in bad.items():
        alike[re.sub(r"'[^']*'|\"[^\"]*\"|<[^>]*>|\d+", "…", reason)].append(key)
    return sorted(((bad[keys[0]][0], keys) for keys in alike.values()), key=lambda one: -len(one[1]))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a JSONL file; a kill may have left half a line at its end."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def _write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(one) + "\n" for one in values))


@contextmanager
def progress(total: int, start: int, *, enabled: bool) -> Iterator[Any]:
    """Show a bar on a terminal, a line every tenth of the way elsewhere; yields advance(loss)."""
    console = Console(stderr=True)
    done, began = start, time.perf_counter()
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(), console=console, disable=not (enabled and console.is_terminal),
    )  # fmt: skip
    task = bar.add_task("training", total=total, completed=start, loss=math.nan)

    def advance(loss: float) -> None:
        nonlocal done
        done += 1
        bar.update(task, advance=1, loss=loss)
        if enabled and not console.is_terminal and (done * 10 // total) != ((done - 1) * 10 // total):
            console.print(f"step {done}/{total}  loss {loss:.3f}  {time.perf_counter() - began:.0f} s")

    with bar:
        yield advance
