"""What the tests of the server share: a small library of four modalities, and a server that runs beside the test."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import torch
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from mmssl_glyphs.source import Glyphs
from mmssl_server.app import create_app
from mmssl_server.command import listen
from mmssl_server.library import Library
from multimodal_ssl import Catalog, Index, Preview
from multimodal_ssl.binder import Binder
from multimodal_ssl.calibration import Calibration
from multimodal_ssl.data import Supply
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.store import DATABASE

TOKEN = "a secret, 秘密"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}".encode()}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("small-conv", {"size": 24, "channels": 1, "width": 16}),
    "text": ("small-text", {"width": 32, "depth": 1, "heads": 1, "vocabulary": 300, "length": 16}),
    "outline": ("series-conv", {"channels": 3, "width": 16, "depth": 1, "length": 64}),
    "voice": ("log-mel-conv", {"rate": 8000, "seconds": 0.5, "mels": 16, "width": 16}),
}
KEYS = [
    "a b/c",
    "'; DROP TABLE items; --",
    'say "hi"',
    "münchen/東京 🎈",
    "../../etc/passwd",
    "/etc//hosts",
    ".",
    "50%2F",
    "?#&",
]


def png(size: tuple[int, int] = (30, 20), colour: int = 120) -> bytes:
    """Return a picture of one colour."""
    stream = io.BytesIO()
    Image.new("L", size, colour).save(stream, "PNG")
    return stream.getvalue()


def wav(seconds: float = 0.5, pitch: float = 440.0) -> bytes:
    """Return a tone."""
    stream = io.BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(8000 * seconds)) / 8000)
    soundfile.write(stream, tone, 8000, "PCM_16", format="WAV")
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def glyphs(limit: int = 60, seed: int = 0) -> Glyphs:
    """Return characters in one font each."""
    return Glyphs(split="test", fonts_per_character=1, limit=limit, seed=seed)


def make_binder(seed: int = 0) -> Binder:
    """Return a Binder that has learnt nothing but words."""
    torch.manual_seed(seed)
    catalog = Catalog.discover()
    encoders = {name: catalog.create("encoders", kind, options=options) for name, (kind, options) in ENCODERS.items()}
    kinds = {"image": "image", "text": "text", "outline": "series", "voice": "audio"}
    binder = Binder(encoders, {name: catalog.modality(kind) for name, kind in kinds.items()}, dim=32)
    binder.encoder("text").adapt(sample.items["text"] for sample in glyphs(200))
    return binder.eval()


def make_index(folder: Path, binder: Binder, *, limit: int = 60) -> Index:
    """Index glyphs, three tones, and items whose keys are like paths, commands and markup."""
    index = Index.create(folder, binder.fingerprint(), binder.dim)
    supply = Supply(glyphs(limit), ("image", "text", "outline"), 1.0)
    for name, items in embed(binder, [supply], previews=True)[0].items():
        index.add(name, items)
    tones = [wav(pitch=pitch) for pitch in (220.0, 440.0, 880.0)]
    voice = binder.modalities["voice"]
    seen = [voice.preview(voice.load(tone)) for tone in tones]
    names = ["low", "middle", "high"]
    index.add("voice", Embedded(binder.encode("voice", tones), names, names, seen))
    odd = [f"odd {place}" for place in range(len(KEYS))]
    previews = [
        Preview(text=text, png=png(colour=place), path=f"/srv/secret folder/{place}.png")
        for place, text in enumerate(odd)
    ]
    known: list[Mapping[str, str | float | None]] = [
        {"number": float(place), "licence": "MIT"} for place in range(len(odd))
    ]
    index.add("text", Embedded(binder.encode("text", odd), KEYS, KEYS, previews, metadata=known))
    # There is too little to learn from: what is probable is made up, for words that are searched among pictures alone.
    made_up = Calibration((-3.0, 1.0, 0.1), items=limit, queries=limit, error=0.0)
    index.store.note(calibration={"text-image": made_up.to_dict()})
    return index


@contextmanager
def serving(library: Library, **options: Any) -> Iterator[httpx.Client]:
    """Serve a library at a free port while this block lasts, and give a client of it."""
    listening = listen("127.0.0.1", 0)
    root_path = options.pop("root_path", "")
    app = create_app(library, threads=1, **options)
    config = uvicorn.Config(app, log_level="warning", access_log=False, root_path=root_path)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive(), "the server does not stop"


def open_library(folder: Path, binder: Binder) -> Library:
    """Open a library of an index that is there, or made now."""
    if not (folder / DATABASE).exists():
        make_index(folder, binder).close()
    return Library(binder, folder, name="glyphs", patience=2.0)


def post(client: httpx.Client, asked: dict[str, Any], files: dict[str, bytes] | None = None) -> httpx.Response:
    if files is None:
        return client.post("/search", json=asked)
    return client.post("/search", data={"request": json.dumps(asked)}, files=list(files.items()))


def hits_of(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    hits: list[dict[str, Any]] = reply.json()["hits"]
    return hits


def told(reply: httpx.Response, status: int) -> str:
    """Return the line of an error."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    line: str = reply.json()["error"]
    assert line
    assert "\n" not in line
    return line


def words(text: str, **options: Any) -> dict[str, Any]:
    return {"terms": [{"by": "text", "text": text}], **options}


def send(client: httpx.Client, items: Any, files: dict[str, bytes] | None = None, **headers: Any) -> httpx.Response:
    data = {"items": items if isinstance(items, str) else json.dumps(items)}
    parts = files if files is not None else {"nothing": b""}
    return client.post("/items", data=data, files=list(parts.items()), headers=headers or AUTHORIZED)
