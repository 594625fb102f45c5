from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from multimodal_ssl import InputError, load, load_config
from multimodal_ssl.binder import Binder
from multimodal_ssl.checkpoint import load_tensors
from multimodal_ssl.config import TrainConfig, parse_config
from multimodal_ssl.health import diagnose
from multimodal_ssl.pipeline import bench, fit
from multimodal_ssl.training import learning_rate

TINY = {
    "sources": [
        {"name": "glyphs", "use": ["image", "text"], "limit": 600},
        {"name": "glyphs", "use": ["image", "outline"], "limit": 600},
    ],
    "evaluation": [{"name": "glyphs", "split": "test", "fonts_per_character": 1, "limit": 60}],
    "encoders": {
        "image": {"name": "small-conv", "size": 24, "channels": 1, "width": 16, "depth": 1},
        "text": {"name": "small-text", "width": 32, "depth": 1, "heads": 1, "vocabulary": 300, "length": 16},
        "outline": {"name": "series-conv", "channels": 3, "width": 16, "depth": 1, "length": 64},
    },
    "binder": {"dim": 32},
    "train": {"steps": 24, "batch": 16, "log_every": 1, "checkpoint_every": 3, "threads": 1, "precision": "fp32"},
}


def write_config(folder: Path, **train: object) -> Path:
    path = folder / "tiny.yaml"
    values = {**TINY, "run": str(folder / "run"), "train": {**TINY["train"], **train}}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(values))
    return path


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "multimodal_ssl", "fit", str(config), *arguments]


def metrics(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class Finished(NamedTuple):
    run: Path
    binder: Binder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was never stopped, with the Binder that training returned."""
    folder = tmp_path_factory.mktemp("finished")
    return Finished(folder / "run", fit(load_config(write_config(folder, workers=0))))


@pytest.fixture(scope="module")
def finished(trained: Finished) -> Path:
    return trained.run


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (8, 2)])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(
    finished: Path, tmp_path: Path, step: int, workers: int
) -> None:
    config = write_config(tmp_path, workers=workers)
    run = tmp_path / "run"
    process = subprocess.Popen(command(config), start_new_session=True)
    while len(metrics(run)) < step:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists(), "it was killed too late to show anything"
    subprocess.run(command(config, "--resume"), check=True)
    assert (run / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert [one["loss"] for one in metrics(run)] == [one["loss"] for one in metrics(finished)]
    assert [one["step"] for one in metrics(run)] == list(range(1, 25))


def test_one_process_and_two_agree(finished: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = write_config(tmp_path, workers=0)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    subprocess.run([*torchrun, *command(config)[1:]], check=True)
    alone, together = ([one["loss"] for one in metrics(run)] for run in (finished, tmp_path / "run"))
    np.testing.assert_allclose(together, alone, rtol=2e-4)
    one, two = (load_tensors(run / "model.safetensors") for run in (finished, tmp_path / "run"))
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=2e-3)


def test_a_loaded_run_gives_the_embeddings_of_the_binder_that_was_trained(trained: Finished) -> None:
    binder = load(trained.run)
    assert not binder.training
    words = ["latin small letter a", "snowman"]
    vectors = binder.encode("text", words)
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors, trained.binder.encode("text", words))
    assert binder.fingerprint() == trained.binder.fingerprint()
    directions = {(one.query, one.gallery): one for one in bench(trained.run)}
    assert len(directions) == 6
    assert directions["image", "text"].trained
    assert not directions["text", "outline"].trained


def test_a_run_folder_is_never_overwritten(finished: Path, tmp_path: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    config = load_config(finished / "config.yaml")
    with pytest.raises(InputError, match="holds a run already: --resume"):
        fit(config)
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match=r"begun with another config \(seed\)"):
        fit(other, resume=True)
    assert (finished / "model.safetensors").read_bytes() == before
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no run"):
        fit(config.model_copy(update={"run": tmp_path}))
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_a_run_of_another_version_or_with_other_weights_is_refused(finished: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "binder.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    recipe = json.loads((tmp_path / "binder.json").read_text())
    (tmp_path / "binder.json").write_text(json.dumps({**recipe, "format": 99, "version": "9.9"}))
    with pytest.raises(InputError, match=r"written by version 9\.9 in format 99"):
        load(tmp_path)
    (tmp_path / "binder.json").write_text(json.dumps({**recipe, "fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="not the file that was trained"):
        load(tmp_path)
    (tmp_path / "binder.json").write_text(json.dumps(recipe))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"can't read .*model\.safetensors"):
        load(tmp_path)
    with pytest.raises(InputError, match="holds no trained run"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sources.0.name=glifs"], "did you mean 'glyphs'"),
        (["sources.0.use=[image, txt]"], "has no 'txt': did you mean 'text'"),
        (["encoders.outline={name: small-conv}"], "takes 'image', but 'outline' is 'series'"),
        (["encoders.sound={name: small-text}"], "no source gives 'sound'"),
        (["sources.0.use=[image]"], "two modalities at least"),
        (["train.batch=700"], "batch of 700 is larger than the data"),
        (["objective.name=info-nc"], "did you mean 'info-nce'"),
        (["evaluation.0.splt=test"], "did you mean 'split'"),
    ],
)
def test_a_mistake_in_a_config_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit(load_config(write_config(tmp_path, workers=0), overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    encoders = {name: one for name, one in config.encoders.items() if name != "text"}
    with pytest.raises(InputError, match=r"no encoder for 'text': add encoders\.text"):
        fit(config.model_copy(update={"encoders": encoders}))


def test_a_loss_that_is_not_finite_stops_training_with_advice(tmp_path: Path) -> None:
    config = write_config(tmp_path, workers=0, lr=1e18, warmup=0.0, clip=1e18)
    with pytest.raises(InputError, match=r"at step \d+ the loss is .* with run=OTHER and a lower train\.lr"):
        fit(load_config(config))


def test_what_goes_wrong_is_told_with_advice() -> None:
    assert "collapsed" in str(diagnose(1.0, 0.001, None))
    assert "nothing is learnt" in str(diagnose(math.log(256) + 0.01, 0.9, math.log(256)))
    assert diagnose(2.0, 0.9, math.log(256)) is None
    assert diagnose(2.0, 0.9, None) is None


def test_the_learning_rate_rises_and_then_falls_to_zero() -> None:
    config = TrainConfig(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_rows_that_cannot_be_read_are_recorded_and_the_rest_is_trained_on(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    rows = [f"{i},{'missing' if i % 10 == 0 else i % 5}.png,number {i}" for i in range(80)]
    table.write_text("\n".join(["id,file,name", *rows]))
    for i in range(5):
        Image.new("L", (24, 24), 50 * i).save(tmp_path / f"{i}.png")
    source = {"name": "table", "path": str(table), "columns": {"image": "file", "text": "name"}, "key": "id"}
    values = {**TINY, "run": str(tmp_path / "run"), "sources": [source], "evaluation": []}
    values["encoders"] = {name: TINY["encoders"][name] for name in ("image", "text")}  # type: ignore[index]
    values["train"] = {"steps": 10, "batch": 16, "workers": 0, "threads": 1, "max_unreadable": 0.2}
    fit(parse_config(values))
    recorded = [json.loads(line) for line in (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()]
    assert sorted(int(one["key"]) for one in recorded) == list(range(0, 80, 10))
    assert all("FileNotFoundError" in one["reason"] for one in recorded)
    all_missing = table.read_text().replace("1.png", "no.png").replace("2.png", "no.png").replace("3.png", "no.png")
    table.write_text(all_missing)
    values = {**values, "run": str(tmp_path / "other"), "train": {**values["train"], "steps": 100}}  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"samples can't be read, train\.max_unreadable is 0\.2"):
        fit(parse_config(values))
