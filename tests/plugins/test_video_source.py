"""The pairing source ``video``: windows of video files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmssl_video import container, open_video
from multimodal_ssl import Catalog, InputError, LazyItem, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.testing import check_pairing_source

from ..toys import present, refusal
from .films import RATE, film, read_wave, second_heard, time_seen, write

ALL: dict[str, Any] = {"length": 1.0, "sound": "sound", "frames": 5}


class Films(MapSource):
    """Films in memory, by their names."""

    def __init__(self, films: dict[str, Any], **others: Any) -> None:
        self.films, self.others = films, others
        self.modalities = {"video": "video", **dict.fromkeys(others, "text")}

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> Sample:
        key = list(self.films)[index]
        return Sample(key, {"video": self.films[key], **self.others}, metadata={"licence": "x"})


class Stream(PairingSource):
    """The same, one after the other."""

    def __init__(self, source: MapSource) -> None:
        self.source, self.modalities = source, source.modalities

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.source)


class Member(LazyItem):
    """What is read when it is used; None is gone by then."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def read(self) -> bytes:
        if self.data is None:
            raise ValueError("the archive has changed")
        return self.data


@pytest.fixture(scope="module")
def four() -> bytes:
    return film(4.0)


def open_films(films: dict[str, Any], **options: Any) -> MapSource:
    source = open_video(source=Films(films), **{**ALL, **options})
    assert isinstance(source, MapSource)
    return source


def reason(sample: Sample, name: str) -> str:
    with pytest.raises(UnreadableError) as caught:
        sample.items[name]
    assert caught.value.key == sample.key
    return caught.value.reason


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("offset", [0.0, 1.0, -2.0])
def test_pictures_and_sound_of_a_window_are_of_the_same_time(kind: str, offset: float) -> None:
    source = open_films({"a": film(4.0, container=kind)}, offset=offset, frame="middle")
    check_pairing_source(source)
    first = max(0, round(-offset))
    assert next(iter(source)).key == f"a@{first}-{first + 1}"
    assert len(source) == 4 - abs(offset)
    for row, sample in enumerate(source):
        start = first + row
        seen = [time_seen(one, 4.0) for one in sample.items["clip"]]
        # A picture stands for 1/25 s: what is seen is up to that much older than the time asked for.
        assert np.allclose(seen, start + (np.arange(5) + 0.5) / 5 - 0.02, atol=0.05)
        assert time_seen(sample.items["middle"], 4.0) == pytest.approx(start + 0.48, abs=0.05)
        assert second_heard(sample.items["sound"], 0.1, 0.9) == start + offset
        samples, rate = read_wave(sample.items["sound"])
        assert (len(samples), rate) == (RATE, RATE)


def test_the_tone_changes_at_its_sample(four: bytes) -> None:
    (sample,) = open_video(source=Films({"a": four}), length=None, sound="sound")
    whole, _ = read_wave(sample.items["sound"])
    for row, sample in enumerate(open_films({"a": four}, length=0.9, stride=0.7)):
        part, _ = read_wave(sample.items["sound"])
        begin = round(0.7 * row * RATE)
        assert np.abs(part - whole[begin : begin + len(part)]).max() < 1e-3


def test_windows_go_by_length_and_stride(four: bytes) -> None:
    films = {"a": four, "b": film(0.6)}
    keys = [sample.key for sample in open_films(films, length=1.5, stride=0.5)]
    assert keys == ["a@0-1.5", "a@0.5-2", "a@1-2.5", "a@1.5-3", "a@2-3.5", "a@2.5-4", "b@0-0.6"]
    assert [sample.key for sample in open_films(films, length=None)] == ["a@0-4", "b@0-0.6"]
    assert [sample.key for sample in open_films({"a": four}, length=1.7)] == ["a@0-1.7", "a@1.7-3.4"]


def test_scenes_are_cut_where_pictures_change_and_at_length() -> None:
    data = film(4.0, grey=lambda time: 0 if time < 1 else 120 if time < 3.2 else 30)
    assert [sample.key for sample in open_films({"a": data}, length=1.5, scenes=0.1)] == ["a@0-1", "a@1-2.5", "a@3.2-4"]
    assert [sample.key for sample in open_films({"a": data}, length=None, scenes=0.1)] == [
        "a@0-1",
        "a@1-3.2",
        "a@3.2-4",
    ]


def test_groups_metadata_and_other_items_are_those_of_the_file(four: bytes) -> None:
    films = Films({"a": four, "b": four}, text="a sentence")
    source = open_video(source=films, **ALL)
    assert isinstance(source, MapSource)
    group = source.manifest().group
    assert group is not None
    assert {sample.group for sample in source} == {"a", "b"}
    assert (group[:4] == group[0]).all()
    assert group[0] != group[4]
    assert source[0].items["text"] == "a sentence"
    assert source[0].metadata == {"licence": "x"}
    assert source.modalities == {"clip": "video", "sound": "audio", "text": "text"}
    alone = open_video(source=films, **ALL, group="none")
    assert isinstance(alone, MapSource)
    assert alone.manifest().group is None
    assert {sample.group for sample in alone} == {""}


def test_what_is_not_asked_for_is_not_decoded_and_a_file_is_read_once(
    four: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = open_films({"a": four}, frame="middle")[1]
    opens = []
    monkeypatch.setattr(
        av, "open", lambda *given, _open=av.open, **options: opens.append(1) or _open(*given, **options)
    )
    assert set(sample.items) == {"clip", "middle", "sound"}
    copy = pickle.loads(pickle.dumps(sample))
    assert not opens
    for name in ("clip", "middle", "sound", "clip"):
        assert sample.items[name] is not None
    assert len(opens) == 1
    assert copy.items["sound"] == sample.items["sound"]
    assert np.array_equal(copy.items["clip"], sample.items["clip"])
    assert len(pickle.dumps(sample)) == len(pickle.dumps(copy))


def test_every_kind_of_item_and_a_stream_give_the_same(four: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", four)
    wanted = [sample.items["sound"] for sample in open_films({"a": four})]
    for item in (path, str(path), Member(four)):
        assert [sample.items["sound"] for sample in open_films({"a": item})] == wanted
    stream = open_video(source=Stream(Films({"bad": b"x", "a": four})), **ALL)
    check_pairing_source(stream)
    assert [sample.items["sound"] for sample in stream] == wanted
    assert [sample.key for sample in stream.read(0, 2)] == ["a@2-3", "a@3-4"]
    told = stream.skipped
    for _ in range(2):
        list(stream)
        assert [place for place, _ in told] == ["bad"]  # one list for ever, however often the stream is read
        assert told[0] == told[-1]
    assert open_films({"gone": Member(None), "a": four}).skipped == [("gone", "the archive has changed")]


def test_pictures_are_of_the_size_asked_for(four: bytes) -> None:
    assert open_films({"a": four}, size=32)[0].items["clip"].shape == (5, 32, 48, 3)
    assert open_films({"a": four})[0].items["clip"].shape == (5, 64, 96, 3)


def test_pictures_that_come_unevenly_are_those_seen_at_the_time() -> None:
    data = film(3.0, container="mkv", every=lambda frame: frame < 10 or frame % 10 == 0)
    source = open_films({"a": data}, length=1.0, frames=5)
    seen = [time_seen(one, 3.0) for one in source[1].items["clip"]]
    assert np.allclose(seen, [0.8, 1.2, 1.2, 1.6, 1.6], atol=0.03)


def test_words_come_from_the_film_or_from_a_file_beside_it() -> None:
    words = [(0.2, 0.9, "<i>one</i>"), (2.1, 2.8, "three")]
    inside = open_films({"a": film(3.0, container="mkv", words=words)}, subtitles="text")
    check_pairing_source(inside)
    assert [sample.items.get("text") for sample in inside] == ["one", None, "three"]
    srt = b"1\n00:00:01,100 --> 00:00:01,900\ntwo\n\nx --> y\nodd\n"
    for item in (srt, Member(srt)):
        source = open_video(source=Films({"a": film(3.0)}, srt=item), **ALL, subtitles="text", subtitles_from="srt")
        assert isinstance(source, MapSource)
        check_pairing_source(source)
        assert [sample.items.get("text") for sample in source] == [None, "two", None]
        assert [where for where, _ in source.skipped] == ["a, subtitles, line 5"]


def test_a_film_without_sound_lacks_it_in_the_manifest(four: bytes) -> None:
    source = open_films({"a": four, "silent": film(2.0, sound=False)})
    check_pairing_source(source)
    assert [present(source, row) for row in (0, 4)] == [{"clip", "sound"}, {"clip"}]


def huge(side: int) -> bytes:
    """Return a film whose header tells of pictures of so many pixels a side."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((256, 320, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    data = buffer.getvalue()
    for mark, size in ((b"\xb0\x82", 320), (b"\xba\x82", 256)):  # PixelWidth and PixelHeight, of two bytes
        assert data.count(mark + size.to_bytes(2)) == 1
        data = data.replace(mark + size.to_bytes(2), mark + side.to_bytes(2))
    return data


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def test_files_that_can_t_be_used_are_left_out_and_told(
    four: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = {
        "good": four, "cut": four[: len(four) // 2], "text": b"a text\n" * 99, "empty": b"", "zeros": bytes(9999),
        "playlist": write(tmp_path / "list.mp4", PLAYLIST), "gone": tmp_path / "gone.mp4", "odd": 7,
            "huge": huge(9000), "absurd": huge(20000),
    }  # fmt: skip
    monkeypatch.setattr(container, "MAX_DURATION", 10.0)
    source = open_films({**films, "long": film(11.0)})
    assert {sample.key.partition("@")[0] for sample in source} == {"good"}
    told = dict(source.skipped)
    assert set(told) == {*films, "long"} - {"good"}
    assert "9000 x 9000; the limit is" in told["huge"]
    assert "gives its pictures no size" in told["absurd"]
    assert "between 0 and 10 s" in told["long"]
    assert "there is no file" in told["gone"]
    assert "not a int" in told["odd"]
    assert all("can't be read as video" in told[name] for name in ("cut", "text", "empty", "zeros", "playlist"))


def test_a_film_that_ends_before_its_header_says_is_unreadable_there(four: bytes) -> None:
    mkv = film(4.0, container="mkv")
    source = open_films({"a": mkv[: len(mkv) // 2]})
    assert len(source) == 4
    assert source[0].items["clip"].shape[0] == 5
    why = reason(source[3], "clip")
    assert "pictures end at" in why or "can't be decoded" in why or "can't be read" in why
    assert reason(source[3], "sound")


def test_damaged_bytes_never_end_in_another_error(four: bytes) -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(four)
        for place in rng.integers(0, len(data), 30):
            data[place] = rng.integers(256)
        try:
            source = open_films({"a": bytes(data)})
        except InputError:
            continue
        for row in range(min(len(source), 6)):
            try:
                sample = source[row]
                for name in sample.items:
                    sample.items[name]
            except UnreadableError:
                continue


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"item": "vidoe"}, "no 'vidoe': did you mean 'video'?"),
        ({"clip": None, "sound": None}, "name at least one of clip"),
        ({"subtitles_from": "text"}, "give `subtitles`"),
        ({"sound": None, "offset": 1.0}, "give its name, such as audio"),
        ({"length": None, "stride": 1.0}, "give `length` too"),
        ({"clip": "text"}, "'text' is given twice"),
        ({"offset": 9.0}, "it lasts 4.000 s, too short for sound that is 9 s off"),
    ],
)
def test_options_that_can_t_be_are_told(four: bytes, options: dict[str, Any], expected: str) -> None:
    source = Films({"a": four}, text="x")
    assert expected in refusal(lambda: open_video(source=source, **{**ALL, **options}))


def test_it_wraps_a_folder_by_its_config(four: bytes, tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.mp4", four)
    write(tmp_path / "d" / "a.srt", b"1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    folder = {"name": "folder", "path": str(tmp_path / "d"), "items": {"video": ".mp4", "srt": ".srt"}}
    options = {"source": folder, "length": 2, "subtitles": "text", "subtitles_from": "srt", "sound": "audio"}
    source = Catalog.discover().create("pairing_sources", "video", options=options)
    check_pairing_source(source)
    assert source[0].items["text"] == "Hello"
    copy = pickle.loads(pickle.dumps(source))
    assert [sample.key for sample in copy] == ["a@0-2", "a@2-4"]
