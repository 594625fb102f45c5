from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from multimodal_ssl import bench, load_config
from multimodal_ssl.geometry import measure_space
from multimodal_ssl.pipeline import evaluate_run, fit

from .test_cli import mmssl
from .toys import TINY, write_tiny

FONTS = ("evaluation.0.fonts_per_character=4", "evaluation.0.limit=120")  # several pictures of one character


@pytest.fixture(scope="module")
def direct_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny run that was trained on the one pair that emerges in `trained_run`."""
    folder = tmp_path_factory.mktemp("direct")
    path, names = write_tiny(folder), ["text", "outline"]
    config = {
        **yaml.safe_load(path.read_text()),
        "sources": [{**TINY["sources"][0], "use": names}],
        "evaluation": [{**TINY["evaluation"][0], "use": names}],
        "encoders": {name: TINY["encoders"][name] for name in names},
    }
    path.write_text(yaml.safe_dump(config))
    fit(load_config(path))
    return folder / "run"


def test_what_emerged_stands_apart_beside_its_chance_and_the_direct_run(
    trained_run: Path, direct_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "figures.json"
    plain = mmssl("bench", trained_run).stdout
    assert plain.index("trained together") < plain.index("emerged: never trained together")
    assert plain.count("x chance") == 3, "a column of both tables, and what it is"
    assert "of direct" not in plain
    assert "emerged" not in mmssl("bench", direct_run).stdout
    done = mmssl("bench", trained_run, "--direct", direct_run, "--json", path)
    assert done.stdout.count("of direct (95 %)") == 1, "of what emerged alone"
    assert max(map(len, done.stdout.splitlines())) <= 160
    figures = json.loads(path.read_text())
    for one in figures["retrieval"]:
        result = one["result"]
        assert one["times_chance"] == pytest.approx(result["recall"]["1"] * 60), "one of 60 is the right one"
    rows = figures["direct"]["directions"]
    assert [(one["query"], one["gallery"]) for one in rows] == [("text", "outline"), ("outline", "text")]
    for one, direct in zip(rows, bench(direct_run), strict=True):
        assert one["direct"] == direct.result.recall[1]
    assert figures["direct"]["fingerprint"] != figures["provenance"]["fingerprint"]

    message = mmssl("bench", trained_run, "--direct", trained_run, code=2).stderr
    assert "the direct run has trained none of the pairs that emerged (text-outline, outline-text)" in message
    assert "nothing emerged" in mmssl("bench", direct_run, "--direct", trained_run, code=2).stderr
    other = ("--direct", direct_run, "evaluation.0.use=[text, outline]")
    assert mmssl("bench", trained_run, *other, "evaluation.0.limit=20").stdout.count("of direct") == 1


def test_the_table_stays_as_it_is_and_more_is_asked_for(trained_run: Path, tmp_path: Path) -> None:
    plain = mmssl("bench", trained_run, *FONTS).stdout
    assert "R@10 (95 %)" in plain
    assert "mAP" not in plain
    done = mmssl("bench", trained_run, *FONTS, "--measures", "--json", tmp_path / "figures.json")
    for column in ("MRR (95 %)", "mAP (95 %)", "nDCG@10 (95 %)", "R-precision (95 %)", "chance"):
        assert column in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 160
    figures = json.loads((tmp_path / "figures.json").read_text())
    for one, direction in zip(figures["retrieval"], bench(trained_run, FONTS), strict=True):
        assert one["result"]["measures"].keys() == {"MRR", "mAP", "nDCG@10", "R-precision"}
        for name, estimate in one["result"]["measures"].items():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["value"] == direction.result.measures[name].value


def test_a_run_is_compared_with_another_on_the_same_items(trained_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    done = mmssl("bench", trained_run, *FONTS, "--against", other, "--json", tmp_path / "figures.json")
    assert "difference (95 %)" in done.stdout
    assert "+0.000 (+0.000 to +0.000)" in done.stdout
    assert "MRR" not in done.stdout
    assert "MRR" in mmssl("bench", trained_run, *FONTS, "--against", other, "--measures").stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["against"]["fingerprint"] == figures["provenance"]["fingerprint"]
    assert all(one["differences"]["mAP"]["p_value"] == 1 for one in figures["against"]["directions"])

    config = other / "config.yaml"
    config.write_text(config.read_text().replace("limit: 60", "limit: 50"))
    message = mmssl("bench", trained_run, "--against", other, code=2).stderr
    assert "error: the runs were evaluated on different items of image: " in message
    assert "give both the same, e.g. evaluation.0.path=test.csv" in message
    assert len(message.splitlines()) == 1
    assert "holds no trained run" in mmssl("bench", trained_run, "--against", tmp_path, code=2).stderr


def test_leaks_are_told_and_an_evaluation_on_what_was_trained_on_is_all_leak(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = mmssl("bench", trained_run, "--leaks", "--json", path)
    assert "a cosine of 0.99 by this run's own vectors" in " ".join(done.stdout.split())
    leaks = json.loads(path.read_text())["leaks"]
    assert [one["items"] for one in leaks["overlaps"]] == [
        ["image"], ["text"], ["outline"], ["image", "text"], ["image", "outline"], ["text", "outline"],
    ]  # fmt: skip
    assert leaks["near"] == 0.99
    assert not any(twin["equal"] for twin in leaks["overlaps"][3]["twins"]), "no character is in two splits"
    trained_on = "evaluation=[{name: glyphs, use: [image, text], limit: 600}]"
    done = mmssl("bench", trained_run, trained_on, "--leaks", "--json", path)
    assert "none left" in done.stdout
    for one in json.loads(path.read_text())["leaks"]["overlaps"]:
        assert sum(twin["equal"] for twin in one["twins"]) == one["n"] == 600


def test_items_are_classified_by_the_names_of_classes(trained_run: Path, tmp_path: Path) -> None:
    path, classes, templates = (tmp_path / name for name in ("figures.json", "classes.json", "templates.txt"))
    done = mmssl("bench", trained_run, *FONTS, "--zero-shot", "image", "--label", "font", "--json", path)
    assert "top 1, mean per class" in done.stdout
    found = json.loads(path.read_text())["zero_shot"]
    assert found["n"] == 120
    assert found["left_out"] == 0
    assert found["classes"] == len(found["prompts"])
    assert found["top_1"]["chance"] == pytest.approx(1 / found["classes"])
    assert {prompts[2] for prompts in found["prompts"].values()} == {
        f"a photo of a {name}" for name in found["prompts"]
    }
    some = list(found["prompts"])[:2]
    classes.write_text(json.dumps({some[0]: "serif", some[1]: ["slanted letters", "italic"]}))
    templates.write_text("{} font\nletter in {}\n")
    mmssl(
        "bench", trained_run, "evaluation=[{name: glyphs, split: test, limit: 90, use: [image]}]", "--zero-shot",
        "image", "--label", "font", "--classes", classes, "--templates", templates, "--json", path,
    )  # fmt: skip
    alone = json.loads(path.read_text())
    assert alone["retrieval"] == [], "items of one modality alone can be classified, too"
    assert alone["zero_shot"]["prompts"] == {
        some[0]: ["serif font", "letter in serif"], some[1]: ["slanted letters", "italic"],
    }  # fmt: skip
    assert alone["zero_shot"]["n"] + alone["zero_shot"]["left_out"] == 90


def test_pairs_are_verified_and_the_curve_is_drawn(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = mmssl("bench", trained_run, "--verify", "--plot", tmp_path / "roc.png", "--json", path)
    assert (tmp_path / "roc.png").stat().st_size > 5000
    assert "TAR at FAR 0.01" in done.stdout
    assert "TAR at FAR 0.001" not in done.stdout, "3,540 wrong pairs can't resolve it"
    first = json.loads(path.read_text())["verification"][0]
    assert (first["items"], first["right"], first["wrong"]) == (["image", "text"], 60, 3540)
    assert first["tar"]["0.1"]["chance"] == 0.1
    assert np.all(np.diff(np.array(first["roc"]), axis=0) >= 0)
    message = mmssl("bench", trained_run, "--verify", "--far", "0.001", code=2).stderr
    assert message == (
        "error: 3,540 wrong pairs can't resolve a FAR of 0.001: it takes 30,000, so that 30 are accepted; ask for a "
        "greater FAR, or evaluate more items\n"
    )


def test_the_space_is_measured_and_drawn(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = mmssl("bench", trained_run, "--space", "--map", tmp_path / "map.png", "--json", path)
    assert (tmp_path / "map.png").stat().st_size > 20_000
    assert done.stderr.endswith(f"drawn: {tmp_path / 'map.png'}\n")
    for column in ("uniformity", "effective rank", "alignment (95 %)", "gap by chance", "skewness"):
        assert column in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 160
    space = json.loads(path.read_text())["space"]
    wanted = measure_space(evaluate_run(trained_run).items)
    assert space["shapes"]["text"]["effective_rank"] == wanted.shapes["text"].effective_rank
    assert [one["items"] for one in space["distances"]] == [
        ["image", "text"],
        ["image", "outline"],
        ["text", "outline"],
    ]
    for one in space["distances"]:
        assert (one["pairs"], one["groups"]) == (60, 60)
        assert one["alignment"]["low"] < one["alignment"]["value"] < one["alignment"]["high"]
    assert [(one["query"], one["gallery"], one["skewness"]) for one in space["hubs"]] == [
        (one.query, one.gallery, one.skewness) for one in wanted.hubs
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "classes.json"], "--classes is for --zero-shot NAME: say which items to classify"),
        (["--by", "text"], "--by is for --zero-shot NAME"),
        (["--label", "font"], "--label is for --zero-shot NAME"),
        (["--far", "0.1"], "--far is for --verify: give that, too"),
        (["--plot", "roc.png"], "--plot is for --verify"),
        (["--map-by", "pca"], "--map-by is for --map PNG: say where to draw it"),
        (["--direct", "nowhere"], "nowhere holds no trained run"),
        (["--zero-shot", "image", "--classes", "nowhere.json"], "can't read the classes nowhere.json"),
        (["--zero-shot", "imag"], "has no 'imag' to classify: did you mean 'image'?"),
        (["--zero-shot", "image", "--label", "fount"], "no item has 'fount' in its metadata: did you mean 'font'?"),
        (["--zero-shot", "image", "--by", "sound"], "no encoder for 'sound'"),
    ],
)
def test_what_can_not_be_measured_is_one_line(trained_run: Path, options: list[str], message: str) -> None:
    error = mmssl("bench", trained_run, *options, code=2).stderr
    assert message in error
    assert len(error.splitlines()) == 1
