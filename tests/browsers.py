"""The browser that pages are tested in: Debian's chromium, or Chrome. `.ci/run` installs it where it is missing."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt install chromium)")
