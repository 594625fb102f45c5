from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import Browser

from multimodal_ssl import Catalog
from multimodal_ssl.config import parse_sources
from multimodal_ssl.inspect_page import write_page
from multimodal_ssl.inspection import inspect_sources
from multimodal_ssl.pipeline import open_supplies

from .browsers import needs_chromium

HOSTILE = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 2<∕script>'


def make_page(folder: Path) -> Path:
    """Write the page of a folder whose names and texts would be commands if they were read as HTML."""
    for number, name in enumerate(["plain", HOSTILE, "'\"><b>"]):
        Image.new("RGB", (20, 20), (number * 60, 0, 0)).save(folder / f"{name}.png")
        soundfile.write(folder / f"{name}.wav", np.sin(np.arange(800) * (number + 1) / 9), 8000)
        (folder / f"{name}.txt").write_text(HOSTILE.replace("∕", "/"))
        buffer = io.BytesIO()
        np.save(buffer, np.arange(40.0).reshape(2, 20) + number)
        (folder / f"{name}.npy").write_bytes(buffer.getvalue())
    (folder / "broken.png").write_text("<script>window.hacked = 3</script>")
    (folder / "broken.txt").write_text("broken")
    known = Catalog.discover()
    items = {"image": ".png", "audio": ".wav", "text": ".txt", "series": ".npy"}
    supplies = open_supplies(parse_sources([{"name": "folder", "path": str(folder), "items": items}]), known)
    found = inspect_sources(supplies, known, labels=[HOSTILE], title=HOSTILE, workers=0)
    write_page(folder / "inspect.html", replace(found, warnings=[*found.warnings, HOSTILE]))
    return folder / "inspect.html"


def test_the_page_has_no_address_but_its_own_data(tmp_path: Path) -> None:
    text = make_page(tmp_path).read_text()
    assert all(one.startswith("data:") for one in re.findall(r'<(?:img|audio|link)[^>]*(?:src|href)="([^"]*)"', text))
    assert "<script" not in text
    assert "http" not in text


@needs_chromium
def test_the_page_shows_hostile_names_as_text_and_fits_a_phone(tmp_path: Path, browser: Browser) -> None:
    path = make_page(tmp_path)
    failures: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda line: failures.append(line.text))
    page.on("request", lambda one: None if one.url.startswith(("data:", "file:")) else failures.append(one.url))
    page.goto(path.as_uri())
    assert page.evaluate("window.hacked") is None
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.locator(".sheet code", has_text="onerror").count() >= 1
    sources = page.locator("audio").evaluate_all("all => all.map((one) => one.src)")
    assert len(sources) >= 3
    assert all(one.startswith("data:audio/wav;base64,UklGR") for one in sources)
    broken = "all => all.filter((one) => !one.naturalWidth).length"
    assert page.locator("img").count() >= 9
    assert page.locator("img").evaluate_all(broken) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
    assert not failures
