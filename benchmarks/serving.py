"""Measure the server: latencies under load with and without micro-batching, and while items are added.

python benchmarks/serving.py load adding

What results/retrieval/serving.json has is measured anew. The model has the shape of the quickstart's and random
weights, and the vectors are those of retrieval.py: what is found makes no sense, but takes as long. Server and clients
are processes of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from retrieval import vectors

from multimodal_ssl import Catalog, Index, Preview
from multimodal_ssl.binder import Binder
from multimodal_ssl.embed import Embedded
from multimodal_ssl.report import device_name

HERE = Path(__file__).parent
OUT = HERE / "results" / "retrieval" / "serving.json"
KINDS = {"image": "image", "text": "text", "outline": "series"}
DIM, TOKEN, TURNS, PACKET = 128, "benchmark", 3, 250


def glyphs() -> Any:
    """Return characters that the quickstart is evaluated on."""
    return Catalog.discover().create(
        "pairing_sources", "glyphs", options={"split": "test", "fonts_per_character": 1}
    )  # fmt: skip


def make_binder() -> Binder:
    """Return a Binder of the quickstart's shape."""
    torch.manual_seed(0)
    catalog = Catalog.discover()
    config = yaml.safe_load((files("mmssl_glyphs") / "quickstart.yaml").read_text())
    encoders = {
        name: catalog.create("encoders", one.pop("name"), options=one) for name, one in config["encoders"].items()
    }
    binder = Binder(encoders, {name: catalog.modality(kind) for name, kind in KINDS.items()}, dim=DIM)
    binder.encoder("text").adapt(sample.items["text"] for sample in glyphs())
    return binder.eval()


def make_index(folder: Path, binder: Binder, count: int) -> None:
    """Index so many pictures."""
    source, image = glyphs(), binder.modalities["image"]
    samples = [source[i] for i in range(len(source))]
    seen = [image.preview(image.load(sample.items["image"])).png for sample in samples]
    drawn = vectors(count, seed=1, dim=DIM)
    with Index.create(folder, binder.fingerprint(), binder.dim) as index:
        for start in range(0, count, 20_000):
            size = min(20_000, count - start)
            keys = [str(start + i) for i in range(size)]
            places = [(start + i) % len(samples) for i in range(size)]
            previews = [Preview(png=seen[place], caption=samples[place].items["text"]) for place in places]
            metadata = [samples[place].metadata for place in places]
            index.add("image", Embedded(drawn[start : start + size], keys, keys, previews, metadata=metadata))
        index.optimise("image", kind="hnsw" if count > 20_000 else None)


def serve(folder: Path, batch: int) -> None:
    """Serve an index, and print the port."""
    import uvicorn

    from mmssl_server.app import create_app
    from mmssl_server.command import listen
    from mmssl_server.library import Library
    from mmssl_server.limits import Limits

    library = Library(make_binder(), folder, name="benchmark", patience=2.0)
    app = create_app(library, limits=Limits(batch=batch), token=TOKEN, threads=1)
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


@contextmanager
def server(folder: Path, batch: int) -> Iterator[int]:
    """Serve in a process of its own while this block lasts, and give the port."""
    process = subprocess.Popen(
        [sys.executable, __file__, "load", "--serve", folder, "--batch", str(batch)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def texts() -> list[tuple[bytes, str]]:
    """Return bodies of searches by words, and their media types."""
    source = glyphs()
    terms = [{"terms": [{"by": "text", "text": source[i].items["text"]}], "among": ["image"]} for i in range(500)]
    return [(json.dumps(one).encode(), "application/json") for one in terms]


def pictures() -> list[tuple[bytes, str]]:
    """Return bodies of searches by a picture."""
    source, found = glyphs(), []
    image = Catalog.discover().modality("image")
    for i in range(500):
        stream = io.BytesIO()
        image.load(source[i].items["image"]).save(stream, "PNG")
        question = json.dumps({"terms": [{"by": "image", "upload": "f"}], "among": ["image"]})
        found.append(form({"request": question}, {"f": stream.getvalue()}))
    return found


def form(texts: dict[str, str], uploads: dict[str, bytes]) -> tuple[bytes, str]:
    """Return a multipart form."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
             for name, text in texts.items()]  # fmt: skip
    for name, data in uploads.items():
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


def load_of(port: int, clients: int, bodies: list[tuple[bytes, str]], is_done: Callable[[], bool]) -> dict[str, Any]:
    """Let clients search, each as soon as it has its answer, and return what they waited."""
    waited: list[float] = []
    errors = 0

    async def client(number: int) -> None:
        nonlocal errors
        rng = np.random.default_rng(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not is_done():
            body, kind = bodies[int(rng.integers(len(bodies)))]
            began = time.perf_counter()
            head = f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
            writer.write(head.encode() + b"\r\n\r\n" + body)
            reply = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(reply.lower().partition(b"content-length:")[2].split()[0]))
            waited.append(time.perf_counter() - began)
            errors += not reply.startswith(b"HTTP/1.1 200")
        writer.close()

    async def together() -> None:
        await asyncio.gather(*map(client, range(clients)))

    began = time.perf_counter()
    asyncio.run(together())
    seconds = time.perf_counter() - began
    p50, p99 = np.quantile(waited, [0.5, 0.99]) * 1000
    return {
        "p50_ms": float(p50), "p99_ms": float(p99), "requests": len(waited), "errors": errors,
        "requests_per_second": len(waited) / seconds,
    }  # fmt: skip


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Return what tells whether so many seconds are over."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def load(folder: Path, seconds: float) -> Iterable[dict[str, Any]]:
    """Search by 1, 8 and 64 clients, in batches of up to 32 and one by one, in turns."""
    with server(folder, 32) as together, server(folder, 1) as alone:
        for kind, bodies in (("text", texts()), ("image", pictures())):
            for port in (together, alone):
                load_of(port, 4, bodies, for_seconds(1))
            for clients in (1, 8, 64):
                rows: dict[int, list[dict[str, Any]]] = {32: [], 1: []}
                for _ in range(TURNS):
                    for batch, port in ((32, together), (1, alone)):
                        rows[batch].append(load_of(port, clients, bodies, for_seconds(seconds)))
                for batch, turns in rows.items():
                    yield {"by": kind, "clients": clients, "batch": batch, **summary(turns)}


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and all of them; errors are added up."""
    found: dict[str, Any] = {
        name: round(median(turn[name] for turn in turns), 2) for name in ("p50_ms", "p99_ms", "requests_per_second")
    }
    return {**found, "errors": sum(turn["errors"] for turn in turns), "turns": turns}


def adding(folder: Path, seconds: float) -> Iterable[dict[str, Any]]:
    """Add 10,000 texts in packets while 8 clients search, and let them search as long without."""
    with server(folder, 32) as port:
        bodies = texts()
        load_of(port, 4, bodies, for_seconds(1))
        yield {"adding": False, **load_of(port, 8, bodies, for_seconds(seconds))}
        told: list[float] = []
        added = threading.Thread(target=add, args=(port, 10_000, told))
        added.start()
        row = load_of(port, 8, bodies, lambda: not added.is_alive())
        yield {"adding": True, **row, "items": 10_000, "packet": PACKET, "seconds_to_add": sum(told),
               "p50_ms_to_add": median(told) * 1000}  # fmt: skip


def add(port: int, count: int, told: list[float]) -> None:
    """Add so many texts, and note the seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for start in range(0, count, PACKET):
        items = [{"key": f"new {i}", "modality": "text", "text": f"word {i}"} for i in range(start, start + PACKET)]
        body, kind = form({"items": json.dumps(items)}, {})
        began = time.perf_counter()
        connection.request("POST", "/items", body, {"Content-Type": kind, "Authorization": f"Bearer {TOKEN}"})
        reply = connection.getresponse()
        answer = reply.read()
        assert reply.status == 200, answer
        told.append(time.perf_counter() - began)


PARTS = {"load": load, "adding": adding}


def main() -> None:
    """Measure the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=32, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.batch)
        return
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    origin = {"commit": commit, "device": device_name(), "cores": os.cpu_count(), "threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        make_index(Path(folder) / "index", make_binder(), arguments.items)
        for name in arguments.parts:
            rows = []
            for row in PARTS[name](Path(folder) / "index", arguments.seconds):
                print(name, json.dumps({key: value for key, value in row.items() if key != "turns"}), flush=True)
                rows.append(row)
            found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            arguments.out.parent.mkdir(exist_ok=True)
            measured = {**origin, "items": arguments.items, "seconds": arguments.seconds, "rows": rows}
            arguments.out.write_text(json.dumps({**found, name: measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
