"""What the tests of the page share: a server with items of hostile names, and what a browser is asked of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Request, expect

from multimodal_ssl import Preview
from multimodal_ssl.binder import Binder
from multimodal_ssl.data import Supply
from multimodal_ssl.embed import Embedded, embed

from ..serving import glyphs, make_index, png

Open = Callable[..., Page]
HOSTILE = "<img src=x onerror=\"window.hacked = 'html'\"><script>window.hacked = 'script'</script>"
HOSTILE_KEY = "'\"><img src=x onerror=window.hacked=1>/../javascript:alert(1)"

# Every control that can be seen and has no name that a screen reader could tell.
NAMELESS = """() => [...document.querySelectorAll('button, input, select, a, audio, [tabindex]')]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }))
  .filter((one) => !(one.ariaLabel || [...(one.labels ?? [])].some((label) => label.textContent.trim())
    || (one.tagName === 'BUTTON' && one.textContent.trim())))
  .map((one) => one.outerHTML.slice(0, 120))"""

# Every text whose contrast with what is behind it is below 4.5 (WCAG 2.2, 1.4.3), but for what is disabled.
PALE = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const linear = (one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4;
    const [r, g, b] = [...rgba(colour)].map((one) => linear(one / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (rgba(colour)[3] > 250) return colour;
    }
    return 'white';
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const pale = [];
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !one.checkVisibility({ visibilityProperty: true })) continue;
    if (one.closest(':disabled, option')) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    const contrast = (a + .05) / (b + .05);
    if (contrast < 4.5) pale.push(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 60)}`);
  }
  return pale;
}"""

# Every control smaller than 40 pixels that is no link within a text.
SMALL = """() => [...document.querySelectorAll('button:not(.link), input, select')]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }))
  .map((one) => [one.type === 'checkbox' ? one.closest('label') : one, one])
  .filter(([touched]) => touched.getBoundingClientRect().height < 40 || touched.getBoundingClientRect().width < 40)
  .map(([, one]) => one.outerHTML.slice(0, 120))"""


def make_index_to_browse(folder: Path, binder: Binder) -> None:
    """Make the index of the server's tests, with two items whose texts would be commands if they were read as HTML.

    Characters are in six groups, so that the little there is suffices to learn how probable a match is.
    """
    with make_index(folder, binder) as index:
        supply = Supply(glyphs(), ("image", "text", "outline"), 1.0)
        for name, items in embed(binder, [supply], previews=True)[0].items():
            groups = [f"group {place % 6}" for place in range(len(items.keys))]
            index.add(name, replace(items, groups=groups), update=True)
        vectors = binder.encode("text", [HOSTILE, "hostile"])
        previews = [Preview(png=png(), text=HOSTILE, caption=HOSTILE, path=f"/srv/{HOSTILE}"), Preview(text=HOSTILE)]
        metadata: list[Mapping[str, str | float | None]] = [{HOSTILE: HOSTILE, "danger": 1.0}, {"danger": 1.0}]
        keys = [HOSTILE_KEY, HOSTILE]
        index.add("image", Embedded(vectors, keys, keys, previews, metadata=metadata))
        index.calibrate()


def question(request: Request) -> dict[str, Any]:
    """Return what a request without files asks of /search."""
    asked: dict[str, Any] = json.loads(request.post_data or "")
    return asked


def drop(page: Page, name: str, kind: str, data: bytes, *, more: int = 0, event: str = "drop") -> None:
    """Drop a file on the page, or paste it.

    Args:
        more: zeros behind the data.
    """
    page.evaluate(
        """([name, type, bytes, more, event]) => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes), new Uint8Array(more)], name, { type }));
          document.body.dispatchEvent(event === 'drop'
            ? new DragEvent('drop', { dataTransfer: held, bubbles: true, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: held, bubbles: true, cancelable: true }));
        }""",
        [name, kind, list(data), more, event],
    )


def names(page: Page) -> list[tuple[str, str]]:
    """Return modality and key of the answers, the best first."""
    told: list[str] = page.locator(".card").evaluate_all("all => all.map((one) => one.dataset.name)")
    return [(modality, key) for modality, key in map(json.loads, told)]


def ask(page: Page, words: str) -> None:
    """Search by words, and wait for the answers."""
    with page.expect_request_finished(
        lambda one: "/search" in one.url and question(one)["terms"][0].get("text") == words
    ):
        page.get_by_label("Words to search by").fill(words)
    expect(page.get_by_role("status")).to_contain_text("answers among")
