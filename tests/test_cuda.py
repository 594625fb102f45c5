"""What only a GPU can show; other tests don't see it, since their sums are compared with those of a CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .toys import write_tiny

pytestmark = pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="there is no GPU")

WHOLE = "sources=[{name: glyphs, limit: 600}]"


def run(*command: object) -> str:
    """Run a command that sees the GPU and return what it says."""
    seeing = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(list(map(str, command)), env=seeing, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fit(folder: Path, *options: str) -> Path:
    """Train the tiny config there and return its run."""
    folder.mkdir()
    run(sys.executable, "-m", "multimodal_ssl", "fit", write_tiny(folder), *options)
    return folder / "run"


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_on_the_gpu_learns_as_on_the_cpu_and_ends_in_the_same_bits_again(
    trained_run: Path, tmp_path: Path
) -> None:
    first, again = (fit(tmp_path / name, "train.precision=fp32") for name in ("first", "again"))
    assert losses(first)[0] == pytest.approx(losses(trained_run)[0], rel=1e-4)
    assert losses(first)[-1] == pytest.approx(losses(trained_run)[-1], rel=0.05)
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("encoders.text.lora.rank=2",),
        ("encoders.text.frozen=true", "encoders.text.cache=1", "cache=CACHE"),
        ("objective=symile", WHOLE),
        ("objective={name: matryoshka, of: {name: gram, anchor: image}, widths: [8]}", WHOLE),
    ],
)
def test_runs_of_every_sort_are_trained_measured_and_searched(tmp_path: Path, options: tuple[str, ...]) -> None:
    trained = fit(tmp_path / "one", *(one.replace("CACHE", str(tmp_path / "cache")) for one in options))
    assert all(loss == loss for loss in losses(trained))
    assert "chance" in run(sys.executable, "-m", "multimodal_ssl", "bench", trained)
    run(sys.executable, "-m", "multimodal_ssl", "index", trained)
    assert "1" in run(sys.executable, "-m", "multimodal_ssl", "search", trained, "a heart")
