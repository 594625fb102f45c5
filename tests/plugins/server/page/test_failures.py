"""What may go wrong on the page."""

from __future__ import annotations

from playwright.sync_api import Request, Route, expect

from ....browsers import needs_chromium
from ..serving import png
from .browsing import (
    HOSTILE,
    HOSTILE_KEY,
    Open,
    ask,
    drop,
    question,
)


@needs_chromium
def test_hostile_texts_are_shown_and_do_nothing(visit: Open) -> None:
    page = visit()
    ask(page, HOSTILE)
    page.get_by_label("Where").fill("danger = 1")
    page.get_by_label("Where").press("Enter")
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".card .sight.words")).to_have_text([HOSTILE])
    card = page.locator(".card", has=page.locator("img"))
    assert card.locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") == 30  # by its odd key
    card.locator(".open").click()
    expect(page.locator("#detail h2")).to_have_text(HOSTILE)
    expect(page.locator("#detail dd").first).to_have_text(HOSTILE_KEY)
    expect(page.locator("#detail dt").last).to_have_text("danger")
    page.get_by_role("dialog").get_by_role("button", name="Take away").click()
    expect(page.locator(".chip .label")).to_have_text([HOSTILE])
    drop(page, HOSTILE + ".png", "image/png", png())
    expect(page.locator(".chip .label").last).to_have_text(HOSTILE + ".png")
    page.reload()
    expect(page.locator(".chip .label")).to_have_text([HOSTILE])  # looked up by its key
    page.route("**/search", lambda route: route.fulfill(status=422, json={"error": HOSTILE}))
    page.get_by_label("One per group").check()
    expect(page.get_by_role("alert")).to_have_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("script").count() == 1


@needs_chromium
def test_an_error_of_the_server_is_one_line_and_can_be_tried_again(visit: Open) -> None:
    page = visit()
    busy = "too many requests are in: come again in a second"
    page.route("**/search", lambda route: route.fulfill(status=503, json={"error": busy}), times=1)
    page.get_by_label("Words to search by").fill("snowman")
    expect(page.get_by_role("alert")).to_have_text(busy)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(24)
    page.route("**/search", lambda route: route.abort(), times=1)
    page.get_by_label("Words to search by").fill("arrow")
    expect(page.get_by_role("alert")).to_have_text("The server can't be reached: see whether it is still running.")
    expect(page.locator(".card")).to_have_count(0)
    page.route("**/search", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=1)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("answered 502")
    page.route("**/health", lambda route: route.abort(), times=1)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(24)


@needs_chromium
def test_an_old_search_is_given_up_for_a_new_one(visit: Open) -> None:
    page = visit()
    held: list[Route] = []
    given_up: list[Request] = []
    page.on("requestfailed", lambda request: given_up.append(request))
    page.route("**/search", lambda route: held.append(route), times=1)
    page.get_by_label("Words to search by").fill("slow")
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "true")
    ask(page, "snowman")
    assert [question(request)["terms"][0]["text"] for request in given_up] == ["slow"]
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "false")
    assert len(held) == 1
