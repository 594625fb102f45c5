from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import multimodal_ssl
from mmssl_server import answering
from mmssl_server.answering import Options, Part, Prepared, Query, Stored, answer
from mmssl_server.library import Library
from mmssl_server.limits import Limits
from multimodal_ssl import Index, Term
from multimodal_ssl.binder import Binder
from multimodal_ssl.index import replace_index

from .serving import AUTHORIZED, KEYS, TOKEN, glyphs, make_binder, make_index, npy, open_library, png, serving, wav

WORDS = ["leftwards arrow", "circled letter r", "snowman", "odd 3", "greek small letter alpha", "box drawings heavy"]


@pytest.fixture(scope="module")
def binder() -> Binder:
    return make_binder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, binder: Binder) -> Path:
    """An index that no test changes."""
    made = tmp_path_factory.mktemp("served") / "index"
    make_index(made, binder).close()
    return made


@pytest.fixture(scope="module")
def client(folder: Path, binder: Binder) -> Iterator[httpx.Client]:
    with serving(open_library(folder, binder)) as one:
        yield one


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


# What it answers.


def test_health_tells_what_is_served(client: httpx.Client, folder: Path, binder: Binder) -> None:
    told = client.get("/health").json()
    with Index(folder) as index:
        assert told["version"] == index.store.version()
    assert (told["status"], told["fingerprint"], told["threads"]) == ("ok", binder.fingerprint(), 1)
    assert told["modalities"] == {
        "image": {"kind": "image", "items": 60, "queries": True},
        "text": {"kind": "text", "items": 60 + len(KEYS), "queries": True},
        "outline": {"kind": "series", "items": 60, "queries": True},
        "voice": {"kind": "audio", "items": 3, "queries": True},
    }


def questions(binder: Binder) -> list[tuple[dict[str, Any], dict[str, bytes], list[Term], dict[str, Any]]]:
    """Return questions to the server, their files, and the same as terms and options of `search`."""
    asked: list[tuple[dict[str, Any], dict[str, bytes], list[Term], dict[str, Any]]] = []
    for text in WORDS:
        asked.append((words(text), {}, [Term("text", text)], {}))
        asked.append((words(text, among=["outline"], k=3), {}, [Term("text", text)], {"among": ["outline"], "k": 3}))
    more: dict[str, Any] = {"among": ["image", "text"], "k": 30, "one_per_group": True}
    asked.append((words("star", **more), {}, [Term("text", "star")], more))
    more = {"among": ["image"], "min_probability": 0.05}
    asked.append((words("star", **more), {}, [Term("text", "star")], more))
    more = {"among": ["text"], "where": "number >= 2 and licence = 'MIT'", "fold": 0.999, "centre": True}
    asked.append((words("star", **more), {}, [Term("text", "star")], more))
    picture, series, tone = png(colour=40), npy(np.random.default_rng(0).normal(size=(3, 50))), wav(pitch=300)
    for by, data in (("image", picture), ("outline", series), ("voice", tone), ("text", b"snowman")):
        asked.append(({"terms": [{"by": by, "upload": "f"}]}, {"f": data}, [Term(by, data)], {}))
    several = {
        "terms": [
            {"by": "image", "upload": "a"},
            {"by": "text", "text": "sun", "weight": -0.5},
            {"by": "voice", "upload": "b"},
        ]
    }
    asked.append(
        (
            several,
            {"a": picture, "b": tone},
            [Term("image", picture), Term("text", "sun", -0.5), Term("voice", tone)],
            {},
        )
    )
    return asked


def check_same(hits: list[dict[str, Any]], expected: list[Any]) -> None:
    np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in expected], atol=2e-5)
    scores = np.array([hit.score for hit in expected])
    for place, (hit, other) in enumerate(zip(hits, expected, strict=True)):
        if (np.abs(np.delete(scores, place) - scores[place]) > 1e-4).all():  # else rounding may turn the order
            assert (hit["modality"], hit["key"]) == (other.item.modality, other.item.key)
            assert hit["metadata"] == other.item.metadata
            if other.probability is not None:
                assert hit["probability"] == pytest.approx(other.probability, abs=1e-3)


def test_it_answers_what_the_library_answers_alone_and_to_64_clients_at_once(
    client: httpx.Client, folder: Path, binder: Binder
) -> None:
    asked = questions(binder)
    with Index(folder) as index:
        expected = [multimodal_ssl.search(binder, index, [terms], **more)[0] for _, _, terms, more in asked]
    for (question, files, _, _), hits in zip(asked, expected, strict=True):
        check_same(hits_of(post(client, question, files or None)), hits)
    start = threading.Barrier(64)

    def ask(number: int) -> None:
        with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as own:
            start.wait()
            for turn in range(3):
                place = (number + 7 * turn) % len(asked)
                question, files, _, _ = asked[place]
                check_same(hits_of(post(own, question, files or None)), expected[place])

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask, range(64)))
    figures = client.get("/metrics").text
    total = float(figures.split("mmssl_batch_size_sum ")[1].split()[0])
    batches = float(figures.split("mmssl_batch_size_count ")[1].split()[0])
    assert total / batches > 1.5, "they were gathered"


def test_an_item_of_the_index_is_searched_by_with_its_stored_vector(
    client: httpx.Client, folder: Path, binder: Binder
) -> None:
    key = glyphs()[7].key
    with Index(folder) as index:
        (expected,) = multimodal_ssl.search(binder, index, [[Term("image", glyphs()[7].items["image"])]], among="text")
    for term in ({"by": "image", "key": key}, {"by": "text", "modality": "image", "key": key}):
        check_same(hits_of(post(client, {"terms": [term], "among": ["text"]})), expected)
    first = hits_of(post(client, {"terms": [{"by": "image", "key": key}], "among": ["image"], "k": 1}))[0]
    assert first["key"] == key
    assert first["score"] == pytest.approx(1, abs=1e-5)
    assert "no image with the key 'nobody'" in told(post(client, {"terms": [{"by": "image", "key": "nobody"}]}), 422)


def test_items_are_told_with_their_pictures_and_sounds_whatever_their_keys_are(client: httpx.Client) -> None:
    for place, key in enumerate(KEYS):
        (hit,) = hits_of(post(client, {"terms": [{"by": "text", "key": key}], "among": ["text"], "k": 1}))
        assert hit["key"] == key
        assert hit["path"] == f"{place}.png"
        picture = client.get(hit["preview"])
        assert picture.content == png(colour=place)
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["content-security-policy"] == "default-src 'none'; sandbox"
        same = client.get(hit["preview"].replace("/preview/", "/items/", 1)).json()
        assert same == {name: value for name, value in hit.items() if name not in ("score", "probability")}
    low = client.get("/items/voice/low").json()
    assert client.get(low["sound"]).content.startswith(b"RIFF")
    assert client.get(low["sound"]).headers["content-type"] == "audio/wav"
    assert "no text with the key 'x'" in told(client.get("/items/text/x"), 404)
    assert "no lute" in told(client.get("/preview/lute/low"), 404)
    assert "has no sound" in told(client.get(f"/sound/text/{KEYS[0]}"), 404)


def test_no_answer_tells_where_files_lie(client: httpx.Client, folder: Path) -> None:
    everything = post(client, words("odd", among=["text"], k=100)).text + client.get("/health").text
    assert "secret folder" not in everything
    assert str(folder.parent) not in everything


def test_behind_a_proxy_addresses_begin_with_the_path_that_it_leaves_out(folder: Path, binder: Binder) -> None:
    with serving(open_library(folder, binder), root_path="/find") as one:
        hit = hits_of(post(one, words("odd 3", among=["text"], k=1)))[0]
        assert hit["preview"].startswith("/find/preview/text/")
        assert one.get(hit["preview"].removeprefix("/find")).content.startswith(b"\x89PNG")


# What clip-retrieval's client sends.


def clip_client(**given: Any) -> str:
    """Return the body of ClipClient's request, which has no Content-Type."""
    nothing = {"text": None, "image": None, "image_url": None, "embedding_input": None}
    settings = {
        "deduplicate": True, "use_safety_model": True, "use_violence_detector": True, "indice_name": "glyphs",
        "use_mclip": False, "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 40,
        "num_result_ids": 40, "verbose": False,
    }  # fmt: skip
    return json.dumps({**nothing, **settings, **given})


def test_the_client_of_clip_retrieval_is_answered(client: httpx.Client, folder: Path, binder: Binder) -> None:
    def ask(status: int = 200, **given: Any) -> Any:
        reply = client.post("/knn-service", content=clip_client(**given))
        assert "content-type" not in reply.request.headers
        return reply.json() if status == 200 else told(reply, status)

    picture = glyphs()[5].items["image"]
    vector = binder.encode("image", [picture])[0]
    with Index(folder) as index:
        expected = {
            "text": multimodal_ssl.search(binder, index, ["snowman"], among="image", k=40, fold=0.94)[0],
            "image": multimodal_ssl.search(binder, index, [png()], by="image", among="image", k=40, fold=0.94)[0],
            "vector": multimodal_ssl.search(binder, index, [picture], by="image", among="image", k=5)[0],
        }
    answers = {
        "text": ask(text="snowman"),
        "image": ask(image=base64.b64encode(png()).decode()),
        "vector": ask(embedding_input=vector.tolist(), num_images=2, num_result_ids=5, deduplicate=False),
    }
    for name, hits in expected.items():
        assert [one["id"] for one in answers[name]] == [hit.item.id for hit in hits]
        np.testing.assert_allclose([one["similarity"] for one in answers[name]], [hit.score for hit in hits], atol=1e-5)
    first = answers["vector"][0]
    assert first["key"] == glyphs()[5].key
    assert first["caption"] == glyphs()[5].items["text"]
    assert base64.b64decode(first["image"]).startswith(b"\x89PNG")
    assert first["font"] == glyphs()[5].metadata["font"]
    assert [set(one) for one in answers["vector"][2:]] == [{"id", "similarity"}] * 3
    assert "send the picture itself" in ask(422, image_url="http://localhost/x.png")
    assert "in base64" in ask(422, image="%%%")
    assert "no picture" in ask(422, image=base64.b64encode(png()[:40]).decode())
    assert "expected 32 numbers" in ask(422, embedding_input=[1.0])
    assert "known: glyphs" in ask(422, text="x", indice_name="laion5B")
    assert "one of text" in ask(422)
    assert "num_images" in ask(422, text="x", num_images=101)
    assert client.get("/indices-list").json() == ["glyphs"]
    ids = [one["id"] for one in answers["text"][:3]]
    found = client.post("/metadata", content=json.dumps({"ids": [*ids, 10**9], "indice_name": "glyphs"})).json()
    assert [one["id"] for one in found] == ids
    assert found[0]["metadata"]["key"] == answers["text"][0]["key"]


# What it refuses.


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
    monkeypatch.setattr("multimodal_ssl.store.PAUSE", 1)
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


# What changes the index.


def send(client: httpx.Client, items: Any, files: dict[str, bytes] | None = None, **headers: Any) -> httpx.Response:
    data = {"items": items if isinstance(items, str) else json.dumps(items)}
    parts = files if files is not None else {"nothing": b""}
    return client.post("/items", data=data, files=list(parts.items()), headers=headers or AUTHORIZED)


def test_who_has_no_token_changes_nothing(client: httpx.Client, tmp_path: Path, binder: Binder) -> None:
    item = [{"key": "new", "modality": "text", "text": "snow"}]
    assert "--token-file" in told(send(client, item), 403)
    assert "--token-file" in told(client.delete("/items/voice/low"), 403)
    with serving(open_library(tmp_path / "index", binder), token=TOKEN) as one:
        for given in ("", "Bearer", f"Bearer {TOKEN}x".encode(), b"Bearer \xff", b"Basic " + TOKEN.encode()):
            reply = send(one, item, Authorization=given)
            assert "Authorization: Bearer" in told(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer"
            told(one.delete("/items/voice/low", headers={"Authorization": given}), 401)
        assert one.get("/items/voice/low").status_code == 200
        assert send(one, item).status_code == 200
        assert one.delete("/items/voice/low", headers=AUTHORIZED).status_code == 200
        told(one.get("/items/voice/low"), 404)
        told(one.delete("/items/voice/low", headers=AUTHORIZED), 404)


def test_items_are_added_found_updated_and_deleted(tmp_path: Path, binder: Binder) -> None:
    with serving(open_library(tmp_path / "index", binder), token=TOKEN) as one:
        before = one.get("/health").json()
        common = {"modality": "text", "group": "g", "metadata": {"year": 2020, "ok": True, "x": None}}
        items = [{**common, "key": f"new/{key}", "text": f"new {key}"} for key in KEYS]
        items += [
            {"key": "p", "modality": "image", "upload": "picture"}, {"key": "v", "modality": "voice", "upload": "tone"},
            {"key": "o", "modality": "outline", "upload": "series"},
        ]  # fmt: skip
        files = {
            "picture": png((50, 50)),
            "tone": wav(pitch=500),
            "series": npy(np.random.default_rng(1).normal(size=(3, 20))),
        }
        added = send(one, items, files).json()
        assert added["items"] == len(items)
        after = one.get("/health").json()
        assert after["version"] == added["version"] == before["version"] + 4
        assert after["modalities"]["text"]["items"] == before["modalities"]["text"]["items"] + len(KEYS)
        for key in KEYS:
            (hit,) = hits_of(
                post(one, words(f"new {key}", among=["text"], k=1, where="year = 2020 and ok = true and x is null"))
            )
            assert (hit["key"], hit["group"], hit["text"]) == (f"new/{key}", "g", f"new {key}")
        (hit,) = hits_of(
            post(one, {"terms": [{"by": "image", "upload": "f"}], "among": ["image"], "k": 1}, {"f": png((50, 50))})
        )
        assert (hit["key"], hit["group"], hit["path"]) == ("p", "p", None)
        assert one.get(hit["preview"]).content.startswith(b"\x89PNG")
        (hit,) = hits_of(
            post(one, {"terms": [{"by": "voice", "upload": "f"}], "among": ["voice"], "k": 1}, {"f": wav(pitch=500)})
        )
        assert one.get(hit["sound"]).content.startswith(b"RIFF")
        assert send(one, [{"key": "p", "modality": "image", "upload": "f"}], {"f": png(colour=0)}).status_code == 200
        assert one.get("/health").json()["modalities"]["image"]["items"] == 61
        for key in KEYS:
            place = {"params": {"key": f"new/{key}"}} if key in ("../../etc/passwd", "/etc//hosts", ".") else {}
            url = (
                "/items/text/"
                if place
                else "/items/text/" + httpx.URL("/", params={"k": f"new/{key}"}).query.decode()[2:].replace("+", "%20")
            )
            assert one.delete(url, headers=AUTHORIZED, **place).status_code == 200, key
        assert one.get("/health").json()["modalities"]["text"] == before["modalities"]["text"]


def test_what_can_t_be_added_is_refused_and_nothing_of_it_is_added(tmp_path: Path, binder: Binder) -> None:
    with serving(open_library(tmp_path / "index", binder), token=TOKEN) as one:
        before = one.get("/health").json()
        good = {"key": "a", "modality": "text", "text": "snow"}
        cases: list[tuple[Any, int, str]] = [
            ([good, good], 422, "repeat"),
            ([good, {**good, "key": "b", "text": " "}], 422, "items.1: can't be read as text"),
            ([good, {**good, "modality": "lute"}], 422, "no encoder for 'lute'"),
            ([good, {"key": "b", "modality": "image", "text": "/etc/passwd"}], 422, "image is no text"),
            ([good, {"key": "b", "modality": "image", "upload": "f"}], 422, "no picture"),
            ([good, {"key": "b", "modality": "image", "upload": "g"}], 422, "no file 'g'"),
            ([{**good, "upload": "f"}], 422, "exactly one of text and upload"),
            ([{**good, "metadata": {"a": [1]}}], 422, "metadata"),
            ('[{"key": "a", "modality": "text", "text": "x", "metadata": {"a": NaN}}]', 422, "metadata"),
            ([{**good, "path": "/etc/passwd"}], 422, "path: Extra"),
            ([], 422, "at least 1"),
            ([{**good, "key": str(place)} for place in range(257)], 422, "at most 256"),
            ("[" * 9999, 400, "recursion"),
        ]
        for items, status, line in cases:
            assert line in told(send(one, items, {"f": b"junk"}), status)
        assert "expected multipart" in told(one.post("/items", json=[good], headers=AUTHORIZED), 415)
        assert one.get("/health").json() == before


def test_searches_see_each_item_whole_or_not_while_others_are_added(tmp_path: Path, binder: Binder) -> None:
    done = threading.Event()
    problems: list[str] = []

    def look(address: httpx.URL) -> int:
        seen = 0
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as own:
            while not done.is_set():
                for hit in hits_of(post(own, words("new 7", among=["text"], k=20, where="key like 'new %'"))):
                    seen += 1
                    number = hit["key"].removeprefix("new ")
                    same = own.get(hit["preview"] or f"/items/text/{hit['key']}")
                    if (
                        hit["text"] != f"text {number}"
                        or hit["metadata"]["n"] != int(number)
                        or same.status_code != 200
                    ):
                        problems.append(str(hit))
        return seen

    with serving(open_library(tmp_path / "index", binder), token=TOKEN) as one, ThreadPoolExecutor(4) as pool:
        found = [pool.submit(look, one.base_url) for _ in range(4)]
        try:
            for start in range(0, 60, 6):
                numbers = range(start, start + 6)
                items = [
                    {"key": f"new {n}", "modality": "text", "text": f"text {n}", "metadata": {"n": n, "new": True}}
                    for n in numbers
                ]
                assert send(one, items).status_code == 200
                (hit,) = hits_of(post(one, {"terms": [{"key": f"new {start}"}], "among": ["text"], "k": 1}))
                assert hit["text"] == f"text {start}", "what was told to be added is found"
        finally:
            done.set()
        assert all(one.result() > 0 for one in found)
    assert not problems


def test_an_index_that_takes_the_place_of_another_is_served_and_that_of_another_binder_is_not(
    tmp_path: Path, binder: Binder
) -> None:
    folder = tmp_path / "index"
    with serving(open_library(folder, binder), token=TOKEN) as one:
        assert one.get("/health").json()["modalities"]["image"]["items"] == 60
        make_index(tmp_path / "new", binder, limit=20).close()
        replace_index(tmp_path / "new", folder).close()
        assert one.get("/health").json()["modalities"]["image"]["items"] == 20
        assert len(hits_of(post(one, words("snow", among=["image"], k=100)))) == 20
        assert send(one, [{"key": "n", "modality": "text", "text": "snow"}]).status_code == 200
        with Index(folder) as index:
            assert index.store.find("text", ["n"])
        other = make_binder(seed=1)
        make_index(tmp_path / "other", other, limit=10).close()
        replace_index(tmp_path / "other", folder).close()
        for reply in (
            post(one, words("snow")),
            one.get("/health"),
            send(one, [{"key": "n", "modality": "text", "text": "a"}]),
        ):
            assert "can't be served: this index was made by the Binder" in told(reply, 503)
        make_index(tmp_path / "again", binder, limit=10).close()
        replace_index(tmp_path / "again", folder).close()
        assert len(hits_of(post(one, words("snow", among=["image"], k=100)))) == 10


def test_a_damaged_index_is_told_without_its_place(tmp_path: Path, binder: Binder) -> None:
    folder = tmp_path / "index"
    with serving(open_library(folder, binder)) as one:
        assert hits_of(post(one, words("snow")))
        with Index(folder) as index, index.store.changing("note", "", 0) as (db, _):
            db.execute("UPDATE items SET text = 'forged' WHERE modality = 'image'")
        line = told(post(one, words("snow", among=["image"])), 503)
        assert "the index index is damaged" in line
        assert str(tmp_path) not in line
        assert hits_of(post(one, words("snow", among=["voice"])))
