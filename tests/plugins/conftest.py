"""What the tests of several plugins share."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cut the way to the Hugging Face Hub, and hide what was downloaded before."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
