"""The pairing source ``hf-dataset``: local folders of every kind, at random and as a stream."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pillow
from pyarrow import parquet

import mmssl_audio
import mmssl_image
import mmssl_sources
from mmssl_sources.cells import Cells
from mmssl_sources.hugging_face import HuggingFace, HuggingFaceStream, Options
from multimodal_ssl import Catalog, InputError, LazyItem, PairingSource, Sample, UnreadableError
from multimodal_ssl.testing import check_pairing_source, check_resume

CATALOG = Catalog.of(sources=mmssl_sources, image=mmssl_image, audio=mmssl_audio)
COLUMNS: dict[str, Any] = {"image": "image", "audio": "sound", "text": "label"}
FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "sound": Audio(),
        "label": ClassLabel(names=["cat", "dog"]),
        "captions": List(Value("string")),
        "nested": {"title": Value("string"), "inner": {"score": Value("float32")}},
        "trust": Value("float32"),
        "series": List(Value("float32")),
    }
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def wav(tone: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(160, tone / 100), 16000, format="WAV")
    return buffer.getvalue()


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": f"k{i}",
            "image": {"bytes": png(i), "path": f"{i}.png"},
            "sound": {"bytes": wav(i), "path": "x.wav"},
            "label": i % 2,
            "captions": [f"one {i}", f"two {i}"],
            "nested": {"title": f"t{i}", "inner": {"score": i / 2}},
            "trust": 0.5,
            "series": [1.0, i],
        }
        for i in range(first, first + count)
    ]


def table(some: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(some, FEATURES.arrow_schema)


def shards(folder: Path, some: list[dict[str, Any]], count: int = 3) -> Path:
    """Write rows as Parquet files of a split train."""
    folder.mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(some)), count)):
        parquet.write_table(table([some[j] for j in part]), folder / f"train-{i}.parquet")
    return folder


def saved(folder: Path, some: list[dict[str, Any]]) -> Path:
    DatasetDict(train=Dataset(table(some)), test=Dataset(table(some[:2]))).save_to_disk(str(folder))
    return folder


def create(folder: Any, columns: dict[str, Any] = COLUMNS, **options: Any) -> PairingSource:
    given = {"dataset": str(folder), "columns": columns, **options}
    return CATALOG.create("pairing_sources", "hf-dataset", options=given)


def both(folder: Path, columns: dict[str, Any] = COLUMNS, **options: Any) -> tuple[HuggingFace, HuggingFaceStream]:
    source = create(folder, columns, **options)
    stream = create(folder, columns, streaming=True, **options)
    assert isinstance(source, HuggingFace)
    assert isinstance(stream, HuggingFaceStream)
    return source, stream


def bare(samples: Any) -> list[dict[str, Any]]:
    return [dict(one.items) for one in samples]


def refusal(folder: Any, columns: dict[str, Any] = COLUMNS, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        create(folder, columns, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("write", [saved, shards])
def test_undecoded_items_are_what_was_written_at_random_and_as_a_stream(tmp_path: Path, write: Any) -> None:
    some = rows(150)
    options: dict[str, Any] = {"key": "id", "group": "label", "weight": "trust", "metadata": ["label", "nested.title"]}
    source, stream = both(write(tmp_path / "d", some), **options)
    expected = [
        Sample(
            one["id"],
            {
                "image": one["image"]["bytes"],
                "audio": one["sound"]["bytes"],
                "text": (name := ["cat", "dog"][i % 2]),
            },
            name,
            0.5,
            {"label": name, "nested.title": one["nested"]["title"]},
        )
        for i, one in enumerate(some)
    ]
    for one in (source, stream):
        check_pairing_source(one)
        if write is shards:
            check_resume(one, batch=4, workers=(0, 2))
        assert list(one) == expected
        assert list(pickle.loads(pickle.dumps(one))) == expected
        assert not one.skipped
    assert stream.num_shards == (3 if write is shards else 1)
    assert source.manifest().present.all()
    length = source.manifest().length
    assert length is not None
    assert length[3].tolist() == [len(png(3)), len(wav(3)), 3]
    first = expected[7]
    for name in ("image", "audio"):
        modality = CATALOG.create("modalities", name, options={})
        assert isinstance(modality.open(first.items[name]), modality.type)


def test_fields_and_elements_and_lists_of_numbers_are_columns(tmp_path: Path) -> None:
    some = rows(4)
    some[1]["captions"] = ["only"]
    some[2]["captions"] = None
    some[3]["nested"] = {"title": None, "inner": None}
    columns = {
        "picture": {"column": "image.bytes", "modality": "image"}, "text": "captions.1",
        "title": {"column": "nested.title", "modality": "text"}, "n": {"column": "nested.inner.score", "modality": "x"},
        "series": "series", "label": "label",
    }  # fmt: skip
    for source in both(shards(tmp_path / "d", some, 2), columns):
        found = bare(source)
        assert [one["picture"] for one in found] == [png(i) for i in range(4)]
        assert [one.get("text") for one in found] == ["two 0", None, None, "two 3"]
        assert [one.get("title") for one in found] == ["t0", "t1", "t2", None]
        assert [one.get("n") for one in found] == [0, 0.5, 1, None]
        assert [one["series"].tolist() for one in found] == [[1, i] for i in range(4)]
        assert [one["label"] for one in found] == [0, 1, 0, 1]
        check_pairing_source(source)


@pytest.mark.parametrize("write", [saved, shards])
def test_missing_cells_are_absent_and_rows_of_nothing_are_told(tmp_path: Path, write: Any) -> None:
    some = rows(9)
    some[0]["image"] = None
    some[2]["image"] = {"bytes": b"", "path": None}
    if write is shards:  # save_to_disk can't write such
        some[1]["image"], some[2]["image"] = {"bytes": None, "path": None}, {"bytes": None, "path": " "}
    some[3]["label"], some[4]["label"] = None, -1
    some[5] |= {"image": None, "sound": None, "label": -1}
    some[6]["sound"] = {"bytes": b"not a sound", "path": None}
    source, stream = both(write(tmp_path / "d", some), key="id")
    has = [{"image"} if one["image"] and one["image"]["bytes"] else set() for one in some]
    for i, one in enumerate(some):
        has[i] |= {"audio"} if one["sound"] else set()
        has[i] |= {"text"} if one["label"] in (0, 1) else set()
    names = list(source.modalities)
    assert [{n for n, p in zip(names, row, strict=True) if p} for row in source.manifest().present] == has
    with pytest.raises(UnreadableError, match="no image and no audio and no text"):
        source[5]
    assert [set(one.items) for one in stream] == has[:5] + has[6:]
    assert list(stream) == list(source)
    ((place, reason),) = stream.skipped
    assert place == ("1/2" if write is shards else "0/5")
    assert reason == "the row has no image and no audio and no text"
    check_pairing_source(source)
    check_pairing_source(stream)


def test_a_stream_goes_on_at_any_sample_and_leaves_out_what_has_no_key_or_weight(tmp_path: Path) -> None:
    some = rows(200)
    some[3]["trust"], some[70]["trust"], some[71]["trust"], some[130]["id"] = 2, float("nan"), None, None
    stream = create(shards(tmp_path / "d", some, 1), key="id", weight="trust", streaming=True)
    whole = list(stream.read(0, 0))
    assert [one.key for one in whole] == [f"k{i}" for i in range(200) if i not in (3, 70, 71, 130)]
    for start in (0, 1, 3, 4, 63, 64, 65, 128, 195, 196, 500):
        assert list(stream.read(0, start)) == whole[start:]
    assert dict(stream.skipped) == {
        **dict.fromkeys(("0/3", "0/70", "0/71"), "its weight is not in (0, 1]"), "0/130": "it has no key"
    }  # fmt: skip
    assert "'k3' is 2.0, not in (0, 1] (3 such" in refusal(tmp_path / "d", weight="trust", key="nested.title").replace(
        "'t3'", "'k3'"
    )
    assert "rows without a key in 'id': 1, e.g. row 130" in refusal(tmp_path / "d", key="id")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_folders_of_text_files_are_datasets_and_paths_start_from_them(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "1.png").write_bytes(png(1))
    told = [
        {"file": "1.png", "caption": "x"},
        {"file": "http://a.b/1.png", "caption": "007a"},
        {"file": None, "caption": "z"},
    ]
    if suffix == "csv":
        lines = ["file,caption", *(f"{one['file'] or ''},{one['caption']}" for one in told)]
        (folder / "train.csv").write_text("\n".join(lines))
    else:
        (folder / "train.jsonl").write_text("\n".join(json.dumps(one) for one in told))
    (folder / "1.png").rename(tmp_path / "1.png")  # load_dataset would take the folder for one of pictures
    source, stream = both(folder, {"image": "file", "text": "caption"})
    assert source[0].items == {"image": folder / "1.png", "text": "x"}
    assert [one.items for one in stream][::2] == [source[0].items, {"text": "z"}]
    with pytest.raises(UnreadableError, match=r"image: URLs are not fetched: download http://a.b/1.png") as told_once:
        source[1]
    late = list(stream)[1].items["image"]
    assert isinstance(late, LazyItem)
    with pytest.raises(ValueError, match="URLs are not fetched") as told_late:
        late.read()
    assert told_once.value.reason == str(told_late.value)


def test_a_folder_of_pictures_gives_paths_and_the_names_of_its_folders(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog", "dog")):
        (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name / f"{i}.png").write_bytes(png(i))
    expected = [{"image": tmp_path / "d" / n / f"{i}.png", "text": n} for i, n in enumerate(("cat", "dog", "dog"))]
    for source in both(tmp_path / "d", {"image": "image", "text": "label"}):
        assert bare(source) == expected
        check_pairing_source(source)


def test_a_split_may_be_cut_and_a_folder_may_hold_a_single_dataset(tmp_path: Path) -> None:
    shards(tmp_path / "d", rows(20))
    assert bare(create(tmp_path / "d", split="train[5:7]")) == bare(create(tmp_path / "d"))[5:7]
    assert "a stream is a whole split" in refusal(tmp_path / "d", split="train[5:7]", streaming=True)
    Dataset(table(rows(3))).save_to_disk(str(tmp_path / "s"))
    assert len(list(create(tmp_path / "s"))) == len(list(create(tmp_path / "s", streaming=True))) == 3
    Dataset(table(rows(3)), split=datasets.Split("test")).save_to_disk(str(tmp_path / "t"))
    assert "has no split 'train': known: test" in refusal(tmp_path / "t")


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_misspelt_is_told_with_what_is_nearest(tmp_path: Path, streaming: bool) -> None:
    shards(tmp_path / "d", rows(4))
    saved(tmp_path / "s", rows(4))
    (tmp_path / "e").mkdir()
    configs = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.csv\n" for name in ("easy", "hard")
    )
    (tmp_path / "e" / "README.md").write_text(f"---\n{configs}---\n")
    for name in ("easy", "hard"):
        (tmp_path / "e" / f"{name}.csv").write_text(f"text,label\n{name},1\n")

    def said(name: str, columns: dict[str, Any] = COLUMNS, **options: Any) -> str:
        return refusal(tmp_path / name, columns, streaming=streaming, **options)

    for name in ("d", "s"):
        assert "has no split 'trian': did you mean 'train'?" in said(name, split="trian")
        assert "has no column 'imgae': did you mean 'image'?" in said(name, {"image": "imgae"})
        assert "there is no field 'byte': did you mean 'bytes'?" in said(name, {"image": "image.byte"})
        assert "can't be 'text': it holds lists of" in said(name, {"text": "captions"})
        assert "name one element (captions.0 is the first), or make each a row" in said(name, {"text": "captions"})
        assert "name one of its fields: nested.title, nested.inner" in said(name, {"text": "nested"})
        assert "'label' holds int64, which has no field '0'" in said(name, {"text": "label.0"})
        assert "has no column 'ids': did you mean 'id'?" in said(name, key="ids")
        assert "columns is empty" in said(name, {})
        assert "has no option 'colum': did you mean 'column'?" in said(name, {"text": {"colum": "label"}})
    assert "has no config 'eazy': did you mean 'easy'?" in said("e", {"text": "text"}, config="eazy")
    assert "has several configs: give one of easy, hard" in said("e", {"text": "text"})
    assert bare(create(tmp_path / "e", {"text": "text"}, config="hard", streaming=streaming)) == [{"text": "hard"}]
    assert "save_to_disk, which knows no configs" in said("s", config="x")


@pytest.mark.parametrize("streaming", [False, True])
def test_what_can_not_be_had_is_refused_in_one_line(tmp_path: Path, streaming: bool) -> None:
    said = refusal("nobody/nothing", streaming=streaming)
    assert "the hub does not give the dataset 'nobody/nothing' (ConnectionError" in said
    assert "--local-dir FOLDER) and give that folder as dataset" in said
    assert "nor can it be the name of a dataset" in refusal(tmp_path / "none", streaming=streaming)
    assert "nor can it be the name of a dataset" in refusal("s3://bucket/x", streaming=streaming)
    (tmp_path / "f.parquet").write_bytes(b"")
    assert "is a file: give the folder" in refusal(tmp_path / "f.parquet", streaming=streaming)
    (tmp_path / "empty").mkdir()
    assert "can't be read as a dataset" in refusal(tmp_path / "empty", streaming=streaming)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "script" / "train.csv").write_text("text\na\n")
    assert "scripts are no longer supported" in refusal(tmp_path / "script", streaming=streaming)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 and no more")
    assert "can't be read as a dataset" in refusal(tmp_path / "broken", streaming=streaming)
    Dataset(table([])).save_to_disk(str(tmp_path / "none_at_all"))
    assert "can't be read as a dataset" in refusal(tmp_path / "none_at_all", streaming=streaming)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "train.csv").write_text("text,label\n")
    expected = "has no row" if streaming else "corresponds to no data"
    assert expected in refusal(tmp_path / "bare", {"text": "text"}, streaming=streaming)


def test_a_file_that_breaks_off_costs_its_rest_and_is_told(tmp_path: Path) -> None:
    folder = shards(tmp_path / "d", rows(9))
    (folder / "train-1.parquet").write_bytes((folder / "train-1.parquet").read_bytes()[:-20])
    stream = create(folder, key="id", streaming=True)
    assert [one.key for one in stream] == ["k0", "k1", "k2", "k6", "k7", "k8"]
    ((place, reason),) = stream.skipped
    assert place == "1"
    assert "the rest of the file can't be read: " in reason
    rows_of_hub = datasets.load_dataset(str(folder), split="train", streaming=True)
    options = Options({"text": Cells.parse("text", "label")}, None, None, None, ())
    remote = HuggingFaceStream(rows_of_hub, where=Path("a/b"), root=None, options=options)
    assert len(list(remote.read(0, 0))) == 3
    with pytest.raises(InputError, match=r"a/b: the rest of shard 1 of 3 did not come .*: run it again, or download"):
        list(remote)


def test_a_column_without_a_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text('{"text": null, "more": 1}\n{"text": null, "more": 2}\n')
    for streaming in (False, True):
        assert "column 'text' is empty" in refusal(tmp_path / "d", {"text": "text"}, streaming=streaming)


def test_elements_of_lists_of_pictures_are_items(tmp_path: Path) -> None:
    kind = Features({"images": List(Image())}).arrow_schema
    some = [{"images": [{"bytes": png(i), "path": None} for i in range(count)]} for count in (2, 0, 1)]
    (tmp_path / "d").mkdir()
    parquet.write_table(pa.Table.from_pylist(some, kind), tmp_path / "d" / "train.parquet")
    columns = {name: {"column": f"images.{i}", "modality": "image"} for i, name in enumerate("ab")}
    source, stream = both(tmp_path / "d", columns)
    assert bare(source) == bare(stream) == [{"a": png(0), "b": png(1)}, {"a": png(0)}]
    assert source.manifest().present.tolist() == [[True, True], [False, False], [True, False]]


@pytest.fixture
def bars() -> Iterator[None]:
    datasets.enable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_no_progress_bars_are_shown_and_others_stay(
    tmp_path: Path, bars: None, capfd: pytest.CaptureFixture[str]
) -> None:
    shards(tmp_path / "d", rows(4))
    capfd.readouterr()
    create(tmp_path / "d")
    assert "examples" not in capfd.readouterr().err
    assert datasets.is_progress_bar_enabled()


def test_columns_are_the_cells_of_a_row_and_labels_in_it_their_names(tmp_path: Path) -> None:
    some = rows(3)
    some[1]["label"] = some[2]["nested"]["inner"]["score"] = None
    facts = {"columns": ["label", "nested.inner.score"], "modality": "tabular"}
    for source in both(saved(tmp_path / "d", some), {"facts": facts, "text": "id"}):
        found = [one["facts"] for one in bare(source)]
        assert [str(one["label"]) for one in found] == ["cat", "nan", "cat"]
        assert [str(one["nested.inner.score"]) for one in found] == ["0.0", "0.5", "nan"]
    facts["columns"] = ["image"]
    assert "a cell of a row is a number or a string" in refusal(tmp_path / "d", {"facts": facts, "text": "id"})
