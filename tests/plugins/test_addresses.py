"""Files that a pattern means, on this machine and elsewhere."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from mmssl_sources.addresses import expand, open_stream, shard_names
from multimodal_ssl import InputError

from ..toys import refusal
from .test_webdataset import create, pairs, read, write


def test_braces_and_wildcards_mean_each_file_once(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.tar" for name in ("a-08", "a-09", "a-10", "b[1]")]
    for file in files:
        file.touch()
    root = str(tmp_path)
    assert expand([f"{root}/a-{{08..10}}.tar"]) == [str(one) for one in files[:3]]
    assert expand([f"{root}/a-*.tar", f"{root}/a-0{{8,9}}.tar"]) == [str(one) for one in files[:3]]
    assert expand([f"{root}/{{a-{{08,09}},a-10}}.tar"]) == [str(files[0]), str(files[2]), str(files[1])]
    assert expand([f"{root}/b[1].tar"]) == [str(files[3])]
    assert expand(["memory://x/{8..10}.tar"]) == [f"memory://x/{i}.tar" for i in (8, 9, 10)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{5..1}.tar", "5 comes after 1"),
        ("memory://{0..99999999}.tar", "means more than"),
        ("memory://" + "{a,a}" * 40, "means more than"),
        ("gone.tar", "there is no file gone.tar"),
        ("gone-*.tar", "no file matches"),
        ("memory://gone-*.tar", "no file matches"),
        ("nonsense://x.tar", "nonsense"),
        (".", "is a folder: give its archives"),
    ],
)
def test_what_is_no_file_is_refused(pattern: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmssl_sources.addresses.MOST", 1000)
    assert expected in refusal(lambda: expand([pattern]))


def test_archives_of_one_name_are_told_apart() -> None:
    assert shard_names(["/d/a.tar", "s3://b/c.tar.gz", "https://h/d.TGZ?key=1/2"])[:2] == ["a", "c"]
    assert shard_names(["/d/a.tar", "/e/a.tar"]) == ["/d/a.tar", "/e/a.tar"]
    assert shard_names(["/d/a.tar", "/d/a.tar.gz"]) == ["/d/a.tar", "/d/a.tar.gz"]


def test_archives_in_memory_are_streams(tmp_path: Path) -> None:
    expected = read(create(str(write(tmp_path / "a.tar", pairs(0, 5)))))
    for suffix in ("tar", "tar.gz"):
        system = fsspec.filesystem("memory")
        system.pipe(f"/shards/a.{suffix}", write(tmp_path / f"a.{suffix}", pairs(0, 5)).read_bytes())
        assert read(create(f"memory://shards/*.{suffix}")) == expected
    assert "can't be read" in refusal(lambda: list(create("memory://shards/gone.tar")))


class Torn(io.BytesIO):
    """A file on a line that breaks off, with an error of a library's own; it gives a little at a time."""

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]  # io allows a buffer to be wider
        if self.tell() > 3000:
            raise LookupError("peer went away")
        return super().read(min(size or 100, 100))


def test_a_line_that_breaks_off_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = write(tmp_path / "a.tar", pairs(0, 50)).read_bytes()
    monkeypatch.setattr(fsspec, "open", lambda *_, **__: Torn(body))
    stream = create("memory://a.tar")
    samples = iter(stream)
    with pytest.raises(InputError, match=r"memory://a.tar can't be read \(LookupError.*goes on with --resume"):
        list(samples)
    with open_stream("memory://a.tar") as file:
        assert file.read(2000) == body[:2000]


@contextmanager
def served(body: bytes, cut: int | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path.startswith("/a.tar") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(body[:cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_archives_of_a_web_server_are_streams(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tar", [("x.jpg", bytes(1 << 20)), *pairs(0, 50)])
    expected, body = read(create(str(archive))), archive.read_bytes()
    with served(body) as address:
        assert read(create(f"{address}/a.tar")) == expected
        assert "can't be read" in refusal(lambda: list(create(f"{address}/gone.tar")))
    with served(body, cut=len(body) // 2) as address:
        assert "goes on with --resume" in refusal(lambda: list(create(f"{address}/a.tar")))


def test_what_it_takes_to_read_an_address_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(fsspec.available_protocols.__globals__["_registry"], "https", raising=False)
    assert "aiohttp" in refusal(lambda: expand(["https://h/a.tar"]))
