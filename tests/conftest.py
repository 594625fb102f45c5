"""What all tests share: one thread, and a generator of a fixed seed."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep torch to one thread, so that sums have one order and tests don't fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """Return a generator that is new in every test."""
    return torch.Generator().manual_seed(0)
