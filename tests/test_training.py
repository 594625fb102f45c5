from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from multimodal_ssl import InputError, Objective, load, load_config, objectives, training
from multimodal_ssl.config import SourceConfig, TrainConfig, parse_config
from multimodal_ssl.pipeline import bench, fit, open_config
from multimodal_ssl.training import learning_rate, uses_bf16
from multimodal_ssl.tuning import parameter_groups
from multimodal_ssl.types import Alignment

from .toys import (
    TINY,
    Numbers,
    Waves,
    catalog,
    fit_toys,
    interrupted,
    learnt,
    messy,
    read_rows,
    toy_binder,
    toy_config,
    write_tiny,
)


class Watched(Objective):
    """InfoNCE that remembers what it was given."""

    def __init__(self, pairs: Any) -> None:
        super().__init__()
        self.inner = objectives.info_nce(pairs)
        self.seen: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
        self.dtypes: set[torch.dtype] = set()
        self.said: list[Alignment] = []

    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        self.seen.append(({name: view.detach() for name, view in views.items()}, weight, group))
        self.dtypes.add((views["a"] @ views["b"].T).dtype)
        self.said.append(self.inner(views, weight, group))
        return self.said[-1]


def watch(run: Path, *sources: Any, **options: Any) -> Watched:
    """Train on toys and return the objective that saw it."""
    made: list[Watched] = []

    def make(pairs: Any) -> Objective:
        made.append(Watched(pairs))
        return made[0]

    fit_toys(run, *sources, objective=make, **options)
    return made[0]


# ---- a step ----


def test_weights_and_groups_of_the_source_reach_the_objective(tmp_path: Path) -> None:
    weights = {index: (index + 1) / 8 for index in range(8)}
    source = Numbers(8, weights=weights, group=lambda index: "first three" if index < 3 else "")
    for _, weight, group in watch(tmp_path / "run", source).seen:
        order = weight.argsort()
        torch.testing.assert_close(weight[order], torch.arange(1, 9) / 8)
        assert len(set(group[order][:3].tolist())) == 1
        assert len(set(group.tolist())) == 6


def test_a_line_of_metrics_tells_what_happened_in_the_step(tmp_path: Path) -> None:
    objective = watch(tmp_path / "run", Numbers(40))
    lines = learnt(tmp_path / "run")
    assert len(lines) == len(objective.said) == 6
    for line, said, (views, _, _) in zip(lines, objective.said, objective.seen, strict=True):
        assert line["loss"] == pytest.approx(said.loss.item())
        assert line["agreement"] == pytest.approx(said.agreement.mean().item())
        spreads = [1 - float(np.square(view.numpy().mean(0)).sum()) for view in views.values()]
        assert line["spread"] == pytest.approx(min(spreads), abs=1e-5)
        assert 0 < line["spread"] < 1


def test_the_gradient_is_clipped_and_its_norm_before_that_is_told(tmp_path: Path) -> None:
    norms: list[float] = []

    def measure(optimizer: torch.optim.Optimizer, *_: object) -> None:
        every = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in every]).norm()))

    handle = register_optimizer_step_pre_hook(measure)
    try:
        fit_toys(tmp_path / "small", Numbers(40), clip=0.25)
        assert norms == pytest.approx([0.25] * 6, rel=1e-3)
        assert min(line["gradient_norm"] for line in learnt(tmp_path / "small")) > 0.3
        norms.clear()
        fit_toys(tmp_path / "large", Numbers(40), clip=1e6)
        assert norms == pytest.approx([line["gradient_norm"] for line in learnt(tmp_path / "large")], rel=1e-3)
    finally:
        handle.remove()


def test_only_matrices_decay() -> None:
    learner = training.Learner(toy_binder("a"), objectives.info_nce([("a", "a")]))
    found = {id(one): group["weight_decay"] for group in parameter_groups(learner, 0.1, {}) for one in group["params"]}
    decays = {name: found[id(one)] for name, one in learner.named_parameters()}
    assert decays == {
        "binder.encoders.a.layer.weight": 0.1,
        "binder.encoders.a.layer.bias": 0.0,
        "binder.heads.a.weight": 0.1,
        "objective.log_scale.a-a": 0.0,
    }


def test_what_is_frozen_is_not_trained(tmp_path: Path) -> None:
    class Frozen(Waves):
        def __init__(self) -> None:
            super().__init__()
            self.layer.requires_grad_(False)
            self.first = self.layer.weight.clone()

    binder = fit_toys(tmp_path / "run", Numbers(40), encoder=Frozen)
    encoder = binder.encoder("a")
    assert torch.equal(encoder.layer.weight, encoder.first)
    assert not list(parameter_groups(encoder, 0.1, {}))


def test_the_learning_rate_rises_and_then_falls_to_zero() -> None:
    config = TrainConfig(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.8])
def test_the_learning_rate_stays_at_its_height_until_the_last_steps(warmup: float) -> None:
    config = TrainConfig(steps=100, lr=2.0, warmup=warmup, decay=0.4)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    begin = max(60, round(100 * warmup))
    assert rates[round(100 * warmup) : begin + 1] == [2.0] * (begin + 1 - round(100 * warmup))
    assert rates[begin + (100 - begin) // 2] == pytest.approx(1.0), "half of it at half of the fall"
    assert rates[begin:] == sorted(rates[begin:], reverse=True)
    assert rates[-1] < 0.02


@pytest.mark.parametrize(("precision", "inside"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_encoders_multiply_in_the_precision_asked_for_and_objectives_in_float32(
    precision: str, inside: torch.dtype, tmp_path: Path
) -> None:
    dtypes: set[torch.dtype] = set()

    class Typed(Waves):
        def forward(self, inputs: Tensor) -> Tensor:
            features = super().forward(inputs)
            dtypes.add(features.dtype)
            return features

    objective = watch(tmp_path / "run", Numbers(40), encoder=Typed, precision=precision)
    assert dtypes == {inside}
    assert objective.dtypes == {torch.float32}


@pytest.mark.parametrize("has", [True, False])
def test_auto_precision_is_bf16_where_the_hardware_has_it(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses_bf16("bf16")
    assert not uses_bf16("fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for kind in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        for other in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, other, lambda kind=kind, other=other: has and kind == other)
        assert uses_bf16("auto") is has
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has)
    assert uses_bf16("auto") is has


def test_a_loss_that_is_not_finite_stops_training_with_advice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at step \d+ the loss is .* with run=OTHER and a lower train\.lr"):
        fit_toys(tmp_path / "run", Numbers(40), steps=20, lr=1e30, warmup=0.0, clip=1e30)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_batch_smaller_than_the_number_of_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(InputError, match=r"train\.batch is 2, which is less than one sample for each of 3 processes"):
        fit_toys(tmp_path / "run", Numbers(40), batch=2)


# ---- samples that can't be read ----


def test_a_batch_that_cannot_be_read_at_all_is_passed_over(tmp_path: Path) -> None:
    train = {"steps": 40, "batch": 2, "max_unreadable": 1.0, "log_every": 1, "checkpoint_every": 4}
    source = Numbers(16, broken=range(8))
    whole = fit_toys(tmp_path / "whole", source, **train)
    lines = learnt(tmp_path / "whole")
    passed = [line["step"] for line in lines if "loss" not in line]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert 0 < len(passed) < 40
    with interrupted(step=20):
        fit_toys(tmp_path / "run", source, **train)
    resumed = fit_toys(tmp_path / "run", source, resume=True, **train)
    assert resumed.fingerprint() == whole.fingerprint()
    assert learnt(tmp_path / "run") == lines


@pytest.mark.parametrize(
    ("count", "broken", "steps", "told"),
    [
        (64, 10, 5, r"\d of 40 samples can't be read"),  # a run shorter than its data: in the end
        (64, 10, 50, r"10 of 64 samples"),  # once all samples were seen
        (4000, 400, 500, r"\d+ of 1000 samples"),  # or enough of them
    ],
)
def test_more_unreadable_samples_than_allowed_stop_training(
    count: int, broken: int, steps: int, told: str, tmp_path: Path
) -> None:
    source = Numbers(count, broken=range(broken))
    with pytest.raises(InputError, match=rf"{told}.*, train\.max_unreadable is 0\.05; .*rows\.parquet says"):
        fit_toys(tmp_path / "run", source, steps=steps, max_unreadable=0.05)
    assert read_rows(tmp_path / "run")


def test_a_bad_beginning_does_not_stop_training(tmp_path: Path) -> None:
    source = Numbers(400, broken=range(20))
    fit_toys(tmp_path / "run", source, steps=50, max_unreadable=0.05)
    seen = [line["a/seen"] for line in learnt(tmp_path / "run")]
    assert any(8 * step - so_far > 0.05 * 8 * step for step, so_far in enumerate(seen, 1)), "the beginning was good"


def test_rows_that_cannot_be_read_are_recorded_and_the_rest_is_trained_on(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    rows = [f"{i},{'missing' if i % 10 == 0 else i % 5}.png,number {i}" for i in range(80)]
    table.write_text("\n".join(["id,file,name", *rows]))
    for i in range(5):
        Image.new("L", (24, 24), 50 * i).save(tmp_path / f"{i}.png")
    source = {"name": "table", "path": str(table), "columns": {"image": "file", "text": "name"}, "key": "id"}
    values = {**TINY, "run": str(tmp_path / "run"), "sources": [source], "evaluation": []}
    values["encoders"] = {name: TINY["encoders"][name] for name in ("image", "text")}
    values["train"] = {"steps": 10, "batch": 16, "workers": 0, "threads": 1, "max_unreadable": 0.2}
    fit(parse_config(values))
    recorded = read_rows(tmp_path / "run")
    assert sorted(int(one["key"]) for one in recorded) == list(range(0, 80, 10))
    assert all("FileNotFoundError" in one["reason"] for one in recorded)


# ---- a run ----


def test_a_loaded_run_gives_the_embeddings_of_the_binder_that_was_trained(tmp_path: Path) -> None:
    trained = fit(load_config(write_tiny(tmp_path)))
    binder = load(tmp_path / "run")
    assert not binder.training
    words = ["latin small letter a", "snowman"]
    vectors = binder.encode("text", words)
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors, trained.encode("text", words))
    assert binder.fingerprint() == trained.fingerprint()
    directions = {(one.query, one.gallery): one for one in bench(tmp_path / "run")}
    assert len(directions) == 6
    assert directions["image", "text"].trained
    assert not directions["text", "outline"].trained


def test_a_run_folder_is_never_overwritten(trained_run: Path, tmp_path: Path) -> None:
    before = (trained_run / "model.safetensors").read_bytes()
    config = load_config(trained_run / "config.yaml")
    with pytest.raises(InputError, match="holds a run already: --resume"):
        fit(config)
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match=r"begun with another config \(seed\)"):
        fit(other, resume=True)
    assert (trained_run / "model.safetensors").read_bytes() == before
    for name in ("letter.txt", "config.yaml"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine: 1")
        for resume in (False, True):
            with pytest.raises(InputError, match="not empty and holds no run: it is left as it is"):
                fit(config.model_copy(update={"run": folder}), resume=resume)
        assert [(one.name, one.read_text()) for one in folder.iterdir()] == [(name, "mine: 1")]


def test_a_run_that_failed_before_its_first_checkpoint_is_simply_begun_again(tmp_path: Path) -> None:
    with interrupted(step=3):
        fit_toys(tmp_path / "run", Numbers(40))
    assert (tmp_path / "run" / "config.yaml").exists()
    again = fit_toys(tmp_path / "run", Numbers(40), clip=0.5)
    assert again.fingerprint() == fit_toys(tmp_path / "other", Numbers(40), clip=0.5).fingerprint()
    assert [line["step"] for line in learnt(tmp_path / "run")] == list(range(1, 7))


def test_a_run_that_was_moved_goes_on_where_it_is_now(tmp_path: Path) -> None:
    with interrupted(step=5):
        fit_toys(tmp_path / "old", *messy(), checkpoint_every=2)
    shutil.move(tmp_path / "old", tmp_path / "new")
    config = open_config(tmp_path / "new" / "config.yaml")
    assert config.run == tmp_path / "new"
    binder = fit(config, resume=True, catalog=catalog(messy()))
    assert not (tmp_path / "old").exists()
    assert [line["step"] for line in learnt(tmp_path / "new")] == list(range(1, 7))
    assert load(tmp_path / "new", catalog=catalog(messy())).fingerprint() == binder.fingerprint()
    assert f"run: {tmp_path / 'new'}" in (tmp_path / "new" / "config.yaml").read_text()


def test_a_run_of_another_version_or_with_other_weights_is_refused(trained_run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "binder.json"):
        (tmp_path / name).write_bytes((trained_run / name).read_bytes())
    recipe = json.loads((tmp_path / "binder.json").read_text())
    (tmp_path / "binder.json").write_text(json.dumps({**recipe, "format": 99, "version": "9.9"}))
    with pytest.raises(InputError, match=r"written by version 9\.9 in format 99"):
        load(tmp_path)
    (tmp_path / "binder.json").write_text(json.dumps({**recipe, "fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="not the file that was trained"):
        load(tmp_path)
    (tmp_path / "binder.json").write_text(json.dumps(recipe))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"can't read .*model\.safetensors"):
        load(tmp_path)
    with pytest.raises(InputError, match="holds no trained run"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sources.0.name=glifs"], "did you mean 'glyphs'"),
        (["sources.0.use=[image, txt]"], "has no 'txt': did you mean 'text'"),
        (["sources.0.use=[image, image]"], "image, image: give each name once"),
        (["encoders.outline={name: small-conv}"], "takes 'image', but 'outline' is 'series'"),
        (["encoders.sound={name: small-text}"], "no source gives 'sound'"),
        (["sources.0.use=[image]"], "two modalities at least"),
        (["train.batch=700"], "batch of 700 is larger than the data"),
        (["objective.name=info-nc"], "did you mean 'info-nce'"),
        (["evaluation.0.splt=test"], "did you mean 'split'"),
        (["seed=-1"], "seed: .*greater than or equal to 0"),
        (["seed=1099511627776"], "seed: .*less than 4294967296"),
    ],
)
def test_a_mistake_in_a_config_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit(load_config(write_tiny(tmp_path), overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    config = load_config(write_tiny(tmp_path))
    encoders = {name: one for name, one in config.encoders.items() if name != "text"}
    with pytest.raises(InputError, match=r"no encoder for 'text': add encoders\.text"):
        fit(config.model_copy(update={"encoders": encoders}))


def test_an_item_of_the_evaluation_without_an_encoder_is_told_before_training(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", "ab")
    config = config.model_copy(update={"evaluation": (SourceConfig(name="1"),)})
    with pytest.raises(InputError, match=r"evaluation: no encoder for 'c': leave it out with `use: \[\.\.\.\]`"):
        fit(config, catalog=catalog([Numbers(40), Numbers(40, "abc")]))
    assert not (tmp_path / "run").exists()


def test_one_name_of_two_modalities_is_an_error(tmp_path: Path) -> None:
    words = Numbers(40)
    words.modalities = {"a": "number", "b": "word"}
    with pytest.raises(InputError, match="'b' is 'number' in one source and 'word' in another: rename one of them"):
        fit_toys(tmp_path / "run", Numbers(40), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_a_seed_makes_the_same_bits_again_and_another_one_others(seed: int, tmp_path: Path) -> None:
    config = toy_config(tmp_path / "0", "ab").model_copy(update={"seed": seed})
    prints = []
    for name, one in (("0", seed), ("1", seed), ("2", seed ^ 1)):
        again = config.model_copy(update={"run": tmp_path / name, "seed": one})
        prints.append(fit(again, catalog=catalog([Numbers(40)])).fingerprint())
    assert prints[0] == prints[1] != prints[2]
    assert all(math.isfinite(line["loss"]) for line in learnt(tmp_path / "0"))
