"""The page by keyboard, for screen readers and on phones."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from ....browsers import needs_chromium
from ..serving import png
from .browsing import (
    NAMELESS,
    PALE,
    SMALL,
    Open,
    ask,
    drop,
)


@needs_chromium
def test_it_works_with_the_keyboard_alone(visit: Open) -> None:
    page = visit()
    page.locator("body").click(position={"x": 5, "y": 400})
    page.keyboard.press("/")
    expect(page.get_by_label("Words to search by")).to_be_focused()
    with page.expect_response("**/search"):
        page.keyboard.type("circled letter r")
    expect(page.locator(".card")).to_have_count(24)
    cards = page.locator(".card .open")
    page.keyboard.press("ArrowDown")
    expect(cards.first).to_be_focused()
    assert cards.first.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(cards.nth(5)).to_be_focused()  # of four columns
    page.keyboard.press("End")
    expect(cards.nth(23)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog")).to_contain_text("2 of 24")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(cards.first).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".card .like").first).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("-")
    expect(page.locator(".chip.is-away")).to_have_count(1)
    expect(cards.first).to_be_focused()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_a_contrast(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    assert page.evaluate(NAMELESS) == page.evaluate(PALE) == []
    ask(page, "snowman")
    page.locator(".card .acts button").nth(2).click()
    expect(page.locator(".chip.is-away")).to_have_count(1)
    page.get_by_role("button", name="voice", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("answers among")
    assert page.evaluate(NAMELESS) == page.evaluate(PALE) == []
    page.get_by_label("Where").fill("?")
    page.get_by_label("Where").press("Enter")
    expect(page.locator("#where-wrong")).to_be_visible()
    assert page.evaluate(PALE) == []
    page.get_by_role("button", name="Drop the condition").click()
    page.locator(".card .open").first.click()
    assert page.evaluate(NAMELESS) == page.evaluate(PALE) == []
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)"
    assert is_dark == (scheme == "dark")


@needs_chromium
def test_on_a_phone_nothing_goes_sideways_and_all_can_be_touched(visit: Open) -> None:
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(SMALL) == []

    check()
    ask(page, "odd" * 40)
    page.get_by_role("button", name="Keep these words").tap()
    drop(page, "a name of a file that is far too long for a phone.png", "image/png", png())
    expect(page.locator(".chip")).to_have_count(2)
    drop(page, "b", "", png())
    check()
    page.get_by_label("Remove b").tap()
    expect(page.get_by_role("status")).to_contain_text("answers among")
    page.get_by_role("button", name="Filters").tap()
    page.get_by_label("Where").fill("x" * 80)
    page.get_by_label("Where").press("Enter")
    expect(page.locator("#where-wrong")).to_be_visible()
    check()
    page.get_by_role("button", name="Drop the condition").tap()
    page.get_by_label("Where").fill("danger = 1")
    page.get_by_label("Where").press("Enter")
    expect(page.locator(".card")).to_have_count(2)
    check()
    page.locator(".card .open").first.tap()
    expect(page.get_by_role("dialog")).to_be_visible()
    check()


@needs_chromium
def test_nothing_moves_while_it_loads(visit: Open) -> None:
    page = visit(is_greeted=False)
    page.add_init_script(
        "window.shift = 0; const add = (list) => list.getEntries().forEach((one) => window.shift += one.value);"
        "new PerformanceObserver(add).observe({ type: 'layout-shift', buffered: true })"
    )
    page.goto("/#words=snowman&among=image&among=outline")
    expect(page.locator(".card")).to_have_count(24)
    for place in range(5):
        expect(page.locator(".card img").nth(place)).to_have_js_property("complete", True)
    assert page.evaluate("window.shift") < 0.001
    assert page.locator(".card img").evaluate_all("all => all.every((one) => one.loading === 'lazy' && one.alt)")
