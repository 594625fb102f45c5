from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_ssl.cli import COMMANDS


def mmssl(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multimodal_ssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart, as short as it can be."""
    run = tmp_path_factory.mktemp("runs") / "quickstart"
    small = ["train.steps=12", "train.batch=32", "train.threads=1", "evaluation.0.limit=80"]
    done = mmssl("quickstart", f"run={run}", *small)
    assert "emerged" in done.stdout
    assert "next:" in done.stdout
    return run


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = "import sys; from multimodal_ssl.cli import mmssl; mmssl(['--help'], standalone_mode=False); "
    code += "print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


@pytest.mark.parametrize("name", [*COMMANDS, "quickstart"])
def test_every_command_has_an_example_in_its_help(name: str) -> None:
    text = mmssl(name, "--help").stdout
    assert f"Example:\n    mmssl {name}" in text


def test_the_quickstart_leaves_a_report_a_picture_an_index_and_a_run(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    directions = {f"{one['query']}-{one['gallery']}": one for one in report["retrieval"]}
    assert len(directions) == 6
    assert [name for name, one in directions.items() if not one["trained"]] == ["text-outline", "outline-text"]
    for one in directions.values():
        result = one["result"]
        assert result["n"] == 80
        assert result["recall"].keys() == result["interval"].keys() == result["chance"].keys() == {"1", "5", "10"}
        assert result["chance"]["10"] == pytest.approx(10 / 80)
    assert report["seconds"].keys() == {"draw", "train", "evaluate", "index", "search"}
    assert report["peak_memory_gb"] > 0
    assert report["provenance"]["config"]["train"]["steps"] == 12
    card = (run / "README.md").read_text()
    assert "12 steps of 32 samples" in card
    assert report["provenance"]["fingerprint"] in card
    assert f"| {directions['text-outline']['result']['recall']['10']:.3f} |" in card
    with Image.open(run / "search.png") as sheet:
        assert sheet.width > 8 * 100
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 50


def test_the_quickstart_again_goes_on_where_it_was(run: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    before = checkpoint.stat().st_mtime_ns
    small = ["train.steps=12", "train.batch=32", "train.threads=1", "evaluation.0.limit=80"]
    mmssl("quickstart", f"run={run}", *small)
    assert checkpoint.stat().st_mtime_ns == before, "it was trained again"


def test_a_search_answers_as_table_json_and_picture(run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "answers.png"
    found = json.loads(mmssl("search", run, "snowman", "--among", "image", "-k", 3, "--json", "--sheet", sheet).stdout)
    assert len(found) == 3
    assert found[0]["score"] >= found[1]["score"] >= found[2]["score"]
    assert sheet.exists()
    assert found[0]["key"] in mmssl("search", run, "snowman", "--among", "image", "-k", 1).stdout
    picture = tmp_path / "query.png"
    Image.new("L", (48, 48), 255).save(picture)
    words = json.loads(mmssl("search", run, picture, "--by", "image", "--among", "text", "--json").stdout)
    assert all(one["text"] for one in words)


def test_an_index_can_be_built_of_other_data_and_of_another_kind(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.index"
    done = mmssl("index", run, "evaluation.0.split=val", "evaluation.0.limit=50", "--kind", "hnsw", "--out", out)
    assert "indexed 50 image, 50 text, 50 outline" in done.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "hnsw"
    found = json.loads(mmssl("search", run, "snowman", "--index", out, "--json").stdout)
    assert len(found) == 10


def test_bench_writes_its_figures(run: Path, tmp_path: Path) -> None:
    done = mmssl("bench", run, "evaluation.0.limit=60", "--json", tmp_path / "figures.json")
    assert "emerged" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["retrieval"][0]["result"]["n"] == 60
    assert figures["provenance"]["config"]["evaluation"][0]["limit"] == 60
    assert len(figures["provenance"]["fingerprint"]) == 64


def test_plugins_lists_everything_and_the_options_of_one() -> None:
    everything = mmssl("plugins").stdout
    for name in ("glyphs", "table", "small-conv", "hf-text", "open-clip-image", "log-mel-conv", "info-nce", "series"):
        assert name in everything
    options = mmssl("plugins", "small-text").stdout
    assert "vocabulary" in options
    assert "4096" in options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.yaml"], "can't read the config nowhere.yaml"),
        (["plugins", "small-txt"], "did you mean 'small-text'?"),
        (["index", "nowhere"], "can't read the config nowhere/config.yaml"),
        (["search", "nowhere", "words"], "nowhere/index holds no index"),
        (["quickstart", "train.stps=3"], "unknown key train.stps: did you mean 'steps'?"),
        (["quickstart", "nonsense"], "'nonsense' is no override; write key=value"),
        (["fitt"], "No such command 'fitt'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: list[str], message: str) -> None:
    done = mmssl(*arguments, code=2)
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith(("Usage", "Try"))]) <= 2, done.stderr


def test_an_index_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    small = ["train.steps=12", "train.batch=32", "train.threads=1", "evaluation.0.limit=80"]
    mmssl("quickstart", f"run={other}", "seed=1", *small)
    done = mmssl("search", other, "snowman", "--index", run / "index", code=2)
    assert "this index was made by the Binder" in done.stderr
