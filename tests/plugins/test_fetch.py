"""URLs in the pairing source ``table``, against a server on this machine."""

from __future__ import annotations

import contextlib
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mmssl_sources import fetch
from mmssl_sources.fetch import Download, Rules
from multimodal_ssl.testing import check_pairing_source, check_resume

from .tables import open_table, reason, refusal, write

BODY = bytes(range(256)) * 40
ALLOWED = {"private": True, "timeout": 5}


class Handler(BaseHTTPRequestHandler):
    """Answers each path in a way of its own."""

    seen: list[tuple[str, dict[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        route, _, rest = self.path.lstrip("/").partition("/")
        with contextlib.suppress(OSError):  # the client hangs up, as it should
            getattr(self, f"on_{route}", self.on_missing)(rest)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def on_missing(self, _: str) -> None:
        self.answer(404)

    def on_file(self, rest: str) -> None:
        self.answer(200, rest.encode() or BODY)

    def on_sized(self, rest: str) -> None:
        self.answer(200, BODY, Content_Length=rest or str(len(BODY)))

    def on_chunked(self, rest: str) -> None:
        self.protocol_version = "HTTP/1.1"
        self.answer(200, b"3\r\nabc\r\n4\r\ndefg\r\n" + (b"" if rest else b"0\r\n\r\n"), Transfer_Encoding="chunked")
        self.close_connection = True

    def on_endless(self, _: str) -> None:
        self.answer(200)
        while True:
            self.wfile.write(BODY)

    def on_drip(self, rest: str) -> None:
        if rest == "body":
            self.answer(200)
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def on_to(self, rest: str) -> None:
        self.answer(302, Location=rest)

    def on_hops(self, rest: str) -> None:
        self.answer(307, Location=f"/hops/{int(rest) - 1}" if int(rest) > 1 else "/file/end")

    def on_gzip(self, _: str) -> None:
        self.answer(200, BODY, Content_Encoding="gzip")

    def on_nonsense(self, _: str) -> None:
        self.wfile.write(b"SSH-2.0-no\r\n\r\n")

    def on_headers(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(port: int) -> str:
    Handler.seen.clear()
    return f"http://127.0.0.1:{port}"


def read(url: str, **rules: Any) -> bytes:
    return Download(url, Rules(**{**ALLOWED, **rules})).read()


def failure(url: str, **rules: Any) -> str:
    """Return the ValueError of a download, which must be one line, not long, and name the address."""
    with pytest.raises(ValueError, match="can't fetch") as caught:
        read(url, **rules)
    said = str(caught.value)
    assert url[:100] in said
    assert "\n" not in said
    assert len(said) < 700
    return said


def lead(monkeypatch: pytest.MonkeyPatch, *addresses: str, port: int) -> list[str]:
    """Let all names lead to these addresses, and return the list of names that will be asked for."""
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize("path", ["file", "sized", "to//file", "hops/5"])
def test_a_download_is_the_bytes_of_the_server(url: str, path: str) -> None:
    assert read(f"{url}/{path}") == (b"end" if path.startswith("hops") else BODY)


def test_chunks_are_put_together_and_a_lost_one_is_told(url: str) -> None:
    assert read(f"{url}/chunked") == b"abcdefg"
    assert "IncompleteRead" in failure(f"{url}/chunked/cut")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "the server answers 404 Not Found"),
        ("sized/19999", "it ends after 10240 bytes, 9759 before the length that the server told"),
        ("endless", "it has more than 20000 bytes (urls.max_bytes)"),
        ("sized/20001", "it has 20001 bytes, more than 20000 (urls.max_bytes)"),
        ("hops/6", "more than 5 redirects"),
        ("to/file:///etc/passwd", "only http and https are fetched, not file"),
        ("to/ftp://127.0.0.1/a", "only http and https are fetched, not ftp"),
        ("to/http://user:pass@127.0.0.1/a", "with a user's name or password"),
        ("to/http://:80/a", "is no host"),
        ("to/http://127.0.0.1:99999/a", "Port out of range"),
        ("gzip", "encoded as 'gzip'"),
        ("nonsense", "SSH-2.0"),
        ("headers", "got more than 100 headers"),
    ],
)
def test_what_a_server_may_not_do_is_told(url: str, path: str, said: str) -> None:
    assert said in failure(f"{url}/{path}", max_bytes=20_000)


def test_a_length_that_lies_low_cuts_the_body_as_http_has_it(url: str) -> None:
    assert read(f"{url}/sized/5") == BODY[:5]


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_slow_server_has_no_more_than_the_time_in_total(url: str, part: str) -> None:
    start = time.monotonic()
    assert "it takes longer than 0.4 s (urls.timeout)" in failure(f"{url}/drip/{part}", timeout=0.4)
    assert 0.3 < time.monotonic() - start < 2


def test_a_resolver_that_hangs_has_no_more_than_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: free.wait(5) and [])
    start = time.monotonic()
    assert "takes longer than 0.2 s" in failure("http://slow.example.org/a", timeout=0.2)
    assert time.monotonic() - start < 2
    free.set()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "2001:db8::1", "::7f00:1",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_not_public(address: str) -> None:
    assert not fetch.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_other_addresses_are_public(address: str) -> None:
    assert fetch.is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1"])
def test_private_addresses_are_not_asked_however_they_are_spelled(url: str, port: int, host: str) -> None:
    said = failure(f"http://{host}:{port}/file", private=False)
    assert "not public" in said or "there is no host" in said
    assert not Handler.seen


def test_one_private_address_among_those_of_a_host_is_enough(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    lead(monkeypatch, "93.184.216.34", "127.0.0.1", port=port)
    assert "127.0.0.1, an address that is not public" in failure("http://a.example.org/file", private=False)
    assert not Handler.seen


def test_redirects_are_checked_like_the_first_address(monkeypatch: pytest.MonkeyPatch, url: str, port: int) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    assert read(f"{url}/to//file", private=False) == BODY
    Handler.seen.clear()
    said = failure(f"{url}/to/http://127.0.0.2:{port}/file", private=False)
    assert "redirected to http://127.0.0.2" in said
    assert "not public" in said
    assert len(Handler.seen) == 1
    said = failure(f"{url}/to/http://localhost:{port}/file", hosts=("127.0.0.1",))
    assert "localhost is none of the hosts that are allowed" in said


def test_a_name_is_resolved_once_and_told_to_the_server(monkeypatch: pytest.MonkeyPatch, url: str, port: int) -> None:
    asked = lead(monkeypatch, "127.0.0.1", port=port)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert read(f"http://Images.Example.org:{port}/file/a b?q=ä#part", hosts=("example.org",)) == b"a%20b?q=%C3%A4"
    assert asked == ["images.example.org"]
    ((_, headers),) = Handler.seen
    assert headers["host"] == f"images.example.org:{port}"
    assert headers["accept-encoding"] == "identity"
    for host in ("badexample.org", "example.org.evil.net", "org"):
        assert "none of the hosts" in failure(f"http://{host}:{port}/file", hosts=("example.org",))


def test_tls_is_asked_for_the_name_not_the_address(monkeypatch: pytest.MonkeyPatch, url: str, port: int) -> None:
    names: list[str] = []

    class Context:
        def wrap_socket(self, sock: socket.socket, *, server_hostname: str) -> socket.socket:
            names.append(server_hostname)
            return sock

    lead(monkeypatch, "127.0.0.1", port=port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", Context)
        assert read("https://images.example.org/file/x") == b"x"
    assert names == ["images.example.org"]
    assert Handler.seen[-1][1]["host"] == "images.example.org"
    assert "SSL" in failure("https://images.example.org/file/x")  # the server knows no TLS, and that is no reason


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "doesn't answer" in failure(f"http://127.0.0.1:{free.getsockname()[1]}/a")


def test_urls_are_fetched_only_where_that_is_allowed(tmp_path: Path, url: str) -> None:
    path = write(tmp_path / "t.csv", [{"file": f"{url}/file/{i}", "caption": url} for i in range(3)])
    assert "or set `urls`" in reason(open_table(path), 0)
    source = open_table(path, urls=ALLOWED)
    check_pairing_source(source)
    assert not Handler.seen  # nothing is fetched before it is used
    item = pickle.loads(pickle.dumps(source))[2].items["image"]
    assert item == Download(f"{url}/file/2", Rules(timeout=5, private=True))
    assert repr(item) == repr(source[2].items["image"])
    assert item.read() == b"2"
    assert source[2].items["text"] == url
    with pytest.raises(ValueError, match="not public"):
        open_table(path, urls={})[0].items["image"].read()


def test_downloads_feed_training_alike_with_any_number_of_workers(tmp_path: Path, url: str) -> None:
    rows = [{"file": f"{url}/{'nothing' if i == 3 else 'file'}/{i}", "caption": f"{i}"} for i in range(16)]
    check_resume(open_table(write(tmp_path / "t.csv", rows), urls=ALLOWED), batch=4)


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ({"time": 1}, "did you mean 'timeout'?"),
        ({"timeout": 0}, "must be a number of seconds above 0"),
        ({"timeout": True}, "must be a number of seconds above 0"),
        ({"timeout": float("nan")}, "must be a number of seconds above 0"),
        ({"max_bytes": 1.5}, "must be a whole number above 0"),
        ({"max_bytes": -1}, "must be a whole number above 0"),
        ({"hosts": "example.org"}, "must be a list of names of hosts"),
        ({"hosts": []}, "must be a list of names of hosts"),
        ({"hosts": ["https://example.org"]}, "must be a list of names of hosts"),
        ({"private": "no"}, "must be true or false"),
    ],
)
def test_rules_that_make_no_sense_are_refused(tmp_path: Path, urls: dict[str, Any], said: str) -> None:
    assert said in refusal(write(tmp_path / "t.csv", [{"file": "a", "caption": "c"}]), urls=urls)
