"""The configs in the repository: every name and option in them is known, and each big one has a small sibling."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal_ssl import Catalog, load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SIBLINGS = {"imagebind": "scenes-small"}  # six modalities on a laptop


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_name_and_option_is_known(path: Path) -> None:
    config, catalog = load_config(path), Catalog.discover()
    for one in config.encoders.values():
        catalog.complete("encoders", one.name, one.options)
    catalog.complete("objectives", config.objective.name, config.objective.options)
    for source in (*config.sources, *config.evaluation, *config.guard):
        catalog.complete("pairing_sources", source.name, source.options)
    assert config.run == Path("runs") / path.stem


def test_each_big_config_has_a_small_sibling() -> None:
    names = {path.stem for path in CONFIGS}
    for name in names:
        assert name.endswith("-small") or SIBLINGS.get(name, f"{name}-small") in names
