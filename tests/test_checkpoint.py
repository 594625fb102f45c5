from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from multimodal_ssl import InputError, objectives
from multimodal_ssl.binder import Binder
from multimodal_ssl.checkpoint import load_tensors, save_tensors
from multimodal_ssl.pipeline import fit, open_config
from multimodal_ssl.recipe import load

from .toys import Numbers, Waves, catalog, fit_toys, interrupted, learnt, messy, read_lines, read_rows, write_tiny


class Dropped(Waves):
    dropout = 0.3


class Tied(Waves):
    """Knows one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.layer

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.layer(inputs)) + torch.tanh(self.again(inputs.flip(1)))


@pytest.mark.parametrize(("step", "rounds"), [(2, 1), (4, 1), (9, 1), (14, 1), (7, 2), (13, 2)])
def test_a_messy_run_resumes_to_the_same_bits(step: int, rounds: int, tmp_path: Path) -> None:
    train = {
        "steps": 20 // rounds,
        "trust": {"warmup": 1, "rounds": rounds},
        "batch": 4,
        "log_every": 7,
        "checkpoint_every": 3,
        "max_unreadable": 1.0,
    }
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    hopeless = Numbers(8, broken=range(7))  # half of its batches can't be read at all
    options = {"encoder": Dropped, "objective": objectives.acl, **train}  # acl weighs by trust
    fit_toys(whole, *messy(), hopeless, **options)
    assert {one["key"][:2] for one in read_rows(whole)} == {"0/", "1/", "2/"}
    with interrupted(step=step):
        fit_toys(resumed, *messy(), hopeless, **options)
    fit_toys(resumed, *messy(), hopeless, resume=True, **options)
    for name in ("model.safetensors", "trust.parquet"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert learnt(resumed) == learnt(whole)


def test_a_second_round_begins_anew_with_what_was_learnt_of_its_samples(tmp_path: Path) -> None:
    """It starts from the weights and the rate that the first started from, and trust goes on after its warm-up."""
    options = {"objective": objectives.acl, "steps": 8, "lr": 0.3}
    fit_toys(tmp_path / "once", Numbers(16), trust={"warmup": 1}, **options)
    fit_toys(tmp_path / "twice", Numbers(16), trust={"warmup": 1, "rounds": 2}, **options)
    once, twice = learnt(tmp_path / "once"), learnt(tmp_path / "twice")
    assert len(twice) == 16
    assert twice[:8] == once
    assert [one["lr"] for one in twice[8:]] == [one["lr"] for one in once]
    visits = [sum(pq.read_table(tmp_path / name / "trust.parquet")["visits"].to_pylist()) for name in ("once", "twice")]
    assert visits == [64, 64 + 56]  # of batches of 8, but for the first of the second round
    model = load(tmp_path / "twice", catalog=catalog([Numbers(16)])).state_dict()
    assert any(not one.equal(model[name]) for name, one in load_tensors(tmp_path / "once/model.safetensors").items())


def test_a_second_round_where_every_weight_is_one_repeats_the_first(tmp_path: Path) -> None:
    """Without shuffling (one batch holds all) the second round is the first once more."""
    options = {"objective": objectives.acl, "steps": 5, "batch": 16}
    fit_toys(tmp_path / "run", Numbers(16), trust={"full": 0.0, "rounds": 2}, **options)
    losses = [one["loss"] for one in learnt(tmp_path / "run")]
    assert losses[5:] == pytest.approx(losses[:5], rel=0.01)  # augmented otherwise
    assert losses[4] < 0.8 * losses[0]


def test_rounds_that_would_learn_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trust.rounds is 2, but the objective does not weigh.*trust.weigh=true"):
        fit_toys(tmp_path / "run", Numbers(16), trust={"rounds": 2})
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_killed_twice_ends_in_the_same_bits(trained_run: Path, tmp_path: Path) -> None:
    config, run = write_tiny(tmp_path), tmp_path / "run"
    for arguments in ([], ["train.workers=2", "--resume"]):
        command = [sys.executable, "-m", "multimodal_ssl", "fit", str(config), *arguments]
        process = subprocess.Popen(command, start_new_session=True)
        told, ends = len(steps(run)), time.monotonic() + 60
        while len(steps(run)) < told + 4:
            assert process.poll() is None
            assert time.monotonic() < ends, "it takes too long"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        assert not (run / "model.safetensors").exists(), "it was killed too late to show anything"
    fit(open_config(run / "config.yaml"), resume=True)
    assert (run / "model.safetensors").read_bytes() == (trained_run / "model.safetensors").read_bytes()
    assert [one["loss"] for one in learnt(run)] == [one["loss"] for one in learnt(trained_run)]
    assert steps(run) == list(range(1, 25))


def steps(run: Path) -> list[int]:
    """Return the steps of the whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_every_checkpoint_is_whole_and_only_the_newest_is_kept(tmp_path: Path) -> None:
    with interrupted(step=9):
        fit_toys(tmp_path / "run", Numbers(40), steps=12, checkpoint_every=4)
    (only,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert only.name == "step-000000008.safetensors"
    tensors = load_tensors(only)
    weights = [name for name in tensors if name.startswith("model.")]
    for moment in ("exp_avg", "exp_avg_sq", "step"):
        kept = [name for name in tensors if name.startswith(f"optimizer.{moment}.")]
        assert [name.removeprefix(f"optimizer.{moment}.") for name in kept] == [name[6:] for name in weights]


def test_a_checkpoint_is_the_weights_and_the_run_that_it_ends_in(tmp_path: Path) -> None:
    binder = fit_toys(tmp_path / "run", Numbers(40), steps=5, checkpoint_every=2)
    (only,) = (tmp_path / "run" / "checkpoints").iterdir()
    tensors = load_tensors(only)
    for name, weight in binder.state_dict().items():
        assert torch.equal(tensors[f"model.binder.{name}"], weight)


def test_a_gradient_that_is_not_finite_stops_training_before_it_touches_anything(tmp_path: Path) -> None:
    made: list[Spiteful] = []

    class Spiteful(Waves):
        """Has a finite loss and a gradient of NaN from the sixth step on."""

        def __init__(self) -> None:
            super().__init__()
            self.origin, self.steps = nn.Parameter(torch.zeros(())), 0
            made.append(self)

        def forward(self, inputs: Tensor) -> Tensor:
            self.steps += 1
            features = super().forward(inputs)
            return features if self.steps < 6 else features + self.origin.square().sqrt()

    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"at step 5 the loss is \d.* and the norm of its gradient nan: .*lower train"):
        fit_toys(run, Numbers(40), encoder=Spiteful, steps=9, checkpoint_every=1)
    (only,) = (run / "checkpoints").iterdir()
    assert only.name == "step-000000005.safetensors"
    tensors = load_tensors(only)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    for encoder, name in zip(made, "ab", strict=True):
        for key, weight in encoder.state_dict().items():
            assert torch.equal(tensors[f"model.binder.encoders.{name}.{key}"], weight)
    assert not (run / "model.safetensors").exists()
    assert [math.isfinite(one["loss"]) for one in read_lines(run / "metrics.jsonl")] == [True] * 5


def test_a_layer_under_two_names_is_trained_saved_resumed_and_loaded_as_one(tmp_path: Path) -> None:
    source = Numbers(40)
    train = {"steps": 8, "checkpoint_every": 3}
    whole = fit_toys(tmp_path / "whole", source, encoder=Tied, **train)
    with interrupted(step=5):
        fit_toys(tmp_path / "run", source, encoder=Tied, **train)
    binder = fit_toys(tmp_path / "run", source, encoder=Tied, resume=True, **train)
    assert binder.fingerprint() == whole.fingerprint()
    loaded: Binder = load(tmp_path / "run", catalog=catalog([source], encoder=Tied))
    encoder = loaded.encoder("a")
    assert encoder.again.weight is encoder.layer.weight
    assert (loaded.encode("a", range(9)) == binder.encode("a", range(9))).all()


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"x": torch.zeros(3)})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for moment in ("replace", "rename"):
        monkeypatch.setattr(Path, moment, killed)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"x": torch.ones(3)})
    monkeypatch.undo()
    assert torch.equal(load_tensors(path)["x"], torch.zeros(3))
    assert list(tmp_path.iterdir()) == [path]
    save_tensors(path, {"x": torch.ones(3)})
    assert torch.equal(load_tensors(path)["x"], torch.ones(3))


def test_a_kill_between_two_checkpoints_leaves_one_that_training_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target.name == "step-000000006.safetensors":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_toys(run, Numbers(40), steps=8, checkpoint_every=3)
    monkeypatch.undo()
    assert [one.name for one in (run / "checkpoints").iterdir()] == ["step-000000003.safetensors"]
    resumed = fit_toys(run, Numbers(40), steps=8, checkpoint_every=3, resume=True)
    assert resumed.fingerprint() == fit_toys(tmp_path / "whole", Numbers(40), steps=8).fingerprint()


def test_tensors_come_back_as_they_were_whatever_memory_they_share(tmp_path: Path) -> None:
    one = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "one": one, "same": one, "turned": one.T, "none": torch.empty(0, 3), "empty": torch.empty(0),
        "half": one.to(torch.bfloat16), "scalar": torch.tensor(7), "flag": torch.tensor([True]),
    }  # fmt: skip
    save_tensors(tmp_path / "x.safetensors", tensors)
    found = load_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_a_file_that_is_damaged_or_missing_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't read .*x\.safetensors .*: copy it again"):
        load_tensors(path)
