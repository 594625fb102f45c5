"""The page of the server in a browser: Debian's chromium, or Chrome."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from mmssl_server.limits import Limits
from mmssl_server.page_routes import FOLDER

from .browsing import (
    CHROMIUM,
    HOSTILE,
    HOSTILE_KEY,
    NAMELESS,
    PALE,
    SMALL,
    drop,
    make_index_to_browse,
    names,
    question,
)
from .serving import make_binder, npy, open_library, png, serving

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt install chromium)")
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("page") / "index"
    binder = make_binder()
    make_index_to_browse(folder, binder)
    with serving(open_library(folder, binder)) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM)
        yield one
        one.close()


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


def ask(page: Page, words: str) -> None:
    """Search by words, and wait for the answers."""
    with page.expect_request_finished(lambda one: "/search" in one.url and question(one)["terms"][0]["text"] == words):
        page.get_by_label("Words to search by").fill(words)
    expect(page.get_by_role("status")).to_contain_text("answers among")


# The journey.


@needs_chromium
def test_it_says_what_there_is_and_finds_items_while_words_are_typed(visit: Open) -> None:
    page = visit()
    expect(page.locator("#lead")).to_have_text(
        re.compile(r"^Search 1\d\d items by words, a picture, a sound, or a series")
    )
    expect(page.locator(".tiles li")).to_have_text(["62image", "69text", "60outline · series", "3voice · audio"])
    with page.expect_request("**/search") as asked:
        page.get_by_label("Words to search by").press_sequentially("leftwards arrow", delay=5)
    assert question(asked.value) == {
        "terms": [{"by": "text", "text": "leftwards arrow", "weight": 1}],
        "among": ["image", "outline", "voice"], "k": 24, "where": None, "one_per_group": False, "fold": None,
        "min_probability": 0,
    }  # fmt: skip
    expect(page.get_by_role("status")).to_contain_text("24 answers among image, outline, voice")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator("#start")).to_be_hidden()
    expect(page.locator(".card .number").first).to_have_text(re.compile(r"^[<>]? ?\d+ %$"))
    assert page.locator(".card .probability").first.get_attribute("title").startswith("Score 0.")
    assert page.url.endswith("#words=leftwards+arrow")


@needs_chromium
def test_a_dropped_picture_is_searched_by_and_comes_back_with_the_history(visit: Open, client: httpx.Client) -> None:
    page = visit()
    drop(page, "apple.png", "image/png", png())
    expect(page.get_by_role("status")).to_contain_text("among text, outline, voice")
    asked = {"terms": [{"by": "image", "upload": "a"}], "among": ["text", "outline", "voice"], "k": 24}
    hits = client.post("/search", data={"request": json.dumps(asked)}, files={"a": png()}).json()["hits"]
    assert names(page) == [(hit["modality"], hit["key"]) for hit in hits]
    expect(page.locator(".chip .label")).to_have_text(["apple.png"])
    assert page.locator(".chip img").evaluate("one => one.decode().then(() => one.naturalWidth)") == 30
    assert page.url.endswith("#files=1")
    page.get_by_label("Remove apple.png").click()
    expect(page.locator("#start")).to_be_visible()
    page.go_back()
    expect(page.locator(".chip .label")).to_have_text(["apple.png"])
    expect(page.get_by_role("status")).to_contain_text("answers among")
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(
        "This link was of a file, which a link can't hold: drop the file here."
    )


@needs_chromium
def test_files_are_told_apart_by_their_type_or_else_asked_for(visit: Open) -> None:
    page = visit()
    walk = np.random.default_rng(0).normal(size=(3, 40))
    page.locator("#file").set_input_files({"name": "a.npy", "mimeType": "", "buffer": npy(walk)})
    expect(page.get_by_role("status")).to_contain_text("among image, text, voice")
    page.get_by_role("button", name="Clear all").click()
    drop(page, "thing.bin", "", png(), event="paste")
    expect(page.locator("#notice")).to_have_text("Say what the file is, and it is searched by it.")
    page.get_by_label("Modality of thing.bin").select_option("voice")
    expect(page.get_by_role("alert")).to_contain_text("are no sound: expected WAV, FLAC, OGG or MP3")
    page.get_by_label("Modality of thing.bin").select_option("image")
    expect(page.get_by_role("status")).to_contain_text("among text, outline, voice")
    drop(page, "big.wav", "audio/wav", b"RIFF", more=17 * 2**20)
    expect(page.get_by_role("alert")).to_have_text("big.wav is too large: the server reads at most 16 MiB at once.")
    expect(page.locator(".chip")).to_have_count(1)


@needs_chromium
def test_filters_narrow_a_search_down_and_a_wrong_condition_is_told_beside_it(visit: Open) -> None:
    page = visit()
    ask(page, "odd 3")
    page.get_by_role("button", name="voice", exact=True).click()
    expect(page.locator(".card audio")).to_have_count(3)
    page.get_by_role("button", name="text", exact=True).click()
    page.get_by_role("button", name="voice", exact=True).click()
    where = page.get_by_label("Where")
    where.fill("number >> 3")
    where.press("Enter")
    expect(page.locator("#where-wrong")).to_contain_text("filter, character 9: got '>'")
    assert where.get_attribute("aria-invalid") == "true"
    where.fill("number between 2 and 4")
    with page.expect_request("**/search") as asked:
        where.press("Enter")
    assert question(asked.value)["where"] == "number between 2 and 4"
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator("#where-wrong")).to_be_hidden()
    expect(page.locator("#where-example")).to_have_text("licence = 'MIT'")
    page.get_by_label("Answers", exact=True).and_(page.locator("select")).select_option("12")
    page.get_by_label("One per group").check()
    with page.expect_request("**/search") as asked:
        page.get_by_label("Fold duplicates").check()
    sent = question(asked.value)
    assert (sent["k"], sent["one_per_group"], sent["fold"], sent["among"]) == (12, True, 0.98, ["text"])


@needs_chromium
def test_answers_and_words_are_added_and_taken_away_with_weights(visit: Open) -> None:
    page = visit()
    ask(page, "circled letter r")
    item, first = names(page)[0], page.locator(".card .title").first.text_content()
    page.locator(".card").first.get_by_role("button", name=f"Add {first} to the query").click()
    expect(page.locator(".chip .label")).to_have_text([first])
    page.get_by_role("button", name="Keep these words").click()
    expect(page.locator(".chip .label")).to_have_text([first, "circled letter r"])
    page.locator(".chip").first.evaluate("one => one.dataset.mark = 'the same'")
    ask(page, "snowman")
    expect(page.locator(".chip").first).to_have_attribute("data-mark", "the same")  # else its picture would flicker
    page.get_by_role("button", name="Take these words away").click()
    page.get_by_role("button", name=f"{first}: Added: press to take it away").click()
    with page.expect_request("**/search") as asked:
        page.get_by_label("Weight of circled letter r").fill("2.5")
        page.get_by_label("Weight of circled letter r").press("Tab")
    sent = question(asked.value)
    assert [(term["by"], term["weight"]) for term in sent["terms"]] == [(item[0], -1), ("text", 2.5), ("text", -1)]
    assert sent["among"] == ["image", "outline", "voice"]  # as when there were words alone
    expect(page.locator(".chip.is-away")).to_have_count(2)
    assert item not in names(page)


@needs_chromium
def test_an_answer_is_opened_and_more_like_it_is_found(visit: Open) -> None:
    page = visit()
    ask(page, "greek small letter alpha")
    page.locator(".card .open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 of 24")
    expect(dialog.locator("dt")).to_have_text(["key", "modality", "group", "score", "font"])
    dialog.get_by_role("button", name="The next answer").click()
    expect(dialog).to_contain_text("2 of 24")
    dialog.get_by_role("button", name="The next answer").press("ArrowLeft")
    key, modality = dialog.locator("dd").all_text_contents()[:2]
    with page.expect_request("**/search") as asked:
        dialog.get_by_role("button", name="More like this").click()
    sent = question(asked.value)
    assert sent["terms"] == [{"by": modality, "key": key, "weight": 1}]
    assert sent["among"] == [modality]
    assert sent["k"] == 25
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("status")).to_contain_text(
        f"24 answers among {modality},"
    )  # the item itself is none of them
    assert (modality, key) not in names(page)
    expect(page.locator(".probability").first).to_have_text("no probability")
    expect(page.locator(".card .open").first).to_be_focused()


@needs_chromium
def test_that_nothing_matches_is_an_answer_with_a_way_on(visit: Open) -> None:
    page = visit("words=snowman&among=image&least=0.95")
    expect(page.get_by_role("alert")).to_have_text("Nothing matches with a probability of 95 % or more.")
    expect(page.get_by_role("status")).to_have_text("No answer")
    page.get_by_role("button", name="Loosen to 45 %").click()
    expect(page.get_by_label("Probability of a match")).to_have_value("0.45")
    page.get_by_role("button", name="Show the nearest anyway").click()
    expect(page.locator(".card")).to_have_count(24)
    page.get_by_label("Probability of a match").fill("0.9")
    expect(page.get_by_role("alert")).to_contain_text("90 % or more")
    assert page.url.endswith("least=0.9")


@needs_chromium
def test_the_back_button_leads_back_query_by_query(visit: Open) -> None:
    page = visit()
    box = page.get_by_label("Words to search by")
    with page.expect_response("**/search"):
        box.press_sequentially("arr", delay=5)
    ask(page, "arrow")  # which goes on with what was typed
    box.press("Enter")
    ask(page, "snowman")
    page.locator(".card .like").first.click()
    expect(page.locator(".chip")).to_have_count(1)
    expect(box).to_have_value("")
    page.go_back()
    expect(box).to_have_value("snowman")
    expect(page.locator(".chip")).to_have_count(0)
    page.go_back()
    expect(box).to_have_value("arrow")
    page.go_back()
    expect(page.locator("#start")).to_be_visible()
    page.go_forward()
    expect(box).to_have_value("arrow")
    expect(page.get_by_role("status")).to_contain_text("answers among")


@needs_chromium
def test_a_link_opens_the_query_that_it_was_copied_from(visit: Open, client: httpx.Client) -> None:
    page = visit()
    ask(page, "snowman & friends")
    page.locator(".card .acts button").nth(2).click()
    expect(page.locator(".chip.is-away")).to_have_count(1)
    page.get_by_label("One per group").check()
    expect(page.get_by_role("status")).to_contain_text("answers among")
    label = page.locator(".chip .label").text_content()
    other = visit(page.url.partition("#")[2])
    expect(other.get_by_role("status")).to_contain_text("answers among")
    expect(other.get_by_label("Words to search by")).to_have_value("snowman & friends")
    expect(other.locator(".chip.is-away .label")).to_have_text(label or "")
    expect(other.get_by_label("One per group")).to_be_checked()
    assert names(other) == names(page)
    odd = visit("by=image&weight=1e9&k=7&least=nonsense&text&key=a&key=b&nothing=1&by=text&text=arrow&weight=-x")
    expect(odd.locator(".chip .label")).to_have_text(["arrow"])  # the rest makes no sense
    expect(odd.get_by_role("status")).to_contain_text("24 answers")


# Keyboard, readers, phones.


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


# What may go wrong.


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


# The files.


def test_the_page_is_served_with_its_types_and_asked_for_once(client: httpx.Client) -> None:
    reply = client.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in reply.headers["content-security-policy"]
    parts = re.findall(r'(?:href|src)="(page/[^"]+)"', reply.text)
    assert {"page/style.css", "page/app.js", "page/icon.svg"} <= set(parts)
    for part in parts:
        first = client.get(f"/{part}")
        assert first.status_code == 200
        assert first.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript", "image/svg+xml")
        again = client.get(f"/{part}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for wrong in ("/page/nothing.js", "/page/..%2fapp.py", "/page/"):
        assert client.get(wrong).status_code == 404


def test_the_page_knows_the_limits_of_its_server(tmp_path: Path) -> None:
    binder = make_binder()
    with serving(open_library(tmp_path / "index", binder), limits=Limits(k=10, body=1_000_000)) as client:
        assert 'data-most-answers="10" data-most-bytes="1000000">' in client.get("/").text


def test_the_page_knows_no_other_address_and_reads_no_text_as_html() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//\w+\.\w|url\((?!\"data:)", re.sub(r"^\s*(//|/?\*).*", "", text, flags=re.M)), (
            path
        )
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| style=", text), path
    imported = set(re.findall(r'from "\./(\w+\.js)"', "".join(one.read_text() for one in FOLDER.glob("*.js"))))
    assert imported | {"app.js"} == {one.name for one in FOLDER.glob("*.js")}
