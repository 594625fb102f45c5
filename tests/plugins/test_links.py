"""Members of archives that the items of a Hugging Face dataset name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mmssl_sources.features import Link, locate


def test_members_of_archives_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/1.png", b"a picture")
    found = locate(f"zip://d/1.png::{tmp_path / 'a.zip'}", tmp_path)
    assert isinstance(found, Link)
    assert found.read() == b"a picture"


@pytest.mark.parametrize("damage", ["beginning", "whole", "member", "gone"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_a_broken_archive_no_error_comes_but_those_of_a_lazy_item(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"a.{kind}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # it is no tar, too
        archive.writestr("1.txt", bytes(range(256)) * 9)
    whole = bytearray(path.read_bytes())
    whole[40:60] = b"\xff" * 20
    path.write_bytes({"beginning": b"PK\3\4junk", "whole": b"", "member": bytes(whole), "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises((OSError, ValueError), match=r"."):
        Link(f"{kind}://1.txt::{path}").read()
