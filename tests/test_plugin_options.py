"""The options of what a plugin registers: they are checked against the keyword-only parameters of its factory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from multimodal_ssl import Catalog, load_config
from multimodal_ssl.pipeline import fit
from multimodal_ssl.plugins import options_of

from .toys import Offering, refusal, write_tiny


def make(factory: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Create what a plugin registered as "thing"."""
    return Catalog.of(plugin=Offering("thing", factory=factory)).create("encoders", "thing", *given, options=options)


def settings(
    given: str,
    *,
    rate: float,
    size: int = 3,
    mode: Literal["fast", "exact"] = "fast",
    path: Path | None = None,
    columns: dict[str, str] | None = None,
) -> tuple[Any, ...]:
    return given, rate, size, mode, path, columns


def test_options_reach_the_factory_beside_what_the_core_gives() -> None:
    made = make(settings, "core", rate=0.5, mode="exact")
    assert made == ("core", 0.5, 3, "exact", None, None)


def test_the_options_of_a_factory_are_completed_with_its_defaults() -> None:
    catalog = Catalog.of(plugin=Offering("thing", factory=settings))
    completed = catalog.complete("encoders", "thing", {"rate": "5e-4", "path": "a"})
    assert completed == {"rate": 5e-4, "size": 3, "mode": "fast", "path": Path("a"), "columns": None}


def test_options_are_the_keyword_only_parameters() -> None:
    assert list(options_of(settings)) == ["rate", "size", "mode", "path", "columns"]
    assert "no option 'given'" in refusal(lambda: make(settings, "core", rate=1.0, given="x"))


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    assert refusal(lambda: make(settings, "core", rte=1.0)) == "'thing' has no option 'rte': did you mean 'rate'?"


@pytest.mark.parametrize(
    ("place", "key", "said"),
    [
        ("encoders", "frozn", "'small-conv' has no option 'frozn': did you mean 'frozen'?"),
        ("sources", "shaer", "'glyphs' has no option 'shaer': did you mean 'share'?"),
    ],
)
def test_what_stands_beside_options_is_answered_too(tmp_path: Path, place: str, key: str, said: str) -> None:
    override = f"encoders.image.{key}=1" if place == "encoders" else f"sources.0.{key}=1"
    assert refusal(lambda: fit(load_config(write_tiny(tmp_path), [override]))) == said


def test_an_option_for_a_factory_without_options_is_refused() -> None:
    assert refusal(lambda: make(lambda: None, size=1)) == "'thing' has no option 'size': none is known"


@pytest.mark.parametrize("text", ["5e-4", "0.0005", "5E-04"])
def test_a_number_that_yaml_takes_for_text_becomes_a_number(text: str) -> None:
    rate = make(settings, "core", rate=text)[1]
    assert isinstance(rate, float)
    assert rate == 5e-4


def test_options_become_what_the_factory_declares() -> None:
    made = make(settings, "core", rate=1, size="7", path="a/b", columns={"a": "b"})
    assert made == ("core", 1.0, 7, "fast", Path("a/b"), {"a": "b"})
    assert isinstance(made[1], float)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": "fast"}, ["option rate", "number", "(given: 'fast')"]),
        ({"rate": 1.0, "size": 2.5}, ["option size", "integer", "(given: 2.5)"]),
        ({"rate": 1.0, "size": None}, ["option size", "integer", "(given: None)"]),
        ({"rate": 1.0, "mode": "slow"}, ["option mode", "'fast'", "'exact'", "(given: 'slow')"]),
        ({"rate": 1.0, "columns": {"a": 5}}, ["option columns.a", "string", "(given: 5)"]),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_with_what_was_given_and_expected(
    options: dict[str, Any], said: list[str]
) -> None:
    message = refusal(lambda: make(settings, "core", **options))
    assert message.startswith("'thing', ")
    assert all(part in message for part in said), message
    assert "\n" not in message


def test_a_missing_option_is_named() -> None:
    assert refusal(lambda: make(settings, "core")) == "'thing', option rate: Field required"


def test_the_factorys_own_error_is_left_alone() -> None:
    def stumble(*, size: int = 1) -> None:
        raise KeyError(size)

    with pytest.raises(KeyError, match="5"):
        make(stumble, size=5)


def test_an_option_may_have_a_name_that_pydantic_uses_itself(recwarn: pytest.WarningsRecorder) -> None:
    def factory(*, model: str, copy: bool = False, json: int = 0) -> tuple[str, bool, int]:
        return model, copy, json

    assert make(factory, model="ViT-B-32", copy=True, json=2) == ("ViT-B-32", True, 2)
    assert [str(one.message) for one in recwarn] == []
