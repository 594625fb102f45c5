"""Files and members of archives that the items of a Hugging Face dataset name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import datasets
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


def test_a_dataset_of_the_hub_can_name_no_other_file_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for value in ("/etc/passwd", "a.png", "../a.png", str(tmp_path / "cache" / ".." / "x")):
        with pytest.raises(ValueError, match="did not come with the dataset"):
            locate(value, None)
    for value in ("http://a.b/c.png", "file:///etc/passwd", "filecache::hf://datasets/a/b", "ftp://x"):
        with pytest.raises(ValueError, match="URLs are not fetched"):
            locate(value, None)
    assert locate(str(tmp_path / "cache" / "x.png"), None) == tmp_path / "cache" / "x.png"
    assert locate("hf://datasets/a/b@c/d.png", None) == Link("hf://datasets/a/b@c/d.png")
