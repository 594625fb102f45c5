"""The pairing source ``folder``."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from multimodal_ssl import Catalog, InputError, MapSource
from multimodal_ssl.errors import UnreadableError
from multimodal_ssl.testing import check_pairing_source

from ..toys import present

PAIRS: dict[str, Any] = {"items": {"image": [".jpg", ".png"], "text": ".txt"}}


def open_folder(path: Path, **options: Any) -> MapSource:
    source = Catalog.discover().create("pairing_sources", "folder", options={"path": str(path), **options})
    assert isinstance(source, MapSource)
    return source


def make(root: Path, *names: str) -> Path:
    """Write files: pictures, JSON and texts that say their own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            Image.new("L", (8, 8)).save(path)
        else:
            path.write_text(json.dumps({"caption": name, "year": 2020}) if path.suffix == ".json" else name)
    return root


def read(source: MapSource) -> dict[str, dict[str, Any]]:
    return {sample.key: dict(sample.items) for sample in source}


def test_files_that_differ_in_their_suffix_alone_are_one_sample(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "b/1.png", "b/1.txt", "a.jpg", "a.txt", "b/2.JPG", "lone.txt", "other.csv", "c.x.jpg")
    source = open_folder(root, **PAIRS)
    check_pairing_source(source)
    assert read(source) == {
        "a": {"image": root / "a.jpg", "text": root / "a.txt"},
        "b/1": {"image": root / "b/1.png", "text": root / "b/1.txt"},
        "b/2": {"image": root / "b/2.JPG"},
        "c.x": {"image": root / "c.x.jpg"},
        "lone": {"text": root / "lone.txt"},
    }
    assert source.modalities == {"image": "image", "text": "text"}
    assert not source.skipped
    assert read(pickle.loads(pickle.dumps(source))) == read(source)
    assert list(read(open_folder(root, **PAIRS, limit=2))) == ["a", "b/1"]


def test_the_longer_suffix_counts_and_names_may_share_a_modality(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "1.front.jpg", "1.back.jpg", "1.jpg", "1.txt")
    items = {"front": ".front.jpg", "back": ".back.jpg", "text": ".txt"}
    source = open_folder(root, items=items, modalities={"front": "image", "back": "image"})
    assert read(source) == {"1": {"front": root / "1.front.jpg", "back": root / "1.back.jpg", "text": root / "1.txt"}}
    assert source.modalities == {"front": "image", "back": "image", "text": "text"}


def test_the_name_of_the_folder_is_a_text_and_its_samples_are_one_group(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "red_apple/1.jpg", "red_apple/2.jpg", "x/green-pear/1.jpg", "lone.jpg")
    source = open_folder(root, items={"image": ".jpg"}, label="text")
    check_pairing_source(source)
    samples = {sample.key: sample for sample in source}
    assert {key: sample.items.get("text") for key, sample in samples.items()} == {
        "lone": None, "red_apple/1": "red apple", "red_apple/2": "red apple", "x/green-pear/1": "green pear",
    }  # fmt: skip
    assert [sample.group for sample in samples.values()] == ["", "red_apple", "red_apple", "x/green-pear"]
    pairs = make(tmp_path / "e", "p/1.jpg", "p/1.txt", "p/2.jpg", "p/2.txt")
    assert [sample.group for sample in open_folder(pairs, **PAIRS)] == ["", ""]
    assert [sample.group for sample in open_folder(pairs, **PAIRS, group="folder")] == ["p", "p"]


def test_json_beside_a_file_gives_texts_and_metadata(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "1.jpg", "1.json", "2.jpg", "3.jpg", "3.json", "4.jpg", "4.json", "5.jpg", "5.json")
    (root / "1.json").write_text(json.dumps({"caption": "a cat", "year": 2020, "tags": ["x"]}), encoding="utf-8-sig")
    (root / "3.json").write_text("{broken")
    (root / "4.json").write_text("[1]")
    (root / "5.json").write_text(json.dumps({"title": "no caption"}))
    source = open_folder(
        root, items={"image": ".jpg"}, fields={"text": "caption"}, metadata=["year", "tags", "missing"]
    )
    assert source[0].items["text"] == "a cat"
    assert source[0].metadata == {"year": 2020, "tags": '["x"]', "missing": None}
    assert source[1].metadata == {"year": None, "tags": None, "missing": None}
    assert present(source, 1) == {"image"}
    for row, reason in (
        (2, "3.json can't be read: Expecting"),
        (3, "4.json can't be read: it is no JSON object, but '[1]'"),
    ):
        with pytest.raises(UnreadableError, match=reason.replace("[", r"\[")):
            source[row]
    with pytest.raises(UnreadableError, match=r"no text in 'caption' .*fields: title"):
        source[4]
    assert list(read(source)) == ["1", "2"]


def test_json_beside_no_file_is_told_unless_it_holds_an_item(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "1.jpg", "1.json", "2.json", "3.JSON")
    for path in root.iterdir():
        path.write_text('{"caption": "a cat", "year": 2020}')
    source = open_folder(root, items={"image": ".jpg"}, metadata=["year"])
    assert list(read(source)) == ["1"]
    reason = "there is nothing but its JSON"
    assert sorted(source.skipped) == [("2.json", reason), ("3.JSON", reason)]
    source = open_folder(root, items={"image": ".jpg"}, fields={"text": "caption"})
    assert list(read(source)) == ["1", "2", "3"]
    assert not source.skipped
    (root / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"no file that ends in \.jpg; what it has: 2 \.json, 1 \.JSON"):
        open_folder(root, items={"image": ".jpg"}, metadata=["year"])


def test_what_is_hidden_doubled_or_leads_out_is_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path / "outside", "secret.txt", "more/1.jpg")
    root = make(tmp_path / "d", "1.jpg", "1.png", "1.txt", ".hidden.jpg", ".git/2.jpg", "._1.jpg")
    (root / "secret.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (root / "more").symlink_to(tmp_path / "outside" / "more")
    (root / "loop").symlink_to(root)
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "inside.txt").symlink_to(root / "1.txt")
    os.mkfifo(root / "pipe.jpg")
    with open(os.fsencode(root) + b"/\xff.jpg", "wb"):
        pass
    source = open_folder(root, **PAIRS)
    assert read(source) == {
        "1": {"image": root / "1.jpg", "text": root / "1.txt"},
        "inside": {"text": root / "inside.txt"},
    }
    told = dict(source.skipped)
    assert told.pop("'\\udcff.jpg'") == "its name is no UTF-8"
    assert told.pop("1.png") == "there is another file of image for 1"
    assert told.pop("gone.jpg") == told.pop("pipe.jpg") == "it is no file"
    assert {*told} == {"secret.txt", "more", "loop"}
    assert {*told.values()} == {"it is a link to a folder, or out of this one: not followed"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"items": {"image": ".gif"}}, "has no file that ends in .gif; what it has: 2 .jpg, 1 .txt"),
        ({"items": {"image": "jpg"}}, "'jpg' is no suffix such as '.jpg'"),
        ({"items": {"image": [".jpg", ".JPG"]}}, "the suffix '.JPG' is given twice"),
        ({"items": {}}, "items is empty"),
        ({**PAIRS, "label": "text"}, "'text' is given more than once"),
        ({**PAIRS, "modalities": {"imgae": "image"}}, "there is no 'imgae': did you mean 'image'?"),
        (PAIRS, "no two files differ in their suffix alone"),
        ({**PAIRS, "path": "nowhere"}, "nowhere is no folder"),
    ],
)
def test_what_can_t_be_a_source_is_told(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    root = make(tmp_path / "d", "a/1.jpg", "b/2.jpg", "c/3.txt")
    with pytest.raises(InputError) as error:
        open_folder(Path(options.pop("path", root)), **options)
    assert expected in str(error.value)
