from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from multimodal_ssl import Catalog, InputError
from multimodal_ssl.cli import mmssl
from multimodal_ssl.config import SourceConfig, TrainConfig
from multimodal_ssl.data import Supply
from multimodal_ssl.inspection import Inspection, inspect_config, inspect_sources
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.spread import spread

from .toys import NUMBER, Numbers, Stream, Torn, catalog, toy_config

TRAIN = TrainConfig.model_validate({"steps": 5, "batch": 4})


def look(*sources: Numbers | Stream, **options: object) -> Inspection:
    """Inspect toys as they would be trained on."""
    supplies = [Supply(one, tuple(one.modalities)) for one in sources]
    labels = [str(position) for position in range(len(sources))]
    given = {"labels": labels, "title": "toys", "workers": 0, "train": TRAIN, **options}
    return inspect_sources(supplies, catalog(sources), **given)  # type: ignore[arg-type]  # mixed options


def shop(folder: Path) -> tuple[list[str], list[str], Path]:
    """Write 30 pictures in a table: three of one picture, two broken, two empty texts, one text eight times."""
    titles = [f"title {row}" if row % 4 else "hat" for row in range(30)]
    titles[5] = titles[6] = ""
    pictures = ["p0.png" if row in (0, 10, 11) else f"p{row}.png" for row in range(30)]
    for name in pictures:
        Image.new("RGB", (10 + int(name[1:-4]), 7), (8 * int(name[1:-4]), 0, 9)).save(folder / name)
    (folder / "p12.png").write_bytes(b"no picture")
    (folder / "p13.png").unlink()
    rows = [f"{name},{title},g{row // 10}" for row, (name, title) in enumerate(zip(pictures, titles, strict=True))]
    (folder / "shop.csv").write_text("\n".join(["file,title,shelf", *rows]))
    return titles, pictures, folder / "shop.csv"


def inspect_shop(path: Path, **options: object) -> Inspection:
    known = Catalog.discover()
    columns = {"image": "file", "text": "title"}
    config = SourceConfig.model_validate({"name": "table", "path": path, "columns": columns, "group": "shelf"})
    return inspect_sources(
        open_supplies([config], known), known, labels=["shop"], title="shop", train=TRAIN, workers=0,
        **options,  # type: ignore[arg-type]  # mixed options
    )  # fmt: skip


def test_numbers_of_a_table_are_those_of_a_plain_second_count(tmp_path: Path) -> None:
    titles, pictures, path = shop(tmp_path)
    (one,) = inspect_shop(path).sources
    good = [row for row in range(30) if row not in (12, 13)]
    assert (one.total, one.tried, one.decoded) == (30, 30, 30)
    assert {tuple(names): count for names, count in one.combinations} == {("image", "text"): 28, ("image",): 2}
    assert one.items == {"image": 30, "text": 28}
    assert one.unreadable.count == one.unreadable.count_decoded == 2
    assert {key for reason in one.unreadable.reasons for key in reason.keys} == {"12", "13"}

    texts = Counter(titles[row] for row in good if titles[row])
    files = Counter(pictures[row] for row in good)
    for counts, repeats in ((texts, one.repeats["text"]), (files, one.repeats["image"])):
        assert repeats.n == counts.total()
        assert repeats.distinct == len(counts)
        assert repeats.sharing == sum(count for count in counts.values() if count > 1)
        assert repeats.most[0].count == max(counts.values())
    assert one.repeats["text"].most[0].text == "hat"
    assert one.repeats["image"].strangers == 3, "rows 0, 10 and 11 are of two shelves"

    widths = sorted(10 + int(pictures[row][1:-4]) for row in good)
    assert one.sizes["image"]["width"].least == widths[0]
    assert one.sizes["image"]["width"].most == widths[-1]
    assert sum(one.sizes["image"]["width"].counts) == len(good)
    assert one.sizes["text"]["characters"].most == max(map(len, texts))
    assert one.groups
    assert (one.groups.count, one.groups.sharing, one.groups.largest) == (3, 30, (10, "g0"))


def test_what_is_wrong_is_said_first(tmp_path: Path) -> None:
    *_, path = shop(tmp_path)
    said = "\n".join(inspect_shop(path).warnings)
    for text in ("6.7% unreadable (2 of 30)", "share their image with another of another group", "group of 10 of 30"):
        assert text in said, said
    assert any("'hat'" in line for line in said.splitlines())


def test_a_limit_is_spread_evenly_and_told_and_the_scan_compares_all(tmp_path: Path) -> None:
    *_, path = shop(tmp_path)
    (one,) = inspect_shop(path, limit=5, scan=0).sources
    assert (one.total, one.tried, one.decoded, one.is_sampled) == (30, 5, 5, True)
    (one,) = inspect_shop(path, limit=5).sources
    assert (one.tried, one.decoded) == (30, 5)
    assert one.unreadable.count == 1, "a file that is not there is missed without decoding, one of nonsense is not"


def test_groups_that_can_not_be_kept_apart_are_counted() -> None:
    (one,) = look(Numbers(40, group=lambda row: "big" if row < 25 else "")).sources
    assert one.groups
    assert one.groups.largest == (25, "big")
    assert one.groups.crowded == 25 - 40 // 4, "each of 10 batches holds one without harm"
    assert "can't be kept apart" in "\n".join(look(Numbers(40, group=lambda _: "all")).warnings)


def test_a_stream_tells_its_number_only_if_it_was_read_to_its_end() -> None:
    source = Numbers(20, broken={3})
    assert look(Stream(source), limit=10).sources[0].total is None
    (one,) = look(Stream(source), limit=50).sources
    assert (one.total, one.unreadable.skipped, one.exact) == (19, 1, False)


def test_whatever_a_source_raises_is_told() -> None:
    (one,) = look(Torn(20, weights={2: 3.0})).sources
    assert one.unreadable.count == 2
    assert {reason.reason for reason in one.unreadable.reasons} == {
        "OSError: disk", "ValueError: its weight is 3.0, not in (0, 1]",
    }  # fmt: skip


def test_leaks_are_the_items_keys_and_groups_of_both() -> None:
    train, held = Numbers(10, group=lambda row: f"g{row}"), Numbers(14, group=lambda _: "g1")
    found = look(train, evaluation=[Supply(held, ("a", "b"))], evaluation_labels=["held"])
    expected = {"groups": (14, 14)} | dict.fromkeys(["a", "b", "samples", "keys"], (10, 14))
    assert {one.what: (one.count, one.n) for one in found.leaks} == expected
    assert found.leaks[-1].some == [("0", "1"), ("1", "1"), ("2", "1")]
    assert any("71% of the evaluation's samples are in the sources" in text for text in found.warnings)


def test_training_that_would_be_refused_is_no_error_but_a_warning() -> None:
    found = look(Numbers(3))
    assert found.warnings[0].startswith("training would refuse this: a batch of 4 is larger than the data")


def test_a_config_tells_what_its_encoders_and_its_plan_do(tmp_path: Path) -> None:
    source = Numbers(43, "abc", kind=lambda row: "abc" if row else "a")
    config = toy_config(tmp_path / "run", "abc", steps=30)
    found = inspect_config(config, catalog=catalog([source]))
    assert found.schedule
    assert (found.schedule.per_epoch, found.schedule.steps, found.schedule.left_out) == ([42 // 8], 30, 0)
    assert found.schedule.visits == [30 / 5]
    assert found.sources[0].tally["a"] == {"seen": 43}
    assert found.pace
    assert {(one.stage, one.name) for one in found.pace.stages} >= {("read", ""), ("prepare", "a"), ("collate", "c")}
    assert sum(one.share for one in found.pace.stages) == pytest.approx(1)
    assert not (tmp_path / "run").exists()


def test_two_inspections_differ_in_times_alone() -> None:
    def told() -> str:
        found = look(Numbers(30, broken={4}, group=lambda row: str(row // 3)))
        return json.dumps({**found.figures(), "pace": 0, "seconds": 0, "peak_memory_gb": 0})

    assert told() == told()
    assert len(json.loads(told())["sheets"][0]) == 12


@pytest.mark.parametrize("values", [[3], [1, 1], [0, 5, 5, 9_000], [0.5, 0.25, 1e6], list(range(100)), [0, 0, 0, 0.7]])
def test_a_histogram_counts_every_number(values: list[float]) -> None:
    found = spread(values)
    assert found
    assert sum(found.counts) == found.n == len(values)
    assert found.edges == sorted(found.edges)
    assert found.median == np.quantile(values, 0.5, method="lower")


def test_the_command_prints_json_and_writes_a_page(tmp_path: Path) -> None:
    *_, path = shop(tmp_path)
    words = ["inspect", "table", f"path={path}", "columns.image=file", "columns.text=title", "--workers", "0"]
    done = CliRunner().invoke(mmssl, [*words, "--json", "--out", str(tmp_path / "out")], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["sources"][0]["total"] == 30
    assert told == json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert (tmp_path / "out" / "inspect.html").exists()
    assert "look: " in CliRunner().invoke(mmssl, words, catch_exceptions=False).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{folder}/shop.csv"], "its columns: file, title, shelf"),
        (["{folder}"], "its suffixes: .png (27), .csv (1)"),
        (["tabel", "path=x"], "did you mean 'table'?"),
        (["table", "path"], "is no override"),
        (["table", "path=x.csv"], "columns"),
        (["nowhere.yaml"], "can't read the config"),
    ],
)
def test_what_can_not_be_inspected_says_what_to_write(words: list[str], said: str, tmp_path: Path) -> None:
    shop(tmp_path)
    done = CliRunner().invoke(mmssl, ["inspect", *(word.format(folder=tmp_path) for word in words)])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


def test_a_modality_without_measures_has_no_sizes() -> None:
    assert NUMBER.measure(3) == {}
    assert look(Numbers(8)).sources[0].sizes == {"a": {}, "b": {}}
