"""The pairing source ``html``."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmssl_sources
from mmssl_sources.html import Html
from multimodal_ssl import Catalog, InputError, UnreadableError
from multimodal_ssl.testing import check_pairing_source

VOICES = ["alt", "figcaption", "title", "near"]


def open_html(path: Path, voice: Any = "alt", **options: Any) -> Html:
    options = {"path": path, "voice": voice, **options}
    return Catalog.of(sources=mmssl_sources).create("pairing_sources", "html", options=options)


def site(root: Path, body: str | bytes, *files: str) -> Path:
    """Write index.html and pictures, each of another colour."""
    root.mkdir(exist_ok=True)
    (root / "index.html").write_bytes(body if isinstance(body, bytes) else body.encode())
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 9 * number).save(root / name, "PNG")
    return root


def texts(root: Path, voice: Any = "near") -> list[str]:
    return [sample.items["text"] for sample in open_html(root, voice)]


def told(source: Html) -> str:
    return "\n".join(": ".join(one) for one in source.skipped)


def test_each_voice_says_its_text_under_the_same_key(tmp_path: Path) -> None:
    body = """<title> A  shop </title><h2>Heading</h2><figure><a title="Link title"><img src="x_files/a%20b.png"
        alt="An &eacute;t&#233;"></a><figcaption>The <b>cap</b>tion</figcaption></figure>"""
    root = site(tmp_path / "s", body, "x_files/a b.png")
    said = dict(zip(VOICES, ["An été", "The caption", "Link title", "Heading"], strict=True))
    for voice, text in said.items():
        source = open_html(root, voice, metadata=["title", "page", "voice", "charset"])
        check_pairing_source(source)
        (sample,) = pickle.loads(pickle.dumps(source))
        assert sample.key == "index.html#x_files/a b.png"
        assert sample.items == {"image": root / "x_files/a b.png", "text": text}
        known = {"title": "A shop", "page": "index.html", "voice": voice, "charset": "utf-8"}
        assert sample.metadata == known
    assert texts(root, ["title", "alt"]) == ["Link title"]
    assert list(open_html(root / "index.html")) == list(open_html(root))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<p>around <img src=a.png> it</p><p>after", "around it"),
        ("<h3>before</h3><img src=a.png><p>after", "before"),
        ("<div><h3>other</h3></div><div><img src=a.png><h3>mine</h3></div>", "mine"),
        ("<li><div><img src=a.png></div> card</li><p>after", "card"),
        ("<h3>far</h3><p>between</p><img src=a.png><p>after", "after"),
        ("<script>no</script><template><p>no</p></template><!-- no --><style>no</style><img src=a.png><p>yes", "yes"),
        ("<div><img src=a.png><p hidden>no</p><p aria-hidden=true>no</p><p style='display: none'>no</p><p>yes", "yes"),
        ("<p><b><i><img src=a.png>un</b>closed</i><td></p></div></div></html>", "unclosed"),
        ("<p>nu\0l<img src=a.png>", "nul"),
        ("<!DOCTYPE x [<!ENTITY a 'lol'><!ENTITY b '&a;&a;'>]><p>&b; <img src=a.png>", "&b;"),
    ],
)
def test_the_nearest_text_is_as_defined(tmp_path: Path, body: str, expected: str) -> None:
    assert texts(site(tmp_path / "s", body, "a.png")) == [expected]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("<img src=a.png srcset='gone.png 900w, b.png 800w, a.png 100w' alt=x>", "b.png"),
        ("<picture><source srcset='b.png 2x'><img src=a.png alt=x></picture>", "b.png"),
        ("<img src='data:image/gif;base64,R0lGOD' data-src='b.png?v=1' alt=x>", "b.png"),
        ("<base href='sub/'><img src=c.png alt=x>", "sub/c.png"),
        ("<base href='https://x.org/'><img src=a.png alt=x>", "a.png"),
        ("<img src='/sub/c.png' alt=x>", "sub/c.png"),
    ],
)
def test_the_best_address_that_is_there_is_taken(tmp_path: Path, image: str, expected: str) -> None:
    root = site(tmp_path / "s", image, "a.png", "b.png", "sub/c.png")
    assert [sample.items["image"] for sample in open_html(root)] == [root / expected]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("src=../secret.png", "leads out"),
        ("src=..%2fsecret.png", "leads out"),
        (r"src=..\secret.png", "leads out"),
        ("src=file:///etc/passwd", "leads out"),
        ("src=link.png", "a link out"),
        ("src=linked/secret.png", "a link out"),
        ("src=https://x.org/a.png", "elsewhere, at x.org"),
        ("src=//x.org/a.png", "elsewhere, at x.org"),
        ("src=a%00.png", "NUL"),
        ("src=http://[bad", "broken"),
        ("src=blob:1", "begins with blob:"),
        ("src=gone.png", "no such file"),
        ("src=" + "a" * 9999, "no such file"),
        ("", "it has no src"),
        ("src=data:text/html,x", "no image"),
        (f"src=data:image/png;base64,{'A' * 9000}", "max_data_mb"),
        ("src=ok.png hidden", "hidden"),
        ("src=ok.png role=presentation", "decorative"),
    ],
)
def test_what_gives_no_picture_is_told_and_nothing_outside_is_read(tmp_path: Path, image: str, reason: str) -> None:
    root = site(tmp_path / "s", f"<img src=ok.png alt=good><img alt=bad {image}><img src=ok.png alt=''>", "ok.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    source = open_html(root, max_data_mb=0.001)
    assert [sample.items["text"] for sample in source] == ["good"]
    ours = [why for place, why in source.skipped if "picture 2" in place]
    assert len(ours) == 1
    assert reason in ours[0]
    assert "its alt is empty" in told(source)


def test_pictures_in_the_page_are_decoded_when_read(tmp_path: Path) -> None:
    root = site(tmp_path / "s", "", "a.png")
    data = (root / "a.png").read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    body = f"<img src='{uri}' alt=one><img src=a.png alt=two><img src='data:image/png;base64,!!!' alt=broken>"
    (root / "index.html").write_text(body)
    source = open_html(root)
    assert source[0].items["image"] == data
    assert source[0].group == source[1].group == "a.png"
    with pytest.raises(UnreadableError, match="no base64"):
        source[2]


def test_the_same_picture_is_one_group_and_its_keys_do_not_depend_on_the_voice(tmp_path: Path) -> None:
    body = (
        "<img src=a.png alt=logo title=x><img src=a.png alt=cat title=y><img src=b.png alt=dog><img src=a.png alt=cat>"
    )
    root = site(tmp_path / "s", body, "a.png", "b.png")
    (root / "copy.png").write_bytes((root / "a.png").read_bytes())
    (root / "z.htm").write_text("<img src=copy.png alt=kitten>")
    alt, title = open_html(root), open_html(root, "title")
    assert [(one.key, one.items["text"], one.group) for one in alt] == [
        ("index.html#a.png (2)", "cat", "a.png"),
        ("index.html#b.png", "dog", "b.png"),
        ("z.htm#copy.png", "kitten", "a.png"),
    ]
    assert [one.key for one in title] == ["index.html#a.png", "index.html#a.png (2)"]
    assert "'logo' is boilerplate" in told(alt)
    assert "says the same" in told(alt)
    assert alt.manifest().group is not None
    assert len(set(alt.manifest().group.tolist())) == 2


@pytest.mark.parametrize(
    "text", ["image", "Logo", "IMG_1234.jpg", "DSC01234", "a-b.webp", "photo-3", "12", "https://x"]
)
def test_boilerplate_is_skipped_and_patterns_can_be_given(tmp_path: Path, text: str) -> None:
    root = site(tmp_path / "s", f"<img src=a.png alt='{text}'><img src=a.png alt='a red image'>", "a.png")
    assert texts(root, "alt") == ["a red image"]
    assert len(open_html(root, skip=[])) == 2
    assert len(open_html(root, skip=[], min_words=2)) == 1
    with pytest.raises(InputError, match="no picture has a text"):
        open_html(root, max_words=1)


@pytest.mark.parametrize(
    ("declared", "encoding", "charset", "said"),
    [
        ("utf-8", "utf-8", "utf-8", ""),
        ("latin-1", "utf-8", "utf-8", ""),
        ("koi8-r", "koi8-r", "koi8-r", ""),
        ("utf-8", "latin-1", "latin-1", "declared as 'utf-8', which it is not"),
        ("", "latin-1", "latin-1", "declares no charset"),
        ("unicode_escape", "latin-1", "latin-1", "declared as 'unicode_escape'"),
    ],
)
def test_the_charset_is_utf_8_then_the_declared_then_latin_1(
    tmp_path: Path, declared: str, encoding: str, charset: str, said: str
) -> None:
    word = "кот" if encoding == "koi8-r" else "été"
    meta = f"<meta charset={declared}>" if declared else ""
    source = open_html(
        site(tmp_path / "s", f"{meta}<img src=a.png alt={word}>".encode(encoding), "a.png"), metadata=["charset"]
    )
    assert source[0].items["text"] == word
    assert source[0].metadata == {"charset": charset}
    assert (said in told(source)) if said else not source.skipped


def test_deep_huge_and_inner_pages_are_told(tmp_path: Path) -> None:
    root = site(tmp_path / "s", "<img src=a.png alt=first>" + "<div>" * 100_000 + "<img src=a.png alt=lost>", "a.png")
    (root / "big.html").write_text("x" * 2_000_000)
    (root / "index_files").mkdir()
    (root / "index_files" / "frame.html").write_text("<img src=../a.png alt=advertisement>")
    source = open_html(root, max_page_mb=1)
    assert [sample.items["text"] for sample in source] == ["first"]
    for words in ("more than 2048 deep", "big.html: the page is larger", "frame.html: it is part of another"):
        assert words in told(source)


def test_what_can_t_be_a_source_is_refused(tmp_path: Path) -> None:
    root = site(tmp_path / "s", "<img src=a.png alt=x>", "a.png")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"skip": ["("]}, "no regular expression"),
        ({"voice": []}, "voice must name"),
        ({"min_words": 3, "max_words": 2}, "less than min_words"),
        ({"voice": "altt"}, "voice"),
    ]
    for options, words in wrong:
        with pytest.raises(InputError, match=words):
            open_html(root, **{"voice": "alt", **options})
    with pytest.raises(InputError, match="is no page"):
        open_html(root / "a.png")
