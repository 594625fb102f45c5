"""What a visitor does on the page."""

from __future__ import annotations

import json
import re

import httpx
import numpy as np
from playwright.sync_api import expect

from ....browsers import needs_chromium
from ..serving import npy, png
from .browsing import (
    Open,
    ask,
    drop,
    names,
    question,
)


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
