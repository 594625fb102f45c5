from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from multimodal_ssl import Catalog, hookimpl
from multimodal_ssl.cli import COMMANDS, main
from multimodal_ssl.hookspecs import Register

SMALL = ["train.steps=12", "train.batch=32", "train.threads=1", "evaluation.0.limit=80"]


class Done(NamedTuple):
    stdout: str
    stderr: str


def mmssl(*arguments: object, code: int = 0) -> Done:
    """Run a command line in this process; what is an exception beyond its own exit is a traceback to the user."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["mmssl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    done = Done(out.getvalue(), err.getvalue())
    assert (ended.value.code or 0) == code, done
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart, as short as it can be."""
    run = tmp_path_factory.mktemp("runs") / "quickstart"
    done = mmssl("quickstart", f"run={run}", *SMALL)
    assert "emerged" in done.stdout
    assert "next:" in done.stdout
    return run


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = "import sys; from multimodal_ssl.cli import mmssl; mmssl(['--help'], standalone_mode=False); "
    code += "print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


@pytest.mark.parametrize("name", [*COMMANDS, "quickstart", "serve"])
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
    mmssl("quickstart", f"run={run}", *SMALL)
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


def test_a_search_is_by_words_and_files_added_and_taken_away_under_conditions(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "query.png"
    Image.new("L", (48, 48), 255).save(picture)
    ways = [("--image", picture), ("snowman", "--plus", f"0.5*image={picture}", "--minus", "letter", "--among", "text")]
    for way in ways:
        found = json.loads(mmssl("search", run, *way, "-k", 5, "--one-per-group", "--csls", "--json").stdout)
        assert len({one["group"] for one in found}) == 5
    assert {one["modality"] for one in json.loads(mmssl("search", run, *ways[0], "-k", 60, "--json").stdout)} == {
        "text", "outline",
    }  # fmt: skip
    key = found[0]["key"].replace("'", "''")
    (only,) = json.loads(
        mmssl("search", run, "snowman", "--where", f"key = '{key}'", "--among", "image", "--json").stdout
    )
    assert only["key"] == found[0]["key"]
    done = mmssl("search", run, "snowman", "--where", "shelf = 'a", "--json", code=2)
    assert "expected" in done.stderr
    assert (
        "no image has 'shelf'"
        in mmssl("search", run, "snowman", "--among", "image", "--where", "shelf = 'a'", code=2).stderr
    )
    assert "nothing matches" in mmssl("search", run, "snowman", "--where", "key = 'none'").stdout
    assert "say what to search for" in mmssl("search", run, code=2).stderr


def test_an_index_can_be_built_of_other_data_and_of_another_kind(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.index"
    done = mmssl("index", run, "evaluation.0.split=val", "evaluation.0.limit=50", "--kind", "hnsw", "--out", out)
    assert re.findall(r"(image|outline|text) +50 +\d+ +hnsw +[01]\.\d", done.stdout) == ["image", "outline", "text"]
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
        (["quickstart", "seed=-1"], "seed: Input should be greater than or equal to 0 (given: -1)"),
        (["quickstart", f"run={__file__}"], "can't be made a folder"),
        (["bench", __file__], "holds no trained run"),
        (["search", __file__, "words"], "holds no index"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: list[str], message: str) -> None:
    done = mmssl(*arguments, code=2)
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith(("Usage", "Try"))]) <= 2, done.stderr


def test_an_index_of_another_run_is_refused_until_it_is_migrated(run: Path, tmp_path: Path) -> None:
    other, mine = tmp_path / "other", tmp_path / "mine.index"
    mmssl("quickstart", f"run={other}", "seed=1", *SMALL)
    mmssl("index", run, "--out", mine)
    done = mmssl("search", other, "snowman", "--index", mine, code=2)
    assert "this index was made by the Binder" in done.stderr
    done = mmssl("migrate", mine, other, "--switch")
    assert re.findall(
        r"(image|outline|text) +(?:image|outline|text) +80 +[01]\.\d{3} +[01]\.\d{3} +[01]\.\d{3}", done.stdout
    )
    assert len(json.loads(mmssl("search", other, "snowman", "--index", mine, "--json").stdout)) == 10
    assert [path.name for path in tmp_path.iterdir() if "mine" in path.name] == ["mine.index"]


def test_python_m_runs_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multimodal_ssl", "fit", "nowhere.yaml"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: can't read the config nowhere.yaml: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("query", "by", "message"),
    [
        ("", "text", "'' can't be read as text: "),
        ("nowhere.png", "image", "'nowhere.png' can't be read as image: "),
        (__file__, "image", "can't be read as image: "),
        ("snowman", "sound", "no encoder for 'sound'"),
    ],
)
def test_a_query_that_can_not_be_read_is_told(run: Path, query: str, by: str, message: str) -> None:
    assert message in mmssl("search", run, query, "--by", by, "--among", "outline", code=2).stderr


def test_a_file_that_is_searched_for_as_words_is_remarked(run: Path) -> None:
    assert "is searched for as words; --by MODALITY" in mmssl("search", run, __file__, "-k", 1).stderr


def test_a_trained_run_can_not_be_overridden_into_another(run: Path) -> None:
    assert "a trained run is what it is" in mmssl("bench", run, "train.lr=9", code=2).stderr


def test_where_an_index_may_not_be_written_is_told_before_the_work(run: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    done = mmssl("index", run, "--out", tmp_path, "evaluation.0.name=nonsense", code=2)
    assert "is no index: it is left as it is" in done.stderr


def test_the_command_after_indexing_elsewhere_names_the_place(run: Path, tmp_path: Path) -> None:
    done = mmssl("index", run, "evaluation.0.limit=20", "--out", tmp_path / "other")
    assert f'mmssl search {run} "some words" --index {tmp_path / "other"}' in done.stdout


def test_a_run_that_was_moved_is_resumed_where_it_is(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "moved")
    done = mmssl("fit", tmp_path / "moved" / "config.yaml", "--resume")
    assert f"trained: {tmp_path / 'moved'}" in done.stdout


def shop(folder: Path, count: int = 40) -> Path:
    """Write a table of pictures and titles, some of which look like markup, and a config that trains on it."""
    for i in range(count):
        Image.new("RGB", (16, 16), (i * 6, 255 - i * 6, 90)).save(folder / f"{i}.png")
    rows = [f"{i}.png,colour {i} [/b] [sale],{('[/i]', '[red]')[i < 2]}" for i in range(count)]
    (folder / "shop.csv").write_text("\n".join(["photo,title,shelf", *rows]))
    source = f"{{name: table, path: {folder / 'shop.csv'}, columns: {{image: photo, text: title}}}}"
    (folder / "shop.yaml").write_text(
        f"run: {folder / 'run'}\nsources: [{source}]\nencoders:\n  image: {{name: small-conv, size: 16, width: 16}}\n"
        "  text: {name: small-text, width: 32, heads: 1, depth: 1}\n"
        "train: {steps: 6, batch: 8, workers: 0, threads: 1}\n"
    )
    return folder / "shop.yaml"


def test_hits_tell_what_they_are_and_titles_are_no_markup(tmp_path: Path) -> None:
    done = mmssl("fit", shop(tmp_path))
    assert f"mmssl index {tmp_path / 'run'} --of sources" in done.stdout
    (tmp_path / "3.png").unlink()
    done = mmssl("index", tmp_path / "run", "--of", "sources")
    assert "warning: 1 could not be read, e.g. 3: FileNotFoundError" in done.stderr
    assert re.findall(r"(image|text) +39 +\d+ +flat +1", done.stdout) == ["image", "text"]
    table = mmssl("search", tmp_path / "run", "colour 7", "-k", 30).stdout
    assert "[/b] [sale]" in table
    (hit, *_) = json.loads(mmssl("search", tmp_path / "run", "colour 7", "--json").stdout)
    assert hit["modality"] == "image"
    assert hit["path"] == str(tmp_path / f"{hit['key']}.png")
    assert hit["caption"] == f"colour {hit['key']} [/b] [sale]"
    picture = tmp_path / "sheets" / "answers"
    mmssl("search", tmp_path / "run", tmp_path / "5.png", "--by", "image", "--among", "text", "--sheet", picture)
    with Image.open(picture) as sheet:
        assert sheet.getpixel((60, 60)) == (30, 225, 90)  # the query is drawn, not its path


def test_an_audit_of_a_run_is_printed_saved_and_taken_by_the_next_training(tmp_path: Path) -> None:
    config = shop(tmp_path, 60)
    (tmp_path / "3.png").unlink()
    mmssl("fit", config, "sources.0.metadata=[shelf]")
    folder = tmp_path / "run-audit"
    done = mmssl("audit", tmp_path / "run", "--judges", 1)
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json", "audit.parquet"], "no judge"
    for line in ("trained on these very samples", "59 samples are few", f"look at: {folder / 'audit.html'}"):
        assert line in " ".join(done.stdout.split())
    assert "shelf [/i]" in done.stdout, "a value is no markup"
    assert "shelf [red]" not in done.stdout, "of two samples no rate is told"
    table = pq.ParquetFile(folder / "audit.parquet").read().to_pylist()
    assert len(table) == 60
    assert table[-1]["key"] == "3"
    assert table[-1]["reasons"][0].startswith("unreadable: FileNotFoundError")
    figures = json.loads((folder / "audit.json").read_text())
    (rate,) = figures["rates"]
    assert (rate["items"], rate["samples"]) == (["image", "text"], 59)
    assert [(part["column"], part["value"], part["samples"]) for part in rate["parts"]] == [("shelf", "[/i]", 57)]

    audit = tmp_path / "audit.parquet"  # six steps tell nothing: say what is wrong
    told = [{**row, "p_mismatch": 0.7 if len(row["key"]) == 1 else 0.1} for row in table[:-1]]
    pq.write_table(pa.Table.from_pylist([*told, table[-1]]), audit)
    command = ["fit", config, "--audit", audit]
    done = mmssl(*command, f"run={tmp_path / 'less'}")
    assert "audit: 9 of 60 samples are left out; it does not know 0" in " ".join(done.stderr.split())
    assert f"trained: {tmp_path / 'less'}" in done.stdout
    mmssl(*command, "audit.use=weigh", f"run={tmp_path / 'weighed'}")
    said = yaml.safe_load((tmp_path / "weighed" / "config.yaml").read_text())["audit"]
    assert said == {"path": str(audit), "use": "weigh", "above": 0.5}


def test_what_is_no_audit_is_told_before_training(tmp_path: Path) -> None:
    config, run = shop(tmp_path), tmp_path / "run"
    done = mmssl("fit", config, "--audit", tmp_path / "audit.parquet", code=2)
    assert f"can't read the audit {tmp_path / 'audit.parquet'}" in " ".join(done.stderr.split())
    pq.write_table(pa.table({"names": [1], "values": [0.5]}), tmp_path / "trust.parquet")
    done = mmssl("fit", config, "--audit", tmp_path / "trust.parquet", code=2)
    assert "is no audit.parquet: it lacks key or p_mismatch" in " ".join(done.stderr.split())
    assert not run.exists()


def test_a_run_that_failed_before_its_first_checkpoint_can_be_begun_anew(tmp_path: Path) -> None:
    config = shop(tmp_path)
    (tmp_path / "away").mkdir()
    for picture in tmp_path.glob("*.png"):
        picture.rename(tmp_path / "away" / picture.name)
    assert "samples can't be read" in mmssl("fit", config, code=2).stderr
    for picture in (tmp_path / "away").iterdir():
        picture.rename(tmp_path / picture.name)
    assert "trained: " in mmssl("fit", config).stdout


def test_a_broken_command_of_a_plugin_leaves_all_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @hookimpl
        def register_commands(self, register: Register) -> None:
            register("stumble", self.stumble)
            register("fit", self.stumble)

        def stumble(self) -> click.Command:
            raise ImportError("no [/libx.so]")

    monkeypatch.setattr("multimodal_ssl.cli._catalog", lambda: Catalog.of(plugin=Plugin()))
    assert mmssl("--help").stdout.count("  fit ") == 1
    assert "the command 'stumble' is broken (ImportError: no [/libx.so])" in mmssl("stumble", code=2).stderr


def test_the_audit_of_a_run_by_itself_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmssl("fit", shop(tmp_path))
    monkeypatch.chdir(tmp_path / "run")
    mmssl("audit", ".", "--judges", 1)
    assert (tmp_path / "run-audit" / "audit.html").exists()
