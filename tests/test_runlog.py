from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from multimodal_ssl.cli.training_tables import print_balance
from multimodal_ssl.config import parse_config
from multimodal_ssl.pipeline import fit
from multimodal_ssl.runlog import RunLog

from .toys import Numbers, Stream, catalog, fit_toys, interrupted, learnt, read_lines, read_rows, toy_config


def board(run: Path, name: str) -> list[int]:
    """Return the steps that TensorBoard shows."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [one.step for one in events.Scalars(name)]


@pytest.mark.parametrize("step", [2, 5, 9, 11])
def test_a_resumed_run_tells_what_an_unbroken_one_tells(step: int, tmp_path: Path) -> None:
    train = {"steps": 12, "log_every": 4, "checkpoint_every": 3}
    source = Numbers(40, broken={1, 2})
    fit_toys(tmp_path / "unbroken", source, **train)
    with interrupted(step=step):
        fit_toys(tmp_path / "resumed", source, **train)
    fit_toys(tmp_path / "resumed", source, resume=True, **train)
    unbroken, resumed = learnt(tmp_path / "unbroken"), learnt(tmp_path / "resumed")
    assert [one["step"] for one in unbroken] == [3, 4, 6, 8, 9, 12]
    assert resumed == unbroken
    told = read_rows(tmp_path / "unbroken")
    assert read_rows(tmp_path / "resumed") == told
    assert sorted(one["key"] for one in told) == ["1", "2"]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    train = {"steps": 12, "log_every": 4, "checkpoint_every": 3}
    with interrupted(step=9):  # step 8 was told, and comes again
        fit_toys(tmp_path / "run", Numbers(40), **train)
    time.sleep(1)  # TensorBoard orders its files by the second
    fit_toys(tmp_path / "run", Numbers(40), resume=True, **train)
    for name in ("loss", "lr", "a/seen"):
        assert board(tmp_path / "run", name) == [3, 4, 6, 8, 9, 12]


def test_counts_grow_over_all_of_training_and_are_said_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_toys(tmp_path / "run", Numbers(40, broken={0}), steps=10, checkpoint_every=5, log_every=2)
    seen = [one["a/seen"] for one in learnt(tmp_path / "run")]
    assert seen == [one["b/seen"] for one in learnt(tmp_path / "run")]
    assert seen[-1] == 78, "two epochs of 40 samples, one of which can't be read"
    assert seen == sorted(seen)
    assert seen[0] < 17
    assert "a/seen: 78 times" in capsys.readouterr().err


def test_half_a_line_that_a_kill_left_is_cut_off(tmp_path: Path) -> None:
    run, source = tmp_path / "run", Numbers(40, broken=range(4))
    train = {"steps": 12, "checkpoint_every": 3, "max_unreadable": 1.0}
    with interrupted(step=8):
        fit_toys(run, source, **train)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    fit_toys(run, source, resume=True, **train)
    assert [one["step"] for one in read_lines(run / "metrics.jsonl")] == list(range(1, 13))
    assert sorted(one["key"] for one in read_rows(run)) == ["0", "1", "2", "3"]


def test_equal_keys_of_two_sources_are_recorded_apart(tmp_path: Path) -> None:
    fit_toys(tmp_path / "run", Numbers(40, broken={0, 1}), Numbers(40, "ac", broken={0, 1}), steps=30)
    found = [one["key"] for one in read_rows(tmp_path / "run")]
    assert sorted(found) == ["0/0", "0/1", "1/0", "1/1"]


def test_what_a_stream_skips_while_it_is_read_is_recorded_once(tmp_path: Path) -> None:
    fit_toys(tmp_path / "run", Stream(Numbers(40, broken={7, 9})), steps=20)
    assert read_rows(tmp_path / "run") == [
        {"key": "line 7", "reason": "broken", "step": 0},
        {"key": "line 9", "reason": "broken", "step": 0},
    ]


def test_a_run_that_begins_anew_forgets_what_an_earlier_one_told(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, enabled=True) as log:
        log.add(loss=1.0)
        log.write(1)
        log.unreadable(0, [("x", "why")])
    with RunLog(tmp_path, 0, enabled=True) as log:
        log.add(loss=2.0)
        log.write(2)
        log.unreadable(0, [("y", "why")])
        log.unreadable(0, [("y", "why")])
    assert [one["loss"] for one in read_lines(tmp_path / "metrics.jsonl")] == [2.0]
    assert read_rows(tmp_path) == [{"key": "y", "reason": "why", "step": 0}]


def test_means_are_of_the_steps_since_the_last_line(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, enabled=True) as log:
        for loss in (1.0, 2.0, 6.0):
            log.add(loss=loss)
        assert log.write(3, lr=0.5) == {"loss": 3.0}
        log.add(loss=4.0)
        log.write(4, lr=0.25)
    assert [json.dumps(one) for one in read_lines(tmp_path / "metrics.jsonl")] == [
        '{"step": 3, "loss": 3.0, "lr": 0.5}',
        '{"step": 4, "loss": 4.0, "lr": 0.25}',
    ]


def test_one_process_of_several_writes_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, 0, enabled=False) as log:
        log.add(loss=1.0)
        log.unreadable(0, [("x", "why")])
        log.count({"a/seen": 1})
        log.warn("something is wrong")
        assert log.write(1) == {"loss": 1.0}
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err


def test_an_advice_is_given_once_though_its_numbers_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, 0, enabled=True) as log:
        for advice in (None, "the embeddings have collapsed to one point (0.001)", "the loss stays at 3.0"):
            log.warn(advice)
        log.warn("the embeddings have collapsed to one point (0.002)")
    assert capsys.readouterr().err.count("warning:") == 2


def test_what_each_of_several_sources_gave_is_counted_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = catalog([Numbers(40), Numbers(40, "ac")])
    values = toy_config(tmp_path / "run", "abc", 2, steps=12, log_every=4).model_dump(mode="json")
    values["sources"] = ["0", {"name": "1", "share": 2}]
    config = parse_config(values)
    fit(config, catalog=known)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert (lines[-1]["sources.0/batches"], lines[-1]["sources.1/batches"]) == (4, 8)
    capsys.readouterr()
    print_balance(config)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:2] in ("0 ", "1 ")]
    last = {place: [line[f"loss of sources.{place}"] for line in lines][-1] for place in (0, 1)}
    assert [row[3:6] for row in rows] == [["1", "4", "0.33"], ["2", "8", "0.67"]]
    assert [float(row[-1]) for row in rows] == pytest.approx([last[0], last[1]], abs=1e-3)
