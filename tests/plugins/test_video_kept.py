"""The option ``keep`` of the pairing source ``video``: a window is decoded once."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmssl_video import keeping, open_video
from mmssl_video.decoding import decode
from multimodal_ssl import MapSource, UnreadableError
from multimodal_ssl.testing import check_pairing_source

from ..toys import refusal
from .films import film, write
from .test_video_source import Films, Member

ALL: dict[str, Any] = {"length": 1.0, "sound": "sound", "frames": 5, "frame": "middle"}


@pytest.fixture(scope="module")
def two() -> bytes:
    return film(2.0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the windows that were decoded so far."""
    windows: list[Any] = []

    def counting(media: Any, window: Any) -> Any:
        windows.append(window)
        return decode(media, window)

    monkeypatch.setattr(keeping, "decode", counting)
    return windows


def open_kept(folder: Path, films: dict[str, Any], **options: Any) -> MapSource:
    source = open_video(source=Films(films), keep=folder, **{**ALL, **options})
    assert isinstance(source, MapSource)
    return source


def items(source: MapSource) -> list[dict[str, Any]]:
    return [dict(sample.items) for sample in source]


def same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return len(a) == len(b) and all(
        one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
        for one, two in zip(a, b, strict=True)
    )


def test_a_window_is_decoded_once_and_read_as_it_was(two: bytes, tmp_path: Path, decoded: list[Any]) -> None:
    plain = open_video(source=Films({"a": two}), **ALL)
    assert isinstance(plain, MapSource)
    source = open_kept(tmp_path / "new" / "kept", {"a": two})
    assert same(items(source), items(plain))
    assert len(decoded) == 2
    assert same(items(source), items(plain))
    assert same(items(pickle.loads(pickle.dumps(source))), items(plain))
    assert same(items(open_kept(tmp_path / "new" / "kept", {"other": Member(two)})), items(plain))
    assert len(decoded) == 2
    check_pairing_source(source)


@pytest.mark.parametrize(
    "options",
    [{"frames": 4}, {"size": 32}, {"length": 0.9}, {"offset": 0.1}, {"frame": None}, {"clip": None}],
    ids=lambda one: next(iter(one)),
)
def test_another_window_is_another(two: bytes, tmp_path: Path, options: dict[str, Any]) -> None:
    items(open_kept(tmp_path, {"a": two}))
    plain = open_video(source=Films({"a": two}), **{**ALL, **options})
    assert isinstance(plain, MapSource)
    assert same(items(open_kept(tmp_path, {"a": two}, **options)), items(plain))


def test_sound_alone_is_kept_beside_sound_with_pictures(two: bytes, tmp_path: Path, decoded: list[Any]) -> None:
    source = open_kept(tmp_path, {"a": two})
    heard = source[0].items["sound"]
    assert [window.times for window in decoded] == [[]]
    assert source[0].items["clip"].shape[0] == 5
    assert source[0].items["sound"] == heard
    assert len(decoded) == 2


def test_a_file_that_was_changed_is_decoded_anew(two: bytes, tmp_path: Path, decoded: list[Any]) -> None:
    path = write(tmp_path / "a.mp4", two)
    before = items(open_kept(tmp_path / "kept", {"a": path}))
    items(open_kept(tmp_path / "kept", {"a": str(path)}))
    assert len(decoded) == 2
    write(path, film(2.0, grey=lambda _: 90))
    os.utime(path, (1, 1))
    assert not same(items(open_kept(tmp_path / "kept", {"a": path})), before)
    assert len(decoded) == 4


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: data[:900] + b"\x55" * 90 + data[990:]],
    ids=["cut", "empty", "overwritten"],
)
def test_what_was_damaged_is_decoded_anew(
    two: bytes, tmp_path: Path, decoded: list[Any], damage: Callable[[bytes], bytes]
) -> None:
    before = items(open_kept(tmp_path, {"a": two}))
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(damage(path.read_bytes()))
    assert same(items(open_kept(tmp_path, {"a": two})), before)
    assert len(decoded) == 4
    items(open_kept(tmp_path, {"a": two}))
    assert len(decoded) == 4


def test_what_can_t_be_decoded_is_not_kept(tmp_path: Path, decoded: list[Any]) -> None:
    whole = film(4.0, container="mkv")
    source = open_kept(tmp_path, {"a": whole[: len(whole) // 2]})
    for _ in range(2):
        with pytest.raises(UnreadableError):
            source[3].items["clip"]
    assert len(decoded) == 2
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]
    assert source[0].items["clip"].shape[0] == 5
    assert [one.suffix for one in tmp_path.rglob("*") if one.is_file()] == [".npz"]


def test_a_folder_that_can_t_be_is_told(two: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = refusal(lambda: open_kept(tmp_path / "file" / "kept", {"a": two}))
    assert "can't be kept in" in told
    assert "give another folder with keep: FOLDER" in told
