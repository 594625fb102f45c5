"""A run that is killed in the middle of an epoch ends in the same bits, for each source and any number of workers."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from multimodal_ssl import Catalog, Encoder, hookimpl
from multimodal_ssl.config import parse_config
from multimodal_ssl.data import raw_digest
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import fit
from multimodal_ssl.plugins import ENTRY_POINT_GROUP
from multimodal_ssl.testing import check_pairing_source, check_resume

from .toys import learnt, read_rows

COUNT = 40
BROKEN = {3, 17}  # pictures that can't be read

FORKSERVER = multiprocessing.get_context("forkserver")  # a fork of this process, in which torch has threads, may hang
FORKSERVER.set_forkserver_preload(["tests.test_kill", "torch._dynamo", "torch.utils.tensorboard", "accelerate"])


class Hashed(Encoder):
    """Takes any item for the hash of it, shaken by augmentation: whatever differs in a run, it tells."""

    width = 8

    def __init__(self, *, modality: str) -> None:
        super().__init__()
        self.modality, self.layer = modality, nn.Linear(8, 8)

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Tensor:
        told = raw_digest(np.asarray(item) if isinstance(item, Image.Image) else item)
        numbers = np.frombuffer(told.to_bytes(8, "little", signed=True), np.uint8) / 128 - 1
        return torch.from_numpy(numbers + (0 if rng is None else 0.1 * rng.normal(size=8))).float()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.layer(inputs))


class Plugin:
    @hookimpl
    def register_encoders(self, register: Register) -> None:
        register("hashed", Hashed)


def picture(number: int) -> bytes:
    """Return a PNG, or what is none."""
    if number in BROKEN:
        return b"no picture"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 5, 255 - number, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def table(folder: Path) -> dict[str, Any]:
    rows = [f"{number}.png,thing {number % 13},g{number % 13}" for number in range(COUNT)]
    (folder / "t.csv").write_text("\n".join(["file,name,group", *rows]))
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(picture(number))
    return {
        "name": "table",
        "path": str(folder / "t.csv"),
        "columns": {"image": "file", "text": "name"},
        "group": "group",
    }


def files(folder: Path) -> dict[str, Any]:
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(picture(number))
        (folder / f"{number}.txt").write_text(f"thing {number}")
    return {"name": "folder", "path": str(folder), "items": {"image": ".png", "text": ".txt"}}


def tars(folder: Path) -> dict[str, Any]:
    for shard in range(5):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, COUNT, 5):
                bodies = {"png": picture(number), "json": json.dumps({"caption": f"thing {number}"}).encode()}
                for extension, body in bodies.items():
                    member = tarfile.TarInfo(f"{number}.{extension}")
                    member.size = len(body)
                    tar.addfile(member, io.BytesIO(body))
    items = {"items": {"image": "png"}, "fields": {"text": "caption"}}
    return {"name": "webdataset", "path": str(folder / "{0..4}.tar"), **items}


def tar_stream(folder: Path) -> dict[str, Any]:
    return {**tars(folder), "stream": True}


def glyphs(folder: Path) -> dict[str, Any]:
    return {"name": "glyphs", "limit": COUNT, "use": ["image", "text"]}


SOURCES: list[Callable[[Path], dict[str, Any]]] = [table, files, tars, tar_stream, glyphs]


def train(run: str, source: dict[str, Any], names: dict[str, str], workers: int, kill_at: int | None) -> None:
    """Train on a source, in a process of its own that may be killed after so many steps."""
    torch.set_num_threads(1)
    catalog = with_hashed()
    config = parse_config(
        {
            "run": run,
            "sources": [source],
            "encoders": {name: {"name": "hashed", "modality": modality} for name, modality in names.items()},
            "binder": {"dim": 4},
            "train": {
                "steps": 14, "batch": 8, "lr": 1e-2, "workers": workers, "threads": 1, "precision": "fp32",
                "log_every": 1, "checkpoint_every": 4, "max_unreadable": 0.5,
            },
        }
    )  # fmt: skip
    done = 0

    def stop(*_: object) -> None:
        nonlocal done
        done += 1
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(stop)
    fit(config, resume=True, catalog=catalog)


def with_hashed() -> Catalog:
    """Return the catalog of all that is installed, and the encoder of this file."""
    installed = {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}
    return Catalog.of(hashed=Plugin(), **installed)


def in_a_process(*args: Any) -> int | None:
    process = FORKSERVER.Process(target=train, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("make", SOURCES)
def test_a_killed_run_ends_in_the_same_bits(make: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    given = make(data)
    opened = Catalog.discover().create(
        "pairing_sources",
        given["name"],
        options={key: value for key, value in given.items() if key not in ("name", "use")},
    )
    check_pairing_source(opened)
    check_resume(opened)
    names = {name: opened.modalities[name] for name in given.get("use", opened.modalities)}
    assert in_a_process(str(tmp_path / "whole"), given, names, 0, None) == 0
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    for workers, others in ((0, 1), (1, 3), (3, 0)):
        run = tmp_path / f"killed-{workers}"
        assert in_a_process(str(run), given, names, workers, 7) == -signal.SIGKILL
        assert in_a_process(str(run), given, names, others, None) == 0
        assert learnt(run) == learnt(tmp_path / "whole")
        assert (run / "model.safetensors").read_bytes() == whole
        assert sorted(map(str, read_rows(run))) == sorted(map(str, read_rows(tmp_path / "whole")))
