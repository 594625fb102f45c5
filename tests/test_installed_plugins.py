"""Catalog.discover, on distributions that are really installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multimodal_ssl import Catalog
from multimodal_ssl.plugins import ENTRY_POINT_GROUP, KINDS, options_of

from .toys import refusal

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


def test_every_encoder_of_ours_tells_what_it_takes() -> None:
    catalog = Catalog.discover()
    for name in catalog.names("encoders"):
        registered = catalog.get("encoders", name)
        if registered.plugin in OUR_ENTRY_POINTS:
            assert len(registered.modalities) == 1, name
            assert registered.modalities[0] in catalog.names("modalities")
