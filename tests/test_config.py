"""Configs: strict keys, overrides, errors in one line, a dump that reads back the same; and the errors' own words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from multimodal_ssl import Config, InputError, UnreadableError, load_config
from multimodal_ssl.config import AuditConfig, dump_config, parse_config
from multimodal_ssl.errors import nearest

from .toys import refusal

SMALL = """
run: runs/small
sources:
  - {name: table, path: pairs.csv}
encoders:
  image: {name: small-conv}
  text: {name: small-text}
train: {steps: 10}
"""

FULL = """
run: läufe/full
seed: 7
sources:
  - {name: table, path: a.csv, columns: {photo: image, title: {modality: text, strip: true}}, use: [photo], share: 2}
  - {name: glyphs, limit: null, fonts: [DejaVu Sans, "日本"], ratio: 5e-4, exact: 0.1, cache: yes}
evaluation:
  - {name: glyphs, split: val}
encoders:
  photo: {name: small-conv, size: 32}
  title: {name: hf-text, model: "12", length: null}
objective: {name: info-nce, temperature: 0.05}
binder: {dim: 64, head: mlp}
train: {epochs: 1.5, batch: 64, lr: 5e-4, precision: bf16, threads: 1, checkpoint_every: 0}
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Config]:
    """Return a function from YAML and overrides to a Config; the file is called run.yaml."""

    def load(text: str, *overrides: str) -> Config:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load


# What is read


def test_a_config_of_the_necessary_keys_has_defaults_for_the_rest(load: Callable[..., Config]) -> None:
    config = load(SMALL)
    assert config.run == Path("runs/small")
    assert config.train.steps == 10
    assert config.train.epochs is None
    assert config.objective.name == "info-nce"
    assert config.evaluation == ()


def test_what_stands_beside_a_name_is_an_option_but_our_own_keys_are_not(load: Callable[..., Config]) -> None:
    config = load(FULL)
    assert config.encoders["photo"].options == {"size": 32}
    assert config.sources[0].options == {
        "path": "a.csv",
        "columns": {"photo": "image", "title": {"modality": "text", "strip": True}},
    }
    assert config.sources[0].use == ("photo",)
    assert config.sources[0].share == 2
    assert config.objective.options == {"temperature": 0.05}


def test_a_number_that_yaml_takes_for_text_becomes_a_number(load: Callable[..., Config]) -> None:
    assert yaml.safe_load("5e-4") == "5e-4"
    assert load(SMALL + "seed: '3'\n").seed == 3
    assert load(FULL).train.lr == 5e-4
    assert isinstance(load(FULL).train.lr, float)
    assert load(SMALL, "train.lr=5e-4").train.lr == 5e-4


def test_a_config_does_not_change(load: Callable[..., Config]) -> None:
    config = load(SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        config.train.steps = 11


# Keys and values


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sed=1", "unknown key sed: did you mean 'seed'?"),
        ("train.leaning_rate=1", "unknown key train.leaning_rate: known: batch, by_length, checkpoint_every, clip, "),
        ("train.setps=1", "unknown key train.setps: did you mean 'steps'?"),
        ("binder.dims=1", "unknown key binder.dims: did you mean 'dim'?"),
        ("sources.0.corrupt.mismtch=1", "unknown key sources.0.corrupt.mismtch: did you mean 'mismatch'?"),
        (
            "xyz=1",
            "unknown key xyz: known: audit, binder, cache, decoys, encoders, evaluation, guard, objective, run, seed",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_of_its_section(
    override: str, said: str, load: Callable[..., Config]
) -> None:
    message = refusal(lambda: load(SMALL, override))
    assert said in message
    assert "run.yaml: " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.lr=fast", ["train.lr: ", "number", "(given: 'fast')"]),
        ("train.lr=0", ["train.lr: ", "greater than 0", "(given: 0)"]),
        ("train.lr=.inf", ["train.lr: ", "finite", "(given: inf)"]),
        ("sources.0.share=.inf", ["sources.0.share: ", "finite", "(given: inf)"]),
        ("train.batch=1", ["train.batch: ", "greater than or equal to 2", "(given: 1)"]),
        ("train.warmup=1", ["train.warmup: ", "less than 1", "(given: 1)"]),
        ("train.precision=fp8", ["train.precision: ", "'bf16'", "(given: 'fp8')"]),
        ("binder.head=deep", ["binder.head: ", "'linear'", "'mlp'", "(given: 'deep')"]),
        ("sources=[]", ["sources", "at least"]),
        ("encoders.image=3", ["encoders.image: ", "(given: 3)"]),
        ("encoders.image={size: 3}", ["encoders.image.name: ", "required"]),
        ("train=null", ["train: ", "(given: None)"]),
        ("3=3", ["3: ", "known"]),
    ],
)
def test_a_bad_value_is_named_with_what_was_given_and_expected(
    override: str, said: list[str], load: Callable[..., Config]
) -> None:
    message = refusal(lambda: load(SMALL, override))
    assert all(part in message for part in said), message
    assert "\n" not in message


def test_a_name_alone_is_a_plugin_without_options(load: Callable[..., Config]) -> None:
    config = load(SMALL, "objective=siglip", "encoders.image=small-vit")
    assert (config.objective.name, config.objective.options) == ("siglip", {})
    assert (config.encoders["image"].name, config.encoders["image"].options) == ("small-vit", {})


@pytest.mark.parametrize(("use", "said"), [("[a, b, a]", "give each name once"), ("[]", "at least 1 item")])
def test_a_name_is_used_once(use: str, said: str, load: Callable[..., Config]) -> None:
    assert said in refusal(lambda: load(SMALL, f"sources.0.use={use}"))


@pytest.mark.parametrize("source", ["{name: table, share: 0}", "{path: x.csv}", "7"])
def test_an_error_in_the_only_source_is_told_once(source: str, load: Callable[..., Config]) -> None:
    message = refusal(lambda: load(SMALL, f"sources.0={source}"))
    assert "run.yaml: sources.0" in message
    assert "\n" not in message


def test_a_missing_key_is_named() -> None:
    values = yaml.safe_load(SMALL)
    for key in ("run", "sources", "encoders", "train"):
        without = {name: value for name, value in values.items() if name != key}
        assert refusal(lambda without=without: parse_config(without, "x")) == f"x: {key}: Field required"


def test_every_error_of_a_config_is_told_on_a_line_of_its_own(load: Callable[..., Config]) -> None:
    lines = refusal(lambda: load(SMALL, "sed=1", "train.lr=fast", "binder.dim=1")).split("\n")
    assert len(lines) == 3
    for key in ("sed", "train.lr", "binder.dim"):
        assert [line for line in lines if key in line and "run.yaml: " in line]


@pytest.mark.parametrize("train", ["{}", "{steps: null, epochs: null}", "{steps: 5, epochs: 2}"])
def test_one_of_steps_and_epochs_must_be_given(train: str, load: Callable[..., Config]) -> None:
    message = refusal(lambda: load(SMALL, f"train={train}"))
    assert message.count("run.yaml: train: give one of train.steps and train.epochs; null takes one away") == 1


@pytest.mark.parametrize("train", ["{steps: 5}", "{epochs: 0.5}", "{steps: 5, epochs: null}"])
def test_either_of_steps_and_epochs_is_enough(train: str, load: Callable[..., Config]) -> None:
    load(SMALL, f"train={train}")


# Overrides


def get(config: Config, dotted: str) -> Any:
    """Return a value of the config as a dict."""
    place: Any = config.model_dump()
    for part in dotted.split("."):
        place = place[int(part)] if isinstance(place, tuple | list) else place[part]
    return place


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=3", 3),
        ("run=elsewhere", Path("elsewhere")),
        ("train.lr=1e-3", 1e-3),
        ("binder.dim=64", 64),  # a section that the file lacks
        ("sources.0.path=x.csv", "x.csv"),
        ("sources.1.split=val", "val"),
        ("sources.0.columns.title.strip=false", False),
        ("sources.1.fonts.1=Symbola", "Symbola"),
        ("encoders.photo.size=64", 64),
        ("encoders.sound.name=log-mel-conv", "log-mel-conv"),
        ("objective.name=siglip", "siglip"),
        ("encoders.title.model=a=b", "a=b"),
        ("encoders.title.length=null", None),
        ("sources.0.use=[title]", ("title",)),
        ("sources.1.name=other: thing", "other: thing"),
    ],
)
def test_an_override_sets_one_value(override: str, value: object, load: Callable[..., Config]) -> None:
    text = "\n".join(line for line in FULL.splitlines() if not line.startswith("binder"))
    if override == "sources.1.name=other: thing":
        override = "sources.1.name='other: thing'"
    config = load(text, override)
    assert get(config, override.partition("=")[0]) == value


def test_overrides_leave_all_else_as_it_was(load: Callable[..., Config]) -> None:
    before, after = load(FULL).model_dump(), load(FULL, "sources.1.split=val", "train.lr=1").model_dump()
    assert after["sources"][1].pop("split") == "val"
    assert after["train"].pop("lr") != before["train"].pop("lr")
    assert after == before


def test_of_two_overrides_of_one_key_the_later_holds(load: Callable[..., Config]) -> None:
    assert load(SMALL, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.lr", "'train.lr' is no override; write key=value, e.g. train.lr=1e-3"),
        ("run.x=1", "run.x: 'x' is below a plain value"),
        ("train.steps.x.y=1", "train.steps.x.y: 'x' is below a plain value"),
        (
            "train={steps: 5, lr: 1, lr: 2}",
            "'train={steps: 5, lr: 1, lr: 2}': 'lr' is given twice, again in line 1: keep one",
        ),
        ("sources.1.path=x", "sources.1.path: '1' is no position in a list of 1"),
        ("sources.1={name: glyphs}", "sources.1: '1' is no position in a list of 1"),
        ("sources.-1.path=x", "sources.-1.path: '-1' is no position in a list of 1"),
        ("sources.first.path=x", "sources.first.path: 'first' is no position in a list of 1"),
        ("sources.path=x", "sources.path: 'path' is no position in a list of 1"),
        ("sources.²=x", "sources.²: '²' is no position in a list of 1"),  # a digit to str.isdigit, not to int
    ],
)
def test_an_override_that_leads_nowhere_is_refused(override: str, said: str, load: Callable[..., Config]) -> None:
    assert refusal(lambda: load(SMALL, override)) == said


@pytest.mark.parametrize("override", ["train.lr=[1", "seed='3", "run=2024-02-31"])
def test_an_override_that_is_not_yaml_is_an_input_error_in_one_line(override: str, load: Callable[..., Config]) -> None:
    message = refusal(lambda: load(SMALL, override))
    assert override.partition("=")[0] in message
    assert "\n" not in message


# Files


@pytest.mark.parametrize(
    "text",
    ["run: [1", "run: 'x", "a: b: c", "run: x\n\tseed: 1", "? [a]\n: 1", "run: \x00", "x: !!python/none", "x: *y"],
)
def test_a_file_that_is_not_yaml_is_told_in_one_line(text: str, load: Callable[..., Config]) -> None:
    message = refusal(lambda: load(text))
    assert "run.yaml is not YAML: " in message
    assert "\n" not in message


def test_the_place_of_a_yaml_error_is_told(load: Callable[..., Config]) -> None:
    assert "line 8" in refusal(lambda: load(SMALL.strip() + "\n seed: 1"))


@pytest.mark.parametrize("line", ["since: 2024-02-31", "size: !!int many"])
def test_a_value_that_yaml_cannot_make_is_an_input_error(line: str, load: Callable[..., Config]) -> None:
    message = refusal(lambda: load(f"{SMALL}{line}\n"))
    assert "run.yaml" in message
    assert "\n" not in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"run: \xff\xfe")
    assert refusal(lambda: load_config(path)).startswith(f"{path} is not YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words", "3"])
def test_a_file_without_a_mapping_is_refused(text: str, load: Callable[..., Config]) -> None:
    assert "holds no mapping; a config begins with keys such as" in refusal(lambda: load(text))


@pytest.mark.parametrize("line", ["3: 4", "on: 4", "null: 4"])
def test_a_key_that_is_no_text_is_an_input_error(line: str, load: Callable[..., Config]) -> None:
    assert "Keys should be strings" in refusal(lambda: load(f"{SMALL}{line}\n"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert refusal(lambda: load_config(path)) == f"can't read the config {path}: No such file or directory"
    assert refusal(lambda: load_config(tmp_path)).startswith(f"can't read the config {tmp_path}: ")


def test_a_file_with_a_byte_order_mark_is_read(load: Callable[..., Config]) -> None:
    assert load("\ufeff" + SMALL.strip()) == load(SMALL)


# The dump


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_a_dumped_config_reads_back_the_same(text: str, load: Callable[..., Config]) -> None:
    config = load(text)
    dumped = dump_config(config)
    assert load(dumped) == config
    assert dump_config(load(dumped)) == dumped
    for before, after in zip(config.sources, load(dumped).sources, strict=True):
        assert list(map(repr, before.options.items())) == list(map(repr, after.options.items()))


@pytest.mark.parametrize(
    "value", ["2024-02-29", "2024-02-29 12:30:00", "{1: one, 2: two}", ".inf", "5e-4", "'yes'", "'2024-02-29'", "1e22"]
)
def test_an_option_of_any_kind_that_yaml_knows_survives_the_dump(value: str, load: Callable[..., Config]) -> None:
    config = load(SMALL, f"sources.0.where={{column: {value}}}")
    again = load(dump_config(config))
    assert again.sources[0].options["where"] == {"column": yaml.safe_load(value)}


def test_a_dump_writes_out_every_default_and_nothing_but_plain_yaml(load: Callable[..., Config]) -> None:
    config = load(SMALL)
    dumped = yaml.safe_load(dump_config(config))
    assert dumped.keys() == Config.model_fields.keys()
    assert dumped["train"].keys() == type(config.train).model_fields.keys()
    assert dumped["binder"] == {"dim": config.binder.dim, "head": config.binder.head}
    assert dumped["run"] == "runs/small"


def test_a_dump_is_readable_in_every_script(load: Callable[..., Config]) -> None:
    assert "läufe/full" in dump_config(load(FULL))
    assert "日本" in dump_config(load(FULL))


# The errors' own words


def test_a_close_name_is_suggested_and_a_far_one_gets_the_list() -> None:
    assert nearest("small-cnov", ["small-vit", "small-conv"]) == "did you mean 'small-conv'?"
    assert nearest("xyz", iter(["b", "a"])) == "known: a, b"
    assert nearest("xyz", []) == "none is known"


def test_an_unreadable_error_comes_back_whole_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(UnreadableError("row-3", "no such file")))
    assert isinstance(error, UnreadableError)
    assert (error.key, error.reason, str(error)) == ("row-3", "no such file", "row-3: no such file")


def test_an_input_error_is_a_value_error_and_an_unreadable_one_is_not() -> None:
    assert issubclass(InputError, ValueError)
    assert not issubclass(UnreadableError, ValueError | OSError)


def test_what_is_null_in_a_config_can_be_overridden_below(tmp_path: Path) -> None:
    values = {"run": "x", "sources": ["a"], "encoders": {"a": "b"}, "train": {"steps": 3}, "audit": None}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    audit = load_config(tmp_path / "c.yaml", ["audit.path=x.parquet"]).audit
    assert audit == AuditConfig(path=Path("x.parquet"))


def test_a_key_that_is_given_twice_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("run: r\nencoders:\n  image: small-conv\n  text: small-text\n  image: small-vit\n")
    with pytest.raises(InputError, match=r"twice.yaml: 'image' is given twice, again in line 5: keep one"):
        load_config(path)
