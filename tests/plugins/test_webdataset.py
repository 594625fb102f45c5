"""The pairing source ``webdataset``: at random and as a stream, the same samples."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import mmssl_sources
from mmssl_sources import webdataset
from mmssl_sources.webdataset import TarStream, WebDataset
from multimodal_ssl import (
    BrokenItem,
    Catalog,
    InputError,
    LazyItem,
    MapSource,
    PairingSource,
    Sample,
    UnreadableError,
)
from multimodal_ssl.data import Batch, Feed, Supply, batches
from multimodal_ssl.plan import Plan
from multimodal_ssl.stream_order import START, Cursor, stream_batches
from multimodal_ssl.testing import check_pairing_source

from ..test_data import Jitter, same
from ..toys import NUMBER

CATALOG = Catalog.of(sources=mmssl_sources)
PAIR: dict[str, Any] = {"items": {"image": ["jpg", "png"], "text": "txt"}}
Entries = Sequence[tuple[str, bytes]]


def write(path: Path, entries: Entries) -> Path:
    """Write an archive; one whose name ends in .gz is compressed."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, body in entries:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def create(path: Any, **options: Any) -> PairingSource:
    return CATALOG.create("pairing_sources", "webdataset", options={"path": path, **PAIR, **options})


def both(path: Path, **options: Any) -> tuple[WebDataset, TarStream]:
    source, stream = create(str(path), **options), create(str(path), stream=True, **options)
    assert isinstance(source, WebDataset)
    assert isinstance(stream, TarStream)
    return source, stream


def read(source: PairingSource, samples: Iterator[Sample] | None = None) -> list[Sample]:
    """Return samples whose items are read."""
    return [
        Sample(
            one.key,
            {name: item.read() if isinstance(item, LazyItem) else item for name, item in one.items.items()},
            one.group,
            one.weight,
            one.metadata,
        )
        for one in (source if samples is None else samples)
    ]


def pairs(first: int, last: int) -> list[tuple[str, bytes]]:
    return [(f"d/{i:03}.{end}", f"{end}{i}".encode()) for i in range(first, last) for end in ("jpg", "txt")]


def reference(path: Path, extensions: dict[str, str]) -> list[dict[str, bytes]]:
    """Group members as the library webdataset does: by the name up to the first dot of its base."""
    found: list[tuple[str, str, bytes]] = []
    with tarfile.open(path) as tar:
        for one in tar:
            folder, slash, base = one.name.rpartition("/")
            first, dot, extension = base.partition(".")
            file = tar.extractfile(one) if one.isreg() and first and dot else None
            if file is not None:
                found.append((folder + slash + first, extension.lower(), file.read()))
    groups = [list(some) for _, some in itertools.groupby(found, key=lambda one: one[0])]
    samples = [{extensions[e]: body for _, e, body in some if e in extensions} for some in groups]
    return [one for one in samples if one]


def test_members_of_one_name_are_one_sample_as_in_the_library(tmp_path: Path) -> None:
    entries = [
        ("./._a.jpg", b"mac"), ("./a.jpg", b"1"), ("./._a.txt", b"mac"), ("./README", b"r"), ("./a.txt", b"2"),
        ("a.b/c.d.jpg", b"other"), ("a.b/c.JPG", b"3"), ("a.b/c.jpg.jpg", b"x"), ("e.txt", b"4"), ("f.csv", b"5"),
        ("g.png", b""), ("g.txt", b"6"), ("ü/é.jpg", b"7"), ("ü/é.txt", b"8"),
    ]  # fmt: skip
    source, stream = both(write(tmp_path / "t.tar", entries))
    check_pairing_source(source)
    check_pairing_source(stream)
    assert read(source) == read(stream)
    assert source.skipped == stream.skipped == []
    expected = reference(tmp_path / "t.tar", {"jpg": "image", "png": "image", "txt": "text"})
    assert [one.items for one in read(source)] == expected
    assert [one.key for one in source] == ["t/./a", "t/a.b/c", "t/e", "t/g", "t/ü/é"]
    for one in (source, stream):
        assert read(pickle.loads(pickle.dumps(one))) == read(source)


def test_json_gives_texts_groups_and_metadata_and_what_is_wrong_with_it_costs_its_sample(tmp_path: Path) -> None:
    bad = [b"{broken", b"[1]", b"[" * 100_000, b'{"c": "\\ud83d"}', b'{"c": null}', b'{"c": "x", "g": [1]}', b"\xff"]
    some = [b'\xef\xbb\xbf{"c": "cat", "g": 7, "tags": [1]}', *bad, b'{"c": "dog"}', b'{"c": 3, "g": "7"}']
    entries = [(f"{i}.{e}", body) for i, one in enumerate(some) for e, body in (("jpg", b"x"), ("json", one))]
    entries += [("bare.jpg", b"y"), ("lone.json", b'{"c": "lone"}')]
    options: dict[str, Any] = {"fields": {"text": "c"}, "group": "g", "metadata": ["tags"], "items": {"image": "jpg"}}
    source, stream = both(write(tmp_path / "t.tar", entries), **options)
    readable = [one for one in stream if not isinstance(one.items.get("text"), BrokenItem)]
    assert read(source) == read(stream, iter(readable))
    assert [(one.items.get("text"), one.group) for one in read(source)] == [
        ("cat", "7"), ("dog", ""), ("3", "7"), (None, ""), ("lone", ""),
    ]  # fmt: skip
    assert source[0].metadata == {"tags": "[1]"}
    for row, one in enumerate(itertools.islice(stream, 8)):
        if row:
            with pytest.raises(UnreadableError) as told:
                source[row]
            with pytest.raises(ValueError) as also:  # noqa: PT011 - what it says is compared
                one.items["image"].read()
            assert told.value.reason == str(also.value)
    group = source.manifest().group
    assert group is not None
    assert group[0] == group[9]
    assert len(set(group.tolist())) == len(source) - 1
    only, also_only = both(tmp_path / "t.tar", items={"image": "jpg"}, metadata=["tags"])
    assert len(only) == 11
    assert ("t/lone", "there is nothing but its JSON") in only.skipped
    assert len(list(also_only)) == 11


def test_names_that_come_again_have_keys_of_their_own_and_doubled_parts_are_told(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "a.jpg", "a#2.jpg", "b.jpg", "a.jpg", "a.png", "a.jpg"]
    source, stream = both(write(tmp_path / "t.tar", [(name, b"x") for name in names]))
    keys = [one.key for one in source]
    assert len(set(keys)) == len(keys) == 6
    assert keys[:3] == ["t/a", "t/b", "t/a#2"]
    assert [one.key for one in stream] == keys
    assert source.skipped == stream.skipped
    assert [place for place, _ in source.skipped] == ["t/a.png", "t/a.jpg"]


def test_attacks_are_told_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "LARGEST", 1000)
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("l.txt", tarfile.SYMTYPE), ("h.txt", tarfile.LNKTYPE), ("p.txt", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, size in (("../o.txt", 1), ("/o.txt", 1), ("a.pyd", 1), ("a.x.pth", 1), ("a.pkl", 1), ("a.txt", 2000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
        info = tarfile.TarInfo("a.jpg")
        tar.addfile(info)
    source, stream = both(path)
    assert [one.key for one in source] == [one.key for one in stream] == ["t/a"]
    assert source.skipped == stream.skipped
    assert len(source.skipped) == 9
    assert os.listdir(tmp_path) == ["t.tar"]
    assert not (tmp_path.parent / "o.txt").exists()


def test_a_bomb_as_a_compressed_shard_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "LARGEST", 1 << 20)
    write(tmp_path / "t.tar.gz", [("a.txt", bytes(1 << 26)), ("b.txt", b"b")])
    tracemalloc.start()
    assert [one.key for one in create(str(tmp_path / "t.tar.gz"))] == ["t/b"]
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz"])
def test_a_shard_may_be_entered_at_any_sample(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "t.tar", pairs(0, 9))
    path = tmp_path / f"t.{suffix}"
    if suffix != "tar":
        path.write_bytes(gzip.compress((tmp_path / "t.tar").read_bytes()))
    stream = create(str(path), stream=True)
    whole = read(stream)
    assert len(whole) == 9
    for start in range(11):
        assert read(stream, stream.read(0, start)) == whole[start:]
    opened = stream.read(0, 0)
    next(opened)
    opened.close()  # type: ignore[attr-defined]  # it is a generator
    assert read(stream) == whole


@pytest.mark.parametrize("cut", [100, 1500, 3000, 5000])
def test_archives_that_are_cut_off_give_what_is_whole(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "t.tar", pairs(0, 9))
    body = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "c.tar").write_bytes(body[:cut])
    source, stream = both(tmp_path / "*.tar")
    assert read(source) == read(stream)
    assert source.skipped
    assert stream.skipped
    (tmp_path / "z.tar.gz").write_bytes(gzip.compress(body, 0)[:cut])
    broken = create(str(tmp_path / "z.tar.gz"))
    found = read(broken)
    assert [one.items for one in found] == [one.items for one in read(source) if one.key.startswith("t/")][: len(found)]
    assert "the archive is broken" in dict(broken.skipped)["z"]


def test_an_archive_that_changed_after_it_was_opened_is_told(tmp_path: Path) -> None:
    source, _ = both(write(tmp_path / "t.tar", pairs(0, 9)))
    for body in (b"", (tmp_path / "t.tar").read_bytes()[512:]):
        (tmp_path / "t.tar").write_bytes(body)
        with pytest.raises(ValueError, match="has changed since it was opened"):
            source[5].items["image"].read()


@pytest.mark.parametrize("shards", [1, 3, 11])
def test_every_sample_comes_once_an_epoch_and_any_cursor_goes_on(tmp_path: Path, shards: int) -> None:
    for i in range(shards):
        entries = [one for one in pairs(i * 10, i * 10 + 8) if one[0] != f"d/{i * 10:03}.txt"]
        rare = [(f"d/r{i}.{end}", b"x") for end in ("jpg", "txt", "json")]
        write(tmp_path / f"{i:02}.tar", [*entries, *rare])
    source = create(str(tmp_path / "*.tar"), stream=True, items={**PAIR["items"], "more": "json"})
    names, total = ["image", "text", "more"], shards * 8
    steps = 3 * total

    def run(cursor: Cursor, count: int) -> list[tuple[Any, list[str], Cursor]]:
        order = stream_batches(source, names, batch=1 if shards == 1 else 3, seed=(1, 0), buffer=16, cursor=cursor)
        return [(kind, [one.key for one in some], after) for kind, some, after in itertools.islice(order, count)]

    whole = run(START, steps)
    for at in range(0, steps - 5, 5):
        cursor = Cursor.parse(json.loads(json.dumps(whole[at][2])))
        assert run(cursor, 4) == whole[at + 1 : at + 5]
    if shards == 1:
        keys = [key for _, some, _ in whole for key in some]
        assert all(len(set(keys[i : i + total])) == total for i in range(0, len(keys), total))


def read_batches(source: PairingSource, workers: int) -> list[Batch]:
    supplies = [Supply(source, ("image", "text"))]
    feed = Feed(supplies, {n: Jitter() for n in ("image", "text")}, dict.fromkeys(("image", "text"), NUMBER), seed=1)
    return list(batches(feed, Plan(supplies, batch=4, seed=1).tickets(start=0, stop=6), workers=workers))


def test_more_workers_than_shards_give_the_same_batches(tmp_path: Path) -> None:
    entries = [(f"{i}.{end}", str(i).encode()) for i in range(12) for end in ("jpg", "txt")]
    for source in both(write(tmp_path / "t.tar", entries)):
        alone = read_batches(source, 0)
        assert all(len(one.keys) == 4 for one in alone)
        assert same(alone, read_batches(source, 3))


def test_a_shard_without_a_sample_is_told_and_nothing_but_such_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("x.csv", b""), ("y.jpeg", b"")])
    write(tmp_path / "b.tar", pairs(0, 2))
    source, stream = both(tmp_path / "*.tar")
    assert isinstance(source, MapSource)
    assert read(source) == read(stream)
    assert source.skipped == stream.skipped == [("a", "it holds no sample")]
    with pytest.raises(InputError, match=r"no member of the extensions jpg, png, txt; what it has: 1 csv, 1 jpeg"):
        create(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"items": {"image": "pkl"}}, "pickles are never loaded"),
        ({"items": {"image": ["jpg", ".JPG"]}}, "the extension '.JPG' is given twice"),
        ({"items": {}}, "items is empty"),
        ({"fields": {"text": "c"}}, "'text' is given by items and by fields"),
        ({"modalities": {"imgae": "image"}}, "did you mean 'image'?"),
        ({"path": "nowhere.tar"}, "there is no file nowhere.tar"),
        ({"path": "nowhere-*.tar"}, "no file matches"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    path = write(tmp_path / "t.tar", pairs(0, 1))
    with pytest.raises(InputError) as error:
        create(**{"path": str(path), **options})
    assert expected in str(error.value)
