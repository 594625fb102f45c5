"""The Catalog: plugins stand or fall alone, names are unique, options are checked."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from multimodal_ssl import Catalog, InputError, hookimpl
from multimodal_ssl.plugins import ENTRY_POINT_GROUP, KINDS, options_of

OUR_ENTRY_POINTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
][ENTRY_POINT_GROUP]

GOOD = """
from multimodal_ssl import hookimpl

def factory():
    return "made by " + __name__

@hookimpl
def register_encoders(register):
    register("{name}", factory)
"""


def nothing() -> None:
    """Make nothing."""


class Offering:
    """A plugin that registers one encoder for every name."""

    def __init__(self, *names: str, factory: Callable[..., Any] = nothing) -> None:
        self.names, self.factory = names, factory

    @hookimpl
    def register_encoders(self, register: Callable[..., None]) -> None:
        for name in self.names:
            register(name, self.factory)


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


def make(factory: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Create what a plugin registered as "thing"."""
    return Catalog.of(plugin=Offering("thing", factory=factory)).create("encoders", "thing", *given, options=options)


def refusal(call: Callable[[], object]) -> str:
    """Return what the InputError says."""
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


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


# Options


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


def test_a_modality_is_made_once() -> None:
    class Smell:
        @hookimpl
        def register_modalities(self, register: Callable[..., None]) -> None:
            register("smell", lambda: object())

    catalog = Catalog.of(smell=Smell())
    assert catalog.modality("smell") is catalog.modality("smell")
    assert catalog.modality("smell") is not Catalog.of(smell=Smell()).modality("smell")


# Catalog.discover, on distributions that are really installed


Install = Callable[[str, str, str], str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a distribution of one module and one entry point, and returns the module."""
    modules: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution: str, entry_point: str, code: str) -> str:
        module = f"strange_{distribution.replace('-', '_')}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{entry_point} = {module}\n", encoding="utf-8")
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def test_our_own_plugins_are_all_found_and_none_is_broken() -> None:
    catalog = Catalog.discover()
    assert {name: why for name, why in catalog.broken.items() if name in OUR_ENTRY_POINTS} == {}
    registering = {catalog.get(kind, name).plugin for kind in KINDS for name in catalog.names(kind)}
    assert registering >= set(OUR_ENTRY_POINTS)


def test_every_option_of_our_own_plugins_has_a_type_that_is_checked() -> None:
    catalog = Catalog.discover()
    for kind in KINDS:
        for name in catalog.names(kind):
            registered = catalog.get(kind, name)
            if registered.plugin not in OUR_ENTRY_POINTS:
                continue
            for option in options_of(registered.factory):
                given = {option: object()}
                said = refusal(lambda kind=kind, name=name, given=given: catalog.create(kind, name, options=given))
                assert said.startswith(f"{name!r}, option ")


def test_discovery_imports_no_heavy_library() -> None:
    code = (
        "import sys; from multimodal_ssl import Catalog; catalog = Catalog.discover(); catalog.names('encoders');"
        "print(*sorted({'torch', 'numpy', 'PIL', 'transformers', 'open_clip', 'faiss', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_installed_plugin_is_found_by_its_entry_point(install: Install) -> None:
    module = install("good-smells", "smells", GOOD.format(name="nose"))
    catalog = Catalog.discover()
    assert catalog.get("encoders", "nose").plugin == "smells"
    assert catalog.create("encoders", "nose", options={}) == f"made by {module}"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        ("def (", "SyntaxError"),
        ("raise SystemExit('this needs a GPU')", "SystemExit: this needs a GPU"),
        (GOOD.format(name="lost").replace("register_encoders", "register_encoder"), "register_encoder"),
    ],
    ids=["raises", "lacks-a-library", "is-no-python", "exits", "misspells-a-hook"],
)
def test_a_plugin_that_fails_is_listed_as_broken_and_everything_else_works(
    code: str, reason: str, install: Install
) -> None:
    before = Catalog.discover()
    install("a-broken-one", "aaa", code)  # sorts before all others
    install("good-smells", "smells", GOOD.format(name="nose"))
    catalog = Catalog.discover()
    assert catalog.broken.keys() - before.broken.keys() == {"aaa"}
    assert reason in catalog.broken["aaa"]
    assert catalog.get("encoders", "nose").plugin == "smells"
    assert all(set(before.names(kind)) <= set(catalog.names(kind)) for kind in KINDS)
    said = refusal(lambda: catalog.get("encoders", "a-name-that-nobody-has"))
    assert "the plugin 'aaa' is broken" in said
    assert reason in said


def test_an_entry_point_without_its_module_is_broken(install: Install, tmp_path: Path) -> None:
    module = install("gone", "gone", "")
    (tmp_path / f"{module}.py").unlink()
    assert module in Catalog.discover().broken["gone"]


def test_two_plugins_of_one_entry_point_name_are_both_seen(install: Install) -> None:
    first = install("twin-one", "twin", GOOD.format(name="castor"))
    second = install("twin-two", "twin", GOOD.format(name="pollux"))
    catalog = Catalog.discover()
    assert catalog.create("encoders", "castor", options={}) == f"made by {first}"
    assert catalog.create("encoders", "pollux", options={}) == f"made by {second}"
    plugins = {catalog.get("encoders", name).plugin for name in ("castor", "pollux")}
    assert plugins == {f"twin ({first})", f"twin ({second})"}


def test_of_two_plugins_of_one_entry_point_name_the_broken_one_is_told_apart(install: Install) -> None:
    first = install("twin-one", "twin", "raise RuntimeError('no driver')")
    install("twin-two", "twin", GOOD.format(name="pollux"))
    catalog = Catalog.discover()
    assert catalog.broken[f"twin ({first})"] == "RuntimeError: no driver"
    assert catalog.names("encoders").count("pollux") == 1


def test_a_name_that_two_installed_plugins_claim_is_refused_with_the_names_of_both(install: Install) -> None:
    install("left", "left", GOOD.format(name="nose"))
    install("right", "right", GOOD.format(name="nose"))
    said = refusal(lambda: Catalog.discover().create("encoders", "nose", options={}))
    assert "left, right" in said


def test_a_strangers_name_does_not_replace_ours_in_silence(install: Install) -> None:
    taken = next(iter(Catalog.discover().names("objectives")))
    install("thief", "thief", GOOD.format(name=taken).replace("register_encoders", "register_objectives"))
    said = refusal(lambda: Catalog.discover().get("objectives", taken))
    assert "thief" in said
    assert "objectives" in said


def test_annotations_of_all_but_the_options_may_be_for_type_checkers_only(install: Install) -> None:
    install(
        "typed",
        "typed",
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING, Literal\n"
        "if TYPE_CHECKING:\n    from nowhere import Pairs, Thing\n"
        + GOOD.format(name="typed").replace(
            "factory():", "factory(pairs: Pairs, *, side: Literal['left', 'right'] = 'left') -> Thing:"
        ),
    )
    catalog = Catalog.discover()
    assert "made by" in catalog.create("encoders", "typed", [], options={"side": "right"})
    assert "'left' or 'right'" in refusal(lambda: catalog.create("encoders", "typed", [], options={"side": "up"}))
