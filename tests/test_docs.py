from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["cli.md", "kinds.md", "reference.md"])
def test_the_pages_made_from_code_are_in_step_with_it(page: str) -> None:
    spec = importlib.util.spec_from_file_location("make_docs", DOCS / "make.py")
    assert spec
    assert spec.loader
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.PAGES[page]() == (DOCS / page).read_text(), "run `python docs/make.py`"
