"""What changes the index that is served."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from multimodal_ssl import Index
from multimodal_ssl.binder import Binder
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import StorageError
from multimodal_ssl.index import replace_index

from .serving import (
    AUTHORIZED,
    KEYS,
    TOKEN,
    hits_of,
    make_binder,
    make_index,
    npy,
    open_library,
    png,
    post,
    send,
    serving,
    told,
    wav,
    words,
)


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


@pytest.mark.parametrize("moment", ["before", "between", "after", "away"])
def test_a_change_is_in_the_index_that_takes_the_place_of_another_meanwhile(
    tmp_path: Path, binder: Binder, moment: str
) -> None:
    folder, new = tmp_path / "index", tmp_path / "new"
    make_index(new, binder, limit=10).close()
    library, seen = open_library(folder, binder), []
    library.index.add("text", Embedded(unit_vectors(1, binder.dim), ["first"], ["first"]))  # it is open for writing

    def add(index: Index) -> int:
        seen.append(index)
        if len(seen) == 1 and moment == "before":
            replace_index(new, folder).close()
        index.add("text", Embedded(unit_vectors(2, binder.dim), ["a", "b"], ["a", "b"]), update=True)
        if len(seen) == 1 and moment == "between":
            replace_index(new, folder).close()
        index.add("text", Embedded(unit_vectors(1, binder.dim), ["c"], ["c"]), update=True)
        if len(seen) == 1 and moment == "after":
            replace_index(new, folder).close()
        elif len(seen) == 1 and moment == "away":
            folder.rename(tmp_path / "old")
            threading.Timer(0.2, new.rename, [folder]).start()
        return index.store.version()

    library.change(add)
    library.close()
    assert len(seen) == 2
    with Index(folder) as index:
        assert index.counts["image"] == 10
        assert sorted(index.store.find("text", ["a", "b", "c", "first"])) == ["a", "b", "c"]


def test_a_change_of_an_index_that_is_gone_is_told(tmp_path: Path, binder: Binder) -> None:
    library = open_library(tmp_path / "index", binder)
    with pytest.raises(StorageError, match="there is no index in"):
        library.change(lambda _: (tmp_path / "index").rename(tmp_path / "old"))
    library.close()


def unit_vectors(count: int, dim: int) -> np.ndarray:
    return np.eye(dim, dtype=np.float32)[:count]


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
