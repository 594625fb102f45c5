"""A run that is killed in the middle of an epoch ends in the same bits, for each source and any number of workers.

MMSSL_KILLS=1 kills a run of every source; without it two are killed, and of the others it is checked what they feed.
"""

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

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from multimodal_ssl import Catalog, Encoder, PairingSource, hookimpl
from multimodal_ssl.config import parse_config
from multimodal_ssl.digests import raw_digest
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import fit
from multimodal_ssl.plugins import ENTRY_POINT_GROUP
from multimodal_ssl.testing import check_pairing_source, check_resume

from .toys import learnt, read_rows

COUNT = 40
BROKEN = {3, 17}  # pictures that can't be read

FORKSERVER = multiprocessing.get_context("forkserver")  # a fork of this process, in which torch has threads, may hang
FORKSERVER.set_forkserver_preload(
    ["tests.test_kill", "torch._dynamo", "torch.utils.tensorboard", "accelerate", "pandas"]
)


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


def sensors(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = [",".join(map(str, [second, *rng.normal(size=3).round(3)])) for second in range(COUNT * 4)]
    (folder / "s.csv").write_text("\n".join(["time,a,b,c", *rows]))
    streams = {"left": ["a", "b"], "right": ["c"]}
    return {
        "name": "streams",
        "path": str(folder / "s.csv"),
        "time": "time",
        "step": 1,
        "window": 4,
        "streams": streams,
    }


def page(folder: Path) -> dict[str, Any]:
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(picture(number))
    body = "".join(f"<p><img src={number}.png alt='thing {number}'></p>" for number in range(COUNT))
    (folder / "page.html").write_text(f"<html><body>{body}</body></html>")
    return {"name": "html", "path": str(folder / "page.html"), "voice": "alt"}


def film(folder: Path) -> dict[str, Any]:
    film = folder / "film.mp4"
    with av.open(film, "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width = stream.height = 32
        for number in range(COUNT * 5):
            pixels = np.full((32, 32, 3), number % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    with tarfile.open(folder / "films.tar", "w") as tar:
        tar.add(film, film.name)
    source = {"name": "webdataset", "path": str(folder / "films.tar"), "items": {"video": "mp4"}}
    return {
        "name": "video",
        "source": source,
        "length": 0.5,
        "clip": "clip",
        "frames": 2,
        "frame": "middle",
        "group": "none",
    }


def mixed(folder: Path) -> dict[str, Any]:
    parts = [{**table(folder), "limit": COUNT // 2}, {"name": "filter", "source": table(folder), "has": ["image"]}]
    return {"name": "mix", "sources": parts, "weights": [2, 1]}


def part(folder: Path) -> dict[str, Any]:
    source = {"name": "dedup", "source": table(folder), "by": ["image"], "then": "group"}
    return {"name": "split", "source": source, "part": "train", "shares": {"train": 0.8, "test": 0.2}}


def labels(folder: Path) -> dict[str, Any]:
    columns = {
        "image": {"columns": {"image": "file"}},
        "other": {"columns": {"other": {"column": "file", "modality": "image"}}},
    }
    path = table(folder)["path"]
    made = {name: {"name": "table", "path": path, "group": "group", **one} for name, one in columns.items()}
    return {"name": "co-label", "sources": made, "label": "group"}


def joined(folder: Path) -> dict[str, Any]:
    path = table(folder)["path"]
    pictures = {"name": "table", "path": path, "columns": {"image": "file"}, "key": "file", "group": "group"}
    names = {"name": "table", "path": path, "columns": {"text": "name"}, "key": "file", "group": "group"}
    return {"name": "join", "left": pictures, "right": names, "by": "key"}


def parquet_dataset(folder: Path) -> dict[str, Any]:
    for shard in range(3):
        numbers = range(shard, COUNT, 3)
        columns = {"image": map(picture, numbers), "caption": [f"thing {one % 13}" for one in numbers]}
        pyarrow.parquet.write_table(
            pa.table({name: list(one) for name, one in columns.items()}), folder / f"{shard}.parquet"
        )
    return {"name": "hf-dataset", "dataset": str(folder), "columns": {"image": "image", "text": "caption"}}


def parquet_stream(folder: Path) -> dict[str, Any]:
    return {**parquet_dataset(folder), "streaming": True}


def some(folder: Path) -> dict[str, Any]:
    return {"name": "limit", "source": {**tars(folder), "stream": True}, "count": COUNT - 5}


MAKERS: list[Callable[[Path], dict[str, Any]]] = [
    table, files, tars, tar_stream, glyphs, sensors, page, film, mixed, part, labels, joined, parquet_dataset,
    parquet_stream, some,
]  # fmt: skip
KILLED = MAKERS if os.environ.get("MMSSL_KILLS") else [table, tar_stream]  # all of them take some minutes


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
                "steps": 16, "batch": 8, "lr": 1e-2, "workers": workers, "threads": 1, "precision": "fp32",
                "log_every": 1, "checkpoint_every": 4, "max_unreadable": 0.5,
            },
        }
    )  # fmt: skip
    done = 0

    def stop(*_: object) -> None:
        nonlocal done
        done += 1
        if done == kill_at:
            workers = [one.pid for one in multiprocessing.active_children()]
            Path(run, "workers.json").write_text(json.dumps(workers))
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


def opened(given: dict[str, Any]) -> PairingSource:
    options = {key: value for key, value in given.items() if key not in ("name", "use")}
    return Catalog.discover().create("pairing_sources", given["name"], options=options)


@pytest.mark.parametrize("make", MAKERS)
def test_every_source_feeds_training_the_same_after_a_break(
    make: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    source = opened(make(tmp_path))
    check_pairing_source(source)
    check_resume(source)


@pytest.mark.parametrize("make", KILLED)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits(
    make: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    data, run, whole = (tmp_path / name for name in ("data", "run", "whole"))
    data.mkdir()
    given = make(data)
    source = opened(given)
    names = {name: source.modalities[name] for name in given.get("use", source.modalities)}
    assert in_a_process(str(whole), given, names, 0, None) == 0
    for workers in (0, 1, 3):  # killed in steps 6, 10 and 14, between two checkpoints each time
        assert in_a_process(str(run), given, names, workers, 6) == -signal.SIGKILL
        left = json.loads((run / "workers.json").read_text())
        assert len(left) == workers
        _, alive = psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], timeout=20)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], "they hold memory for ever"
    assert in_a_process(str(run), given, names, 0, None) == 0
    assert learnt(run) == learnt(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert sorted(map(str, read_rows(run))) == sorted(map(str, read_rows(whole)))
