"""A server, and an index that no test changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from multimodal_ssl.binder import Binder

from .serving import make_binder, make_index, open_library, serving


@pytest.fixture(scope="package")
def binder() -> Binder:
    return make_binder()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory, binder: Binder) -> Path:
    """An index that no test changes."""
    made = tmp_path_factory.mktemp("served") / "index"
    make_index(made, binder).close()
    return made


@pytest.fixture(scope="package")
def client(folder: Path, binder: Binder) -> Iterator[httpx.Client]:
    with serving(open_library(folder, binder)) as one:
        yield one
