"""`mmssl serve` as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
import uvicorn

from mmssl_server import command
from multimodal_ssl import InputError, build_index
from multimodal_ssl.cli import mmssl


@pytest.fixture(scope="module")
def indexed(trained_run: Path) -> Path:
    if not (trained_run / "index").exists():
        build_index(trained_run).close()
    return trained_run


@contextmanager
def serve(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    line = [sys.executable, "-m", "multimodal_ssl", "serve", *map(str, arguments), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        first = process.stdout.readline()
        found = re.search(r"at (http://\S+)", first)
        assert found, first + process.communicate(timeout=30)[1]
        with httpx.Client(base_url=found[1], trust_env=False, timeout=30) as client:
            for _ in range(100):
                try:
                    client.get("/health")
                    break
                except httpx.ConnectError:
                    pass
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_a_run_is_served_rebuilt_while_it_is_and_stopped(indexed: Path, tmp_path: Path) -> None:
    token = tmp_path / "token.txt"
    token.write_text("secret\n")
    with serve(indexed, "--token-file", token, "--batch", 4) as (process, client):
        before = client.get("/health").json()
        assert before["modalities"]["image"] == {"kind": "image", "items": 60, "queries": True}
        question = {"terms": [{"by": "text", "text": "arrow"}], "among": ["image"]}
        hits = client.post("/search", json=question).json()["hits"]
        assert len(hits) == 10
        assert client.get(hits[0]["preview"]).content.startswith(b"\x89PNG")
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421
        authorized = {"Authorization": "Bearer secret"}
        assert client.delete(hits[0]["preview"].replace("/preview/", "/items/"), headers=authorized).status_code == 200
        assert client.get("/health").json()["modalities"]["image"]["items"] == 59
        build_index(indexed).close()
        assert client.get("/health").json()["modalities"]["image"]["items"] == 60
        assert client.post("/search", json=question).json()["hits"] == hits
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert "the index was replaced" in errors
        assert "Traceback" not in errors
        assert process.returncode in (0, -signal.SIGTERM)


def test_its_help_imports_neither_the_server_nor_torch() -> None:
    code = "import sys; from multimodal_ssl.cli import mmssl; mmssl(['serve', '--help'], standalone_mode=False); "
    code += "print({'torch', 'fastapi', 'uvicorn', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


def test_its_connections_send_at_once() -> None:
    with command.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        assert accepted.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's algorithm on"
        accepted.close()


def refused(*arguments: object) -> str:
    """Return the line that `mmssl serve` ends with."""
    with pytest.raises((InputError, OSError)) as caught:
        mmssl.main(["serve", *map(str, arguments)], standalone_mode=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_can_t_be_served_is_told_in_one_line(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    assert "is empty: write a token into it" in refused(indexed, "--token-file", tmp_path / "empty")
    assert "holds no index" in refused(indexed, "--index", tmp_path, "--port", 0)
    assert "holds no trained run" in refused(tmp_path, "--port", 0)
    with command.listen("127.0.0.1", 0) as taken:
        assert "in use" in refused(indexed, "--port", taken.getsockname()[1])
    monkeypatch.setenv("MMSSL_TOKEN", " ")
    assert "MMSSL_TOKEN is empty" in refused(indexed)


def test_who_listens_for_other_machines_is_warned_and_may_be_called_by_any_name(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, **_: made.append(server))
    threads = torch.get_num_threads()
    for arguments in (
        ["--host", "0.0.0.0"],
        ["--host", "0.0.0.0", "--allow-host", "Find.example"],
        ["--host", "::1"],
        [],
    ):
        mmssl.main(["serve", str(indexed), "--port", "0", *arguments], standalone_mode=False)
        told = capsys.readouterr()
        assert ("warning: 0.0.0.0 can be reached by other machines" in told.err) == ("0.0.0.0" in arguments)
        assert f"serving: {indexed} (60 image, 60 outline, 60 text)" in told.out
    hosts = [server.config.app.user_middleware[0].kwargs["hosts"] for server in made]
    own = {"localhost", "127.0.0.1", "::1"}
    assert hosts == [None, {*own, "find.example"}, own, own]
    assert torch.get_num_threads() == threads
