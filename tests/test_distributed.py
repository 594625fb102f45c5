from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_ssl import objectives
from multimodal_ssl.checkpoint import load_tensors
from multimodal_ssl.config import TrustConfig
from multimodal_ssl.distributed import add_counts, gather
from multimodal_ssl.trust import Trust

from .toys import fit_toys, learnt, messy, read_rows, write_tiny

TRAIN = {"steps": 12, "batch": 7, "max_unreadable": 1.0, "trust": {"warmup": 1, "rounds": 2}}
TOGETHER = """
import json, os, sys
from pathlib import Path
import torch
from multimodal_ssl import objectives
from multimodal_ssl.cli import main
from toys import Waves, fit_toys, messy

noise = []

class Noisy(Waves):
    def forward(self, inputs):
        noise.append(torch.rand(()).item())
        return super().forward(inputs)

folder, train = Path(sys.argv[1]), json.loads(sys.argv[2])
fit_toys(folder / "toys", *messy(), encoder=Noisy, objective=objectives.acl, **train)
(folder / f"noise-{os.environ['RANK']}.json").write_text(json.dumps(noise))
sys.argv = ["mmssl", "fit", str(folder / "tiny.yaml")]
main()
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which two processes trained on toys, and by the command line on glyphs."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "together.py").write_text(TOGETHER)
    write_tiny(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [*torchrun, str(folder / "together.py"), str(folder), json.dumps(TRAIN)],
        env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one process on the same toys."""
    run = tmp_path_factory.mktemp("alone") / "toys"
    fit_toys(run, *messy(), objective=objectives.acl, **TRAIN)  # acl weighs by trust
    return run


def test_two_processes_and_one_agree_at_each_step_though_their_parts_differ_in_size(
    alone: Path, together: Path
) -> None:
    one, two = learnt(alone), learnt(together / "toys")
    assert [step["step"] for step in two] == list(range(1, 25))
    for name in ("loss", "agreement", "spread", "gradient_norm"):
        np.testing.assert_allclose([step[name] for step in two], [step[name] for step in one], rtol=1e-3)
    for name in ("lr", "a/seen", "b/seen"):
        assert [step[name] for step in two] == [step[name] for step in one]
    weights = load_tensors(alone / "model.safetensors")
    for name, tensor in load_tensors(together / "toys" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)
    trusts = [Trust.load(run / "trust.parquet", TrustConfig()).tensors() for run in (alone, together / "toys")]
    torch.testing.assert_close(trusts[1], trusts[0], rtol=1e-3, atol=1e-4)


def test_two_processes_record_each_unreadable_sample_once(alone: Path, together: Path) -> None:
    one, two = (Counter(line["key"] for line in read_rows(run)) for run in (alone, together / "toys"))
    # In so few steps 0/3, which has fewer items, is not visited.
    assert one == two == Counter(["0/4", "0/5", "0/20", "0/21", "1/line 6", "1/line 7"])


def test_dropout_differs_between_processes_steps_and_calls(together: Path) -> None:
    noise = [json.loads((together / f"noise-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(noise[0]) == len(noise[1]) > 47
    everything = list(itertools.chain(*noise))
    assert len(set(everything)) == len(everything)


def test_two_processes_train_real_encoders_by_the_command_line_as_one_does(trained_run: Path, together: Path) -> None:
    one, two = ([step["loss"] for step in learnt(run)] for run in (trained_run, together / "run"))
    np.testing.assert_allclose(two, one, rtol=2e-4)
    weights = load_tensors(trained_run / "model.safetensors")
    for name, tensor in load_tensors(together / "run" / "model.safetensors").items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, weights[name], rtol=1e-2, atol=2e-3)
    assert (together / "run" / "report.json").exists()


def test_one_process_gathers_what_it_has() -> None:
    views, weight, group = {"a": torch.rand(3, 4)}, torch.rand(3), torch.arange(3)
    gathered = gather(views, weight, group)
    assert torch.equal(gathered[0]["a"], views["a"])
    assert torch.equal(gathered[1], weight)
    assert torch.equal(gathered[2], group)
    assert add_counts({"a/seen": 2, "b/seen": 0})["a/seen"] == 2
