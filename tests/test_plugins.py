"""The Catalog: plugins stand or fall alone, and names are unique."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable

import pytest

from multimodal_ssl import Catalog, features, hookimpl, objectives
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.plugins import KINDS

from .toys import Offering, nothing, refusal


class Misspelt:
    @hookimpl
    def register_encodrs(self, register: Callable[..., None]) -> None:
        register("lost", nothing)


class WrongArgument:
    @hookimpl
    def register_encoders(self, registrar: Callable[..., None]) -> None:
        registrar("lost", nothing)


class MisspeltAndWrongArgument(Misspelt):
    @hookimpl
    def register_objectives(self, registrar: Callable[..., None]) -> None:
        registrar("lost", nothing)


class Stumbling:
    @hookimpl
    def register_encoders(self, register: Callable[..., None]) -> None:
        register("half", nothing)
        raise RuntimeError("no weights here")

    @hookimpl
    def register_objectives(self, register: Callable[..., None]) -> None:
        register("other-half", nothing)


# Catalog.of


def test_a_plugin_registers_by_kind_and_name() -> None:
    catalog = Catalog.of(mine=Offering("zebra", "ape"))
    assert catalog.names("encoders") == ["ape", "zebra"]
    assert catalog.get("encoders", "ape").plugin == "mine"
    assert catalog.broken == {}
    assert all(catalog.names(kind) == [] for kind in KINDS if kind != "encoders")


def test_every_hook_has_its_kind() -> None:
    assert {"modalities", "encoders", "pairing_sources", "objectives", "commands"} <= set(KINDS)

    class Everything:
        pass

    for kind in KINDS:
        setattr(
            Everything, f"register_{kind}", staticmethod(hookimpl(lambda register, kind=kind: register(kind, nothing)))
        )
    catalog = Catalog.of(everything=Everything)
    assert catalog.broken == {}
    assert {kind: catalog.names(kind) for kind in KINDS} == {kind: [kind] for kind in KINDS}


def test_catalogs_know_nothing_of_each_other() -> None:
    plugin = Offering("ape")
    first, second = Catalog.of(one=plugin), Catalog.of(two=plugin)
    assert first.get("encoders", "ape").plugin == "one"
    assert second.get("encoders", "ape").plugin == "two"
    assert Catalog.of().names("encoders") == []


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Misspelt(), "register_encodrs"),
        (WrongArgument(), "registrar"),
        (MisspeltAndWrongArgument(), "registrar"),
        (Stumbling(), "RuntimeError: no weights here"),
    ],
    ids=["name", "argument", "name-and-argument", "body"],
)
def test_a_plugin_with_a_bad_hook_is_broken_and_alone_in_it(plugin: object, reason: str) -> None:
    for catalog in (Catalog.of(bad=plugin, good=Offering("ape")), Catalog.of(good=Offering("ape"), bad=plugin)):
        assert list(catalog.broken) == ["bad"]
        assert reason in catalog.broken["bad"]
        assert catalog.names("encoders") == ["ape"]
        assert catalog.names("objectives") == []


@pytest.mark.parametrize("plugin", [Misspelt(), WrongArgument(), Stumbling()], ids=["name", "argument", "body"])
def test_a_broken_plugin_is_explained_in_one_line(plugin: object) -> None:
    assert "\n" not in Catalog.of(bad=plugin).broken["bad"]


# Names


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    catalog = Catalog.of(mine=Offering("small-conv", "small-vit"))
    assert refusal(lambda: catalog.get("encoders", "smal-conv")) == (
        "no encoder is named 'smal-conv': did you mean 'small-conv'?"
    )


def test_a_name_unlike_all_others_is_answered_with_what_is_known() -> None:
    catalog = Catalog.of(mine=Offering("small-vit", "ape"))
    assert refusal(lambda: catalog.get("encoders", "xyz")).endswith("known: ape, small-vit")
    assert refusal(lambda: Catalog.of().get("encoders", "xyz")).endswith("none is known")


@pytest.mark.parametrize(
    ("kind", "noun"),
    [
        ("modalities", "modality"),
        ("encoders", "encoder"),
        ("pairing_sources", "pairing source"),
        ("objectives", "objective"),
        ("commands", "command"),
    ],
)
def test_an_unknown_name_is_said_with_its_noun(kind: str, noun: str) -> None:
    assert refusal(lambda: Catalog.of().get(kind, "xyz")).startswith(f"no {noun} is named 'xyz'")


def test_asking_for_an_unknown_name_does_not_make_it_known() -> None:
    catalog = Catalog.of(mine=Offering("ape"))
    refusal(lambda: catalog.get("encoders", "xyz"))
    assert catalog.names("encoders") == ["ape"]


def test_the_failure_of_a_broken_plugin_is_told_where_a_name_is_missing() -> None:
    catalog = Catalog.of(good=Offering("ape"), bad=Stumbling(), worse=Misspelt())
    said = refusal(lambda: catalog.get("encoders", "half"))
    assert "'bad' is broken (RuntimeError: no weights here)" in said
    assert "'worse' is broken" in said
    assert "register_encodrs" in said


def test_a_name_that_two_plugins_claim_is_refused_with_the_names_of_both() -> None:
    for catalog in (
        Catalog.of(one=Offering("ape", "cat"), two=Offering("ape", "dog")),
        Catalog.of(two=Offering("ape", "dog"), one=Offering("ape", "cat")),
    ):
        said = refusal(lambda catalog=catalog: catalog.get("encoders", "ape"))
        assert "'ape'" in said
        assert "one" in said
        assert "two" in said
        assert "uninstall all but one" in said
        assert catalog.get("encoders", "cat").plugin == "one"
        assert catalog.get("encoders", "dog").plugin == "two"
        assert catalog.broken == {}


def test_one_plugin_under_two_names_claims_its_names_twice() -> None:
    plugin = Offering("ape")
    catalog = Catalog.of(one=plugin, two=plugin)
    assert catalog.broken == {}
    assert "one, two" in refusal(lambda: catalog.get("encoders", "ape"))


def test_one_name_in_two_kinds_is_no_conflict() -> None:
    class Both(Offering):
        @hookimpl
        def register_objectives(self, register: Callable[..., None]) -> None:
            register("ape", lambda: "an objective")

    catalog = Catalog.of(mine=Both("ape", factory=lambda: "an encoder"))
    assert catalog.create("encoders", "ape", options={}) == "an encoder"
    assert catalog.create("objectives", "ape", options={}) == "an objective"


def test_a_modality_is_made_once() -> None:
    class Smell:
        @hookimpl
        def register_modalities(self, register: Callable[..., None]) -> None:
            register("smell", lambda: object())

    catalog = Catalog.of(smell=Smell())
    assert catalog.modality("smell") is catalog.modality("smell")
    assert catalog.modality("smell") is not Catalog.of(smell=Smell()).modality("smell")


def test_no_module_of_ours_takes_the_place_of_a_factory_of_its_name() -> None:
    for package in (objectives, features):
        modules = {one.name for one in pkgutil.iter_modules(package.__path__)}
        assert not modules & {name for name, one in vars(package).items() if inspect.isfunction(one)}


def test_what_an_encoder_takes_is_told_before_it_is_made() -> None:
    class Made:
        @hookimpl
        def register_encoders(self, register: Register) -> None:
            register("eye", nothing, modalities=("image",))
            register("nose", nothing)

    made = Catalog.of(made=Made())
    assert made.get("encoders", "eye").modalities == ("image",)
    assert made.get("encoders", "nose").modalities == ()
