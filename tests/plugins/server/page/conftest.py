"""A server whose items would do harm if they were read as HTML, and a browser: Debian's chromium, or Chrome."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from ..serving import make_binder, open_library, serving
from .browsing import Open, make_index_to_browse


@pytest.fixture(scope="package")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("page") / "index"
    binder = make_binder()
    make_index_to_browse(folder, binder)
    with serving(open_library(folder, binder)) as one:
        yield one


@pytest.fixture
def visit(browser: Browser, client: httpx.Client) -> Iterator[Open]:
    """Return a function that opens the page; what its scripts fail of, or its policy forbids, fails the test."""
    contexts, failures = [], []

    def note(text: str) -> None:
        if not text.startswith("Failed to load resource"):  # an error of the server that a test is about
            failures.append(text)

    def visit(hash: str = "", *, is_greeted: bool = True, **options: object) -> Page:
        context = browser.new_context(base_url=str(client.base_url), reduced_motion="reduce", **options)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda line: note(line.text) if line.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: (note(f"dialog {dialog.message}"), dialog.dismiss()))
        if is_greeted:
            page.goto(f"/#{hash}")
            expect(page.locator("body")).to_have_class("is-ready")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not failures
