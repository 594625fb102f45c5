"""What the server answers."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import multimodal_ssl
from multimodal_ssl import Index, Term
from multimodal_ssl.binder import Binder

from .serving import (
    KEYS,
    glyphs,
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

WORDS = ["leftwards arrow", "circled letter r", "snowman", "odd 3", "greek small letter alpha", "box drawings heavy"]


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
    more = {"among": ["image", "outline"], "csls": True}
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
