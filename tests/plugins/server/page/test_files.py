"""The files of the page."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from mmssl_server.limits import Limits
from mmssl_server.page_routes import FOLDER

from ..serving import make_binder, open_library, serving


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
