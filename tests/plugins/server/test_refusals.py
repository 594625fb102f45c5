"""What the server refuses, and what it survives."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mmssl_server import answering
from mmssl_server.answering import Options, Part, Prepared, Query, Stored, answer
from mmssl_server.library import Library
from mmssl_server.limits import Limits
from multimodal_ssl.binder import Binder

from .serving import (
    hits_of,
    npy,
    open_library,
    png,
    post,
    serving,
    told,
    wav,
    words,
)


def test_no_client_makes_the_server_read_a_file(client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(png())
    series = tmp_path / "secret.npy"
    series.write_bytes(npy(np.zeros((3, 9))))
    for by, file in (("image", path), ("image", "/etc/passwd"), ("outline", series), ("voice", "/etc/passwd")):
        refused = post(client, {"terms": [{"by": by, "text": str(file)}]})
        assert f"{by} is no text" in told(refused, 422)
        for data in (str(file).encode(), f"file://{file}".encode()):
            assert "are no" in told(post(client, {"terms": [{"by": by, "upload": "f"}]}, {"f": data}), 422)
    hits = hits_of(post(client, words("/etc/passwd")))
    assert hits == hits_of(post(client, {"terms": [{"by": "text", "upload": "f"}]}, {"f": b"/etc/passwd"}))
    for odd in ("../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fhosts", "%00", "%ff"):
        told(client.get(f"/preview/image/{odd}"), 404)


def bomb(kind: str) -> bytes:
    """Return a small file that tells it is a large one."""
    if kind == "png":  # 10,000 x 10,000 pixels
        return png((10_000, 10_000))
    if kind == "npy":
        head = npy(np.zeros((3, 4)))
        return head.replace(b"(3, 4), }" + b" " * 12, b"(3, 4000000000), }" + b" " * 3)
    return wav(700.0)


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("by", "data", "status", "line"),
    [
        ("image", b"", 422, "0 bytes are no picture"),
        ("image", png()[:40], 422, "no picture"),
        ("image", png()[:50], 422, "can't be read as image"),
        ("image", wav(), 422, "are no picture: expected PNG, JPEG"),
        ("image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "are no picture"),
        ("image", bomb("png"), 413, "10,000 x 10,000 pixels are too many"),
        ("image", png((40_000, 20_000)), 413, "pixels"),
        ("voice", png(), 422, "are no sound"),
        ("voice", wav()[:30], 422, "no sound"),
        ("voice", bomb("wav"), 413, "700 s are too many: at most 600 seconds"),
        ("outline", npy(np.zeros((3, 9)))[:-9], 422, "cut off"),
        ("outline", bomb("npy"), 413, "12,000,000,000 numbers are too many"),
        ("outline", npy(np.zeros((2, 9))), 422, "3 channels"),
        ("outline", npy(np.full((3, 9), np.inf)), 422, "infinite"),
        ("outline", npy(np.array([{"a": 1}], object)), 422, ""),
        ("text", b"\xff\xfe\xff", 422, "can't be read as text"),
        ("text", b" ", 422, "the text is empty"),
        ("text", b"a" * 200_000, 413, "bytes of text"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_in_one_line(
    client: httpx.Client, by: str, data: bytes, status: int, line: str
) -> None:
    assert line in told(post(client, {"terms": [{"by": by, "upload": "f"}]}, {"f": data}), status)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("", 400, "JSON"),
        ("{", 400, "JSON"),
        ("[" * 100_000, 400, "recursion"),
        ('{"terms": [{"by": "text", "text": "\\ud800"}]}', 400, "hex escape"),
        ("null", 422, "should be an object"),
        ('{"terms": []}', 422, "terms: List should have at least 1"),
        ('{"terms": [{"text": "a", "weight": NaN}]}', 422, "terms.0.weight: Input should be a finite number"),
        ('{"terms": [{"text": "a", "weight": 1e400}]}', 422, "terms.0.weight"),
        ('{"terms": [{"text": "a", "weight": 0}]}', 422, "cancel each other out"),
        ('{"terms": [{"text": "a"}, {"text": "a", "weight": -1}]}', 422, "cancel each other out"),
        ('{"terms": [{"text": ""}]}', 422, "the text is empty"),
        ('{"terms": [{"by": "text"}]}', 422, "exactly one of text, key and upload"),
        ('{"terms": [{"text": "a", "key": "b"}]}', 422, "exactly one of text, key and upload"),
        ('{"terms": [{"upload": "f"}]}', 422, "the form has no file 'f'"),
        ('{"terms": [{"by": "imag", "text": "a"}]}', 422, "did you mean 'image'"),
        ('{"terms": [{"text": "a"}], "among": ["imag"]}', 422, "did you mean 'image'"),
        ('{"terms": [{"text": "a"}], "k": 101}', 422, "at most 100"),
        ('{"terms": [{"text": "a"}], "k": 1e30}', 422, "k"),
        ('{"terms": [{"text": "a"}], "k": 0}', 422, "k: "),
        ('{"terms": [{"text": "a"}], "query": 1}', 422, "query: Extra inputs"),
        ('{"terms": [{"text": "a"}], "where": "1=1; DROP TABLE items"}', 422, "filter, character"),
        ('{"terms": [{"text": "a"}], "where": "licence = \'x\' or 1=1 --"}', 422, "filter"),
        ('{"terms": [{"text": "a"}], "where": "' + "(" * 60 + '"}', 422, "at most 50 parentheses"),
        ('{"terms": [' + ",".join(['{"text": "a"}'] * 17) + "]}", 422, "at most 16"),
        ('{"terms": [{"text": "a"}], "among": ["voice"], "min_probability": 0.5}', 422, "can't tell how probable"),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_in_one_line(
    client: httpx.Client, body: str, status: int, line: str
) -> None:
    reply = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert line in told(reply, status)


def test_a_form_that_is_broken_is_refused(client: httpx.Client) -> None:
    def send(body: bytes, kind: str = "multipart/form-data; boundary=x") -> httpx.Response:
        return client.post("/search", content=body, headers={"Content-Type": kind})

    told(send(b"--x\r\nContent-Disposition: form-data\r\n\r\n"), 400)
    told(send(b"junk"), 400)
    told(send(b"", "multipart/form-data"), 400)
    assert "no field 'request'" in told(send(b"--x--\r\n"), 422)
    assert "expected application/json" in told(send(b"a=b", "application/x-www-form-urlencoded"), 415)
    part = b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"terms": [{"text": "a"}]}\r\n'
    assert "stands twice" in told(send(part + part + b"--x--\r\n"), 422)
    assert hits_of(send(part + b"--x--\r\n"))
    many = [("f", b"x")] * 300
    told(client.post("/search", data={"request": "{}"}, files=many), 400)


def test_what_there_is_not_is_told_as_json(client: httpx.Client) -> None:
    assert "no /nowhere" in told(client.get("/nowhere"), 404)
    reply = client.get("/search")
    assert "GET is no method of /search" in told(reply, 405)
    assert reply.headers["allow"] == "POST"
    assert client.get("/docs").status_code == 404, "its page would load scripts from elsewhere"


def test_headers_keep_browsers_from_guessing_and_other_pages_out(client: httpx.Client) -> None:
    reply = client.get("/health", headers={"Origin": "http://evil.example"})
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_only_names_of_its_own_are_answered(folder: Path, binder: Binder) -> None:
    with serving(open_library(folder, binder), hosts=["127.0.0.1", "::1"]) as one:
        assert one.get("/health").status_code == 200
        assert one.get("/health", headers={"Host": "[::1]:8000"}).status_code == 200
        for name in ("evil.example:80", "127.0.0.1.evil.example", ""):
            told(one.get("/health", headers={"Host": name}), 421)


def test_limits_of_size_number_and_time_are_kept(folder: Path, binder: Binder, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(body=100_000, k=5, terms=2, files=2, queue=3, timeout=1.0)
    free = threading.Event()
    slow = answering.answer

    def held(library: Library, queries: Any) -> Any:
        free.wait(5)
        return slow(library, queries)

    monkeypatch.setattr("mmssl_server.service.answer", held)
    with serving(open_library(folder, binder), limits=limits) as one:
        assert "at most 100,000 bytes" in told(post(one, words("a" * 9000), {"f": b"x" * 150_000}), 413)
        endless = (b'{"terms": ' + b" " * 20_000 for _ in range(10))  # its length isn't told beforehand
        told(one.post("/search", content=endless, headers={"Content-Type": "application/json"}), 413)
        assert "at most 5" in told(post(one, words("a", k=6)), 422)
        assert "at most 2" in told(post(one, {"terms": [{"text": "a"}] * 3, "k": 5}), 422)
        told(post(one, words("a", k=5), {"f": b"", "g": b"", "h": b""}), 400)

        def ask(_: int) -> httpx.Response:
            with httpx.Client(base_url=one.base_url, trust_env=False, timeout=30) as own:
                return post(own, words("a", k=5))

        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(ask, range(8)))
        for reply in replies:
            told(reply, reply.status_code)
        statuses = sorted(reply.status_code for reply in replies)
        assert set(statuses) == {503, 504}
        assert statuses.count(504) >= 3
        assert {reply.headers["retry-after"] for reply in replies if reply.status_code == 503} == {"1"}
        free.set()
        assert hits_of(post(one, words("a", k=5)))
        assert "mmssl_queue_depth 0.0" in one.get("/metrics").text


def test_a_filter_that_takes_too_long_is_given_up(
    folder: Path, binder: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.database.PAUSE", 1)
    library = open_library(folder, binder)
    library.index.store.patience = 0.0
    with serving(library) as one:
        assert "the filter takes longer than 0 s" in told(post(one, words("a", where="number > 1")), 422)
        assert hits_of(post(one, words("a")))


def test_an_error_that_nobody_foresaw_has_a_name_and_the_server_lives(
    folder: Path, binder: Binder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    with serving(open_library(folder, binder)) as one:
        with monkeypatch.context() as patch:
            patch.setattr("mmssl_server.answering.search", broken)
            line = told(post(one, words("a")), 500)
        assert "secret" not in line
        name = line.rpartition(" ")[2]
        assert any(name in record.getMessage() and record.exc_info for record in caplog.records)
        assert hits_of(post(one, words("a")))
        figures = one.get("/metrics").text
    assert 'mmssl_requests_total{route="/search",status="500"} 1.0' in figures
    assert 'mmssl_requests_total{route="/search",status="200"} 1.0' in figures
    assert 'mmssl_request_seconds_count{route="/search"} 2.0' in figures
    assert 'mmssl_items{modality="voice"} 3.0' in figures


def test_one_bad_query_of_a_batch_fails_alone(folder: Path, binder: Binder) -> None:
    library = open_library(folder, binder)
    good = Prepared(binder.prepare("text", "snowman"))
    probable = Options(among=("image",), min_probability=1e-6)
    asked = [
        Query([Part("text", good)], Options()),
        Query([Part("text", Prepared({"junk": 1}))], Options()),
        Query([Part("image", Stored("nobody"))], Options()),
        Query([Part("text", good, 1.0), Part("text", good, -1.0)], Options()),
        Query([Part("text", good)], Options(where="number >")),
        Query([Part("text", good)], Options(among=("lute",))),
        Query([Part("voice", Stored("low"))], probable),
        Query([Part("text", good)], probable),
        Query([Part("text", good)]),
    ]
    found = answer(library, asked)
    (alone,) = answer(library, asked[:1])
    assert [isinstance(one, Exception) for one in found] == [False, *[True] * 6, False, False]
    assert not isinstance(alone, Exception)
    assert not isinstance(found[0], Exception)
    assert [hit.item.key for hit in found[0].hits] == [hit.item.key for hit in alone.hits]
    assert not isinstance(found[-1], Exception)
    np.testing.assert_allclose(found[-1].vectors, binder.encode("text", ["snowman"]), atol=1e-6)
    library.close()


def test_a_request_that_is_in_when_the_server_is_stopped_is_answered(
    folder: Path, binder: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, at_once = threading.Event(), answering.answer

    def slowly(library: Library, queries: Any) -> Any:
        begun.set()
        time.sleep(0.5)
        return at_once(library, queries)

    monkeypatch.setattr("mmssl_server.service.answer", slowly)
    with ThreadPoolExecutor(1) as pool:
        with serving(open_library(folder, binder)) as one:
            address = one.base_url
            asked = pool.submit(lambda: httpx.post(f"{address}/search", json=words("a"), trust_env=False))
            assert begun.wait(5)
        assert hits_of(asked.result())
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health", trust_env=False)
