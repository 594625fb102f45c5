"""Encoders before and after training: blended weights, and the old skill that training may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from multimodal_ssl import Catalog
from multimodal_ssl.blending import blend, save_blend, untrained
from multimodal_ssl.cli import mmssl
from multimodal_ssl.config import Config, parse_config, parse_sources
from multimodal_ssl.guard import guard, old_skill, open_guard
from multimodal_ssl.pipeline import fit, open_supplies
from multimodal_ssl.recipe import build_binder, load

from .toys import Numbers, Waves, catalog, refusal, toy_config

NUMBERS = [float(one) for one in range(40)]


class Skilled(Waves):
    """Waves that know from the start which numbers are near, as pretrained encoders know their kind."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(8)[:, :2])
            self.layer.bias.zero_()


def tenth(row: int) -> str:
    """Return the third of the circle in which a number lies."""
    return str(int(row % (2 * np.pi) // (2 * np.pi / 3)))


def trained(folder: Path, **options: Any) -> tuple[Config, Catalog]:
    known = catalog([Numbers(40, group=tenth), Numbers(40)], encoder=Skilled)
    values = toy_config(folder / "run", "ab", steps=60, lr=0.1).model_dump(mode="json")
    values["sources"] = ["1"]
    values["encoders"] = {name: {"name": "waves", **options} for name in "ab"}
    values |= {"evaluation": ["1"], "guard": ["0"]}
    config = parse_config(values)
    fit(config, catalog=known)
    return config, known


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Catalog]:
    return trained(tmp_path_factory.mktemp("blending"))


def weights(binder) -> Tensor:
    return binder.encoder("a").layer.weight


def test_blends_lie_on_the_line_between_before_and_after(run) -> None:
    config, known = run
    before, after = Skilled().layer.weight, weights(load(config.run, catalog=known))
    assert float((after - before).detach().abs().max()) > 0.05
    for alpha in (0.0, 0.25, 1.0):
        torch.testing.assert_close(weights(blend(config.run, alpha, catalog=known)), torch.lerp(before, after, alpha))
    heads = blend(config.run, 0.3, catalog=known).heads["a"].weight
    assert torch.equal(heads, load(config.run, catalog=known).heads["a"].weight)


def test_before_training_is_before_training_in_whatever_order_encoders_are_given(tmp_path) -> None:
    known = catalog([Numbers(40)])  # whose encoders begin at random
    values = toy_config(tmp_path / "run", "ba").model_dump(mode="json")
    torch.manual_seed(0)
    before = build_binder(parse_config(values), open_supplies(parse_sources(["0"]), known), known)
    fit(parse_config(values), catalog=known)
    for name in "ab":
        found = untrained(tmp_path / "run", catalog=known).encoder(name).layer.weight
        assert torch.equal(found, before.encoder(name).layer.weight)


def test_a_blend_is_not_trained_on(run, tmp_path, monkeypatch) -> None:
    config, known = run
    save_blend(config.run, 0.5, tmp_path / "half", catalog=known)
    moved = parse_config({**config.model_dump(mode="json"), "run": str(tmp_path / "half")})
    assert "is a blend" in refusal(lambda: fit(moved, resume=True, catalog=known))


def test_of_lora_a_blend_is_a_part_of_the_update(tmp_path) -> None:
    config, known = trained(tmp_path, lora={"rank": 1})

    def whole(binder) -> Tensor:
        layer = binder.encoder("a").layer
        return layer.base_layer.weight + layer.get_delta_weight("default")

    before, after = Skilled().layer.weight, whole(load(config.run, catalog=known))
    assert float((after - before).detach().abs().max()) > 0.01
    torch.testing.assert_close(whole(blend(config.run, 0.25, catalog=known)), torch.lerp(before, after, 0.25))
    assert torch.equal(weights_of_base(untrained(config.run, catalog=known)), before)


def weights_of_base(binder) -> Tensor:
    return binder.encoder("a").layer.base_layer.weight


def test_low_rank_updates_that_began_as_others_are_blended_at_the_ends_alone(tmp_path) -> None:
    first, known = trained(tmp_path / "first", lora={"rank": 1})
    second, _ = trained(tmp_path / "second", lora={"rank": 1}, start=str(first.run))
    theirs = load(first.run, catalog=known).encoder("a").state_dict()
    ours = untrained(second.run, catalog=known).encoder("a").state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in ours.items())
    assert "of no such rank" in refusal(lambda: blend(second.run, 0.5, catalog=known))


def test_a_blend_is_saved_as_a_run_of_its_own(run, tmp_path) -> None:
    config, known = run
    made = save_blend(config.run, 0.5, tmp_path / "half", catalog=known)
    again = load(tmp_path / "half", catalog=known)
    assert np.array_equal(again.encode("a", NUMBERS), made.encode("a", NUMBERS))
    assert again.fingerprint() != load(config.run, catalog=known).fingerprint()
    assert "is there already" in refusal(lambda: save_blend(config.run, 0.5, tmp_path / "half", catalog=known))
    assert "alpha is 1.5" in refusal(lambda: blend(config.run, 1.5, catalog=known))


def test_the_guard_tells_what_training_cost(run) -> None:
    config, known = run
    found = {(one.query, one.gallery): one for one in guard(config.run, catalog=known)}
    assert found.keys() == {("a", "a"), ("b", "b")}
    for one in found.values():
        assert 18 <= one.n <= 20
        assert one.differences["R@1"].other > 0.75  # neighbours are of one third, chance is 1 / 3
    frozen = untrained(config.run, catalog=known)
    same = old_skill(frozen, open_guard(config.run, known))
    assert same.answers["a", "a"].values["R@1"].mean() == found["a", "a"].differences["R@1"].other


def test_encoders_without_heads_are_guarded_as_a_space(tmp_path) -> None:
    known = catalog([Numbers(40)], encoder=Skilled)
    values = toy_config(tmp_path / "run", "ab").model_dump(mode="json")
    values["encoders"] = {name: {"name": "waves", "head": "none"} for name in "ab"}
    values |= {"binder": {"dim": 8}, "guard": ["0"]}
    fit(parse_config(values), catalog=known)
    found = {(one.query, one.gallery): one for one in guard(tmp_path / "run", catalog=known)}
    assert found.keys() == {("a", "b"), ("b", "a")}
    assert found["a", "b"].differences["R@1"].other == 1  # equal encoders of equal numbers


def test_a_guard_that_shows_no_skill_is_refused(tmp_path) -> None:
    known = catalog([Numbers(40)], encoder=Skilled)
    values = toy_config(tmp_path / "run", "ab").model_dump(mode="json")
    said = refusal(lambda: fit(parse_config({**values, "guard": ["0"]}), catalog=known))
    assert said.startswith("guard: it would show no skill")
    assert not (tmp_path / "run").exists(), "it was told after training"
    fit(parse_config({**values, "guard": ["0", "0"]}), catalog=known)  # whose samples could have been of one group
    assert refusal(lambda: guard(tmp_path / "run", catalog=known)).startswith("the guard's sources show no skill")


def test_the_command_compares_new_skill_with_old(run, monkeypatch) -> None:
    config, known = run
    monkeypatch.setattr(Catalog, "discover", lambda: known)
    done = CliRunner().invoke(mmssl, ["blend", str(config.run), "--alpha", "0", "--alpha", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    rows = [line.split() for line in done.output.splitlines() if line.strip()[:1] in ("0", "1")]
    assert [row[0] for row in rows] == ["0", "1"]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row)
    assert float(rows[0][1]) < float(rows[1][1])
