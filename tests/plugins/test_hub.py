import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

import mmssl_pretrained.hub
from mmssl_pretrained.hub import hub_or_cache

from .test_hugging_face import encoder_of, features_of, save_bert

TRY = """
import sys, time
from multimodal_ssl import Catalog, InputError
catalog = Catalog.discover()
for name, options in (
    ("hf-text", {"model": "nobody/nothing"}),
    ("hf-image", {"model": "nobody/nothing"}),
    ("hf-audio", {"model": "nobody/nothing"}),
    ("sentence-transformers-text", {"model": "nobody/nothing"}),
    ("open-clip-image", {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}),
    ("open-clip-image", {"model": "hf-hub:nobody/nothing"}),
    ("open-clip-text", {"model": "hf-hub:nobody/nothing"}),
    ("timm-image", {"model": "resnet18.a1_in1k"}),
    ("timm-image", {"model": "hf-hub:nobody/nothing"}),
):
    try:
        catalog.create("encoders", name, options=options)
    except InputError as error:
        print(name, error)
"""


@pytest.fixture
def closed():
    """Return an address at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture
def lost(monkeypatch, tmp_path, closed):
    """Put the hub where nobody listens, and its cache into a folder of the test."""
    place_hub(monkeypatch, closed)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def place_hub(monkeypatch, endpoint):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(mmssl_pretrained.hub, "_told", {})


def save_in_cache(folder, save, repository="nobody/something"):
    """Save a model as the hub's library keeps it."""
    place = Path(folder) / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return save(place / "snapshots" / ("0" * 40))


def test_an_unreachable_hub_is_told_in_one_line_and_at_once(closed, tmp_path):
    environment = {name: one for name, one in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    environment |= {"HF_ENDPOINT": closed, "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", TRY], env=environment, capture_output=True, text=True, timeout=100)
    assert time.monotonic() - begin < 60  # most of it to import the libraries; it was a minute for each model
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    for line in lines:
        assert re.search(
            rf"the model hub {closed} can't be reached \(.*refused\), .* without the model hub, give ", line
        )


def test_a_model_in_the_cache_needs_no_hub(lost, tmp_path):
    folder = save_in_cache(tmp_path / "cache", save_bert)
    encoder = encoder_of("nobody/something")
    assert features_of(encoder, ["fox"]).equal(features_of(encoder_of(folder), ["fox"]))
    shutil.rmtree(folder)
    with pytest.raises(Exception, match="can't be reached"):
        encoder_of("nobody/something")


def test_a_local_folder_asks_nobody(monkeypatch, tmp_path):
    place_hub(monkeypatch, "nowhere:")
    monkeypatch.setattr(mmssl_pretrained.hub, "_ask", lambda _: pytest.fail("the hub was asked"))
    assert encoder_of(save_bert(tmp_path)).width == 16


class Refusing(BaseHTTPRequestHandler):
    """Answers nothing but that it does not answer."""

    asked = 0

    def do_HEAD(self):
        type(self).asked += 1
        self.send_error(405)

    def log_message(self, format, *args):
        pass


def test_a_hub_that_says_anything_at_all_is_reached_and_asked_once(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        for _ in range(2):
            with hub_or_cache(needed=True):
                assert not huggingface_hub.constants.HF_HUB_OFFLINE
        server.shutdown()
    assert Refusing.asked == 1


def test_a_hub_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(mmssl_pretrained.hub, "PATIENCE", 0.1)

    def download():
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        huggingface_hub.hf_hub_download("nobody/nothing", "config.json")

    with socket.create_server(("127.0.0.1", 0)) as server:
        place_hub(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(ConnectionError, match="can't be reached"), hub_or_cache(needed=True):
            download()
        assert time.monotonic() - begin < 5
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_what_has_nothing_to_do_with_the_hub_is_raised_as_it_is(lost):
    with pytest.raises(RuntimeError, match="of another kind"), hub_or_cache(needed=True):
        raise RuntimeError("of another kind")
    with pytest.raises(FileNotFoundError, match="gone"), hub_or_cache(needed=False):
        raise FileNotFoundError("gone")
