"""What all tests share: one thread, a generator of a fixed seed, a run that was never stopped, and two audits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too: a test runs on each core
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # sums are compared to the last bit, and test_cuda.py has what needs a GPU

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from multimodal_ssl import load_config
from multimodal_ssl.pipeline import fit

from .audits import MessyAudit, PlantedAudit, audit_messy, audit_planted
from .browsers import CHROMIUM
from .toys import write_tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep torch to one thread, so that sums have one order and tests don't fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return Debian's chromium, or Chrome; one for all tests, since Playwright allows no second one beside it."""
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM)
        yield one
        one.close()


@pytest.fixture
def generator() -> torch.Generator:
    """Return a generator that is new in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny run on glyphs that was never stopped."""
    folder = tmp_path_factory.mktemp("trained")
    fit(load_config(write_tiny(folder)))
    return folder / "run"


@pytest.fixture(scope="session")
def planted_audit(tmp_path_factory: pytest.TempPathFactory) -> PlantedAudit:
    """Return an audit of sensors of which 30 % are mismatched."""
    return audit_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def messy_audit(tmp_path_factory: pytest.TempPathFactory) -> MessyAudit:
    """Return an audit of the messy source beside a clean one."""
    return audit_messy(tmp_path_factory.mktemp("messy"))
