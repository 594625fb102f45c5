"""A stranger's plugin: a folder of its own, installed with pip, with no change to this repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the example into a folder and return an environment in which Python finds it."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "mmssl_colour.py"):
        (source / name).write_text((EXAMPLE / name).read_text())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


def test_the_example_is_one_file_of_at_most_sixty_lines_and_stands_whole_in_the_readme() -> None:
    code = (EXAMPLE / "mmssl_colour.py").read_text()
    assert len(code.splitlines()) <= 60
    assert code in (EXAMPLE.parents[1] / "README.md").read_text()


def test_the_example_passes_the_conformance_kit(installed: dict[str, str]) -> None:
    check = """
from mmssl_colour import ColourEncoder, NamedColours
from multimodal_ssl import Catalog
from multimodal_ssl.testing import check_encoder, check_modality, check_pairing_source
catalog = Catalog.discover()
assert "colour" not in catalog.broken and catalog.get("encoders", "colour-encoder").plugin == "colour"
source = NamedColours()
colour = catalog.modality("colour")
check_modality(colour, ["#ff0000", "xkcd:puke", (0.1, 0.2, 0.3)])
check_encoder(ColourEncoder(), [colour.load(sample.items["colour"]) for sample in source][:20])
check_pairing_source(source)
"""
    subprocess.run([sys.executable, "-c", check], env=installed, check=True)


def test_the_example_trains_and_finds_colours_by_names_it_never_saw(installed: dict[str, str], tmp_path: Path) -> None:
    fit = [sys.executable, "-m", "multimodal_ssl", "fit", EXAMPLE / "colours.yaml", f"run={tmp_path / 'run'}"]
    subprocess.run(fit, env=installed, check=True)
    figures = tmp_path / "figures.json"
    bench = [sys.executable, "-m", "multimodal_ssl", "bench", tmp_path / "run", "--json", figures]
    subprocess.run(bench, env=installed, check=True)
    for direction in json.loads(figures.read_text())["retrieval"]:
        result = direction["result"]
        assert result["recall"]["10"] > 2 * result["chance"]["10"]
