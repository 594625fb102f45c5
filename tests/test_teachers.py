"""Teacher embeddings in the data, from the config to the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Catalog, MapSource, Sample, features, hookimpl, objectives
from multimodal_ssl.config import parse_config
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import bench, fit
from multimodal_ssl.recipe import load

from .toys import NUMBER, Waves, refusal, toy_config


class Taught(MapSource):
    """Numbers with what a teacher makes of them: points on a circle, in five dimensions."""

    modalities = {"a": "number", "b": "number", "ta": "vector", "tb": "vector"}

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Sample:
        point = np.array([np.sin(index), np.cos(index), 0, 0, 0], np.float32)
        return Sample(str(index), {"a": index, "b": index, "ta": point, "tb": point + 0.01})


class Toys:
    @hookimpl
    def register_modalities(self, register: Register) -> None:
        register("number", lambda: NUMBER)

    @hookimpl
    def register_encoders(self, register: Register) -> None:
        register("waves", Waves)

    @hookimpl
    def register_pairing_sources(self, register: Register) -> None:
        register("taught", Taught)


KNOWN = Catalog.of(toys=Toys(), objectives=objectives, features=features)


def values_of(run: Path, share: float = 0.5) -> dict:
    values = toy_config(run, "ab", steps=200, batch=16).model_dump(mode="json")
    teacher = {"name": "vector", "width": 5, "head": "teacher"}
    return {
        **values,
        "sources": ["taught"],
        "evaluation": ["taught"],
        "encoders": {"a": "waves", "b": "waves", "ta": teacher, "tb": teacher},
        "objective": {"name": "distil", "teachers": {"a": "ta", "b": "tb"}, "share": share, "temperature": 0.1},
    }


def test_a_student_learns_the_similarities_of_its_teachers_alone(tmp_path: Path) -> None:
    binder = fit(parse_config(values_of(tmp_path / "run", share=1.0)), catalog=KNOWN)
    found = binder.encode("a", range(60)) @ binder.encode("b", range(60)).T
    points = np.array([[np.sin(one), np.cos(one)] for one in range(60)])
    assert np.corrcoef(found.ravel(), (points @ points.T).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("around", [{"name": "matryoshka", "widths": [3]}, {"name": "anchor", "anchor": "a"}])
def test_what_is_made_of_distil_has_its_teachers(tmp_path: Path, around: dict[str, Any]) -> None:
    values = values_of(tmp_path / "run", share=1.0)
    values["objective"] = around | {"of": values["objective"]}
    binder = fit(parse_config(values), catalog=KNOWN)
    points = np.array([[np.sin(one), np.cos(one)] for one in range(60)])
    for width in (3, None) if "widths" in around else (None,):
        a, b = (binder.encode(name, range(60))[:, :width] for name in "ab")
        found = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
        assert np.corrcoef(found.ravel(), (points @ points.T).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("around", ["pairs", "centroid"])
def test_what_can_have_no_teachers_says_how_it_can_be_turned_round(tmp_path: Path, around: str) -> None:
    values = values_of(tmp_path / "run")
    values["objective"] = {"name": around, "of": values["objective"]}
    assert "objective: {name: distil, of: {name: " in refusal(lambda: fit(parse_config(values), catalog=KNOWN))


def test_teachers_are_no_part_of_the_space(tmp_path: Path) -> None:
    fit(parse_config(values_of(tmp_path / "run")), catalog=KNOWN)
    assert load(tmp_path / "run", catalog=KNOWN).teachers == {"ta", "tb"}
    directions = bench(tmp_path / "run", catalog=KNOWN)
    assert {(one.query, one.gallery) for one in directions} == {("a", "b"), ("b", "a")}
    assert all(one.trained for one in directions)


def test_a_teacher_that_the_objective_does_not_know_is_refused(tmp_path: Path) -> None:
    values = values_of(tmp_path / "run") | {"objective": "info-nce"}
    said = refusal(lambda: fit(parse_config(values), catalog=KNOWN))
    assert said.startswith("encoders.ta: head: teacher, but the objective 'info-nce' has no such teacher")


def test_a_teacher_that_is_none_or_stands_in_no_source_is_refused(tmp_path: Path) -> None:
    values = values_of(tmp_path / "run")
    values["encoders"]["tb"] = {"name": "vector", "width": 5}
    said = refusal(lambda: fit(parse_config(values), catalog=KNOWN))
    assert said == "objective: 'tb' is to teach: give encoders.tb with head: teacher"
    values = values_of(tmp_path / "run")
    values["sources"] = [{"name": "taught", "use": ["a", "b", "ta"]}]
    values["encoders"]["tb"] |= {"frozen": True, "freeze_head": True}
    assert "'tb' is to teach, but no source gives it" in refusal(lambda: fit(parse_config(values), catalog=KNOWN))


def test_a_teacher_of_another_width_is_told_of_each_sample(tmp_path: Path) -> None:
    values = values_of(tmp_path / "run")
    values["encoders"]["ta"] = {"name": "vector", "width": 4, "head": "teacher"}
    said = refusal(lambda: fit(parse_config(values), catalog=KNOWN))
    assert "can't be read" in said
