"""What lies where in a tar archive, against Python's tarfile."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmssl_sources.addresses import open_stream
from mmssl_sources.tars import BLOCK, LONGEST_NAME, Member, members

from .tables import quick

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = ["a.txt", "./b.tar.gz.x", "Straße/ü.txt", "d/" * 60 + "long.jpg", "n" * 90 + ".jpg", "e/empty", "z\n.txt"]
NO_HEADER = "there is no header where one should be"
NO_END = "the archive ends here, without its mark of the end"


def pack(entries: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT, **header: Any) -> bytes:
    """Return an archive of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, pax_headers=header.pop("pax", None)) as tar:
        for name, body in entries:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            for field, value in header.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def reference(archive: bytes) -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [Member(one.name, one.offset_data, one.size) for one in tar if one.isfile()]


def walk(archive: bytes) -> list[Member]:
    return list(members(io.BytesIO(archive), len(archive)))


def good(archive: bytes) -> list[Member]:
    return [one for one in walk(archive) if not one.wrong]


def edited(archive: bytes, at: int, **fields: bytes) -> bytes:
    """Return the archive with other fields in the header at a place, and the sum of it put right."""
    places = {"size": 124, "type": 156, "name": 0}
    header = bytearray(archive[at : at + BLOCK])
    for name, value in fields.items():
        header[places[name] : places[name] + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return archive[:at] + bytes(header) + archive[at + BLOCK :]


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_where_tarfile_finds_them(kind: int) -> None:
    entries = [(name, bytes([i]) * (i * 300)) for i, name in enumerate(NAMES)]
    assert walk(pack(entries, kind)) == reference(pack(entries, kind))
    assert len(reference(pack(entries, kind))) == len(NAMES)


NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=140)


@quick
@given(st.sampled_from(FORMATS[1:]), st.lists(st.tuples(NAME, st.binary(max_size=1500)), max_size=6))
def test_any_archive_is_read_as_tarfile_reads_it(kind: int, entries: list[tuple[str, bytes]]) -> None:
    entries = [(f"k{name.replace('/', '-')}.x", body) for name, body in entries]
    assert walk(pack(entries, kind)) == reference(pack(entries, kind))


def test_large_sizes_are_read_in_base_256_and_from_pax() -> None:
    size = 9 << 30
    whole = pack([("a.bin", b"")], tarfile.GNU_FORMAT)
    large = edited(whole, 0, size=b"\x80" + size.to_bytes(11))
    assert next(members(io.BytesIO(large))) == Member("a.bin", BLOCK, size)
    pax = pack([("a.bin", b"abc")], pax={"size": "3"})
    assert good(pax) == reference(pax)


def test_folders_are_passed_over_and_no_bytes_follow_what_is_no_file() -> None:
    for kind, why in ((b"5", None), (b"1", "hard link"), (b"2", "symbolic"), (b"3", "device"), (b"6", "pipe")):
        archive = edited(pack([("x", b""), ("b.txt", b"b")]), 0, type=kind, size=b"00000007777\0")
        found = walk(archive)
        assert found[-1] == reference(archive)[-1] == Member("b.txt", 2 * BLOCK, 1)
        assert [why in one.wrong for one in found[:-1] if one.wrong and why] == [True] * (why is not None)
    assert walk(edited(pack([("v7/", b"")]), 0, type=b"\0", name=b"v7/")) == []


def test_sparse_files_and_unknown_types_are_told() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("s.bin")
        info.pax_headers = {"GNU.sparse.major": "1"}
        tar.addfile(info)
    assert [one.wrong for one in walk(archive.getvalue())] == ["it is a sparse file"]
    for kind, why in ((b"S", "it is a sparse file"), (b"Z", "it is of the unknown type b'Z'")):
        assert [one.wrong for one in walk(edited(pack([("x", b"")]), 0, type=kind))] == [why]


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.txt", "a/../../b.txt"])
def test_paths_that_lead_out_are_told(name: str) -> None:
    assert [one.wrong for one in walk(pack([(name, b"x")]))] == ["its path leads out of the archive"]


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80" + (1 << 59).to_bytes(11), b"7" * 11]
)
def test_sizes_that_lie_are_told_and_read_nothing(size: bytes) -> None:
    archive = edited(pack([("a.txt", b""), ("b.txt", b"b")]), 0, size=size)
    assert walk(archive)[0].wrong in (NO_HEADER, "the archive ends within it")
    for one in members(io.BytesIO(archive)):  # the length not known
        assert one.size < 1 << 60


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000, "-3", "x"])
def test_sizes_of_pax_that_lie_are_told(digits: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.txt")
        info.pax_headers = {"size": digits}
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("b.txt"))
    first, second = walk(archive.getvalue())
    assert first.wrong is not None
    assert first.wrong.startswith("its size is")
    assert second.name == "b.txt"


def test_an_extended_header_of_gigabytes_is_not_read() -> None:
    archive = edited(pack([("n" * 200, b"x")], tarfile.GNU_FORMAT), 0, size=b"77777777777\0")
    assert "an extended header of 8,589,934,591 bytes" in str(walk(archive)[0].wrong)
    body = b"n" * (LONGEST_NAME + 1)
    archive = edited(pack([("x", body), ("b.txt", b"")]), 0, type=b"L")
    assert [one.wrong for one in walk(archive)][1:] == ["the extended header before it can't be read"]


ENTRIES = [(f"{i}.txt", bytes([65 + i]) * (400 * i)) for i in range(5)]


def test_wherever_an_archive_is_cut_off_what_is_whole_is_found_and_the_rest_is_told() -> None:
    archive = pack(ENTRIES, tarfile.GNU_FORMAT)
    whole = reference(archive)
    end = whole[-1].offset + -(-whole[-1].size // BLOCK) * BLOCK
    for cut in range(0, end, 37):
        found = walk(archive[:cut])
        assert [one for one in found if not one.wrong] == [one for one in whole if one.offset + one.size <= cut]
        assert any(one.wrong for one in found)
    assert [one.wrong for one in walk(archive[:end])] == [None] * 5 + [NO_END]


def test_damage_is_told_and_the_members_after_it_are_found() -> None:
    archive, chance = pack(ENTRIES, tarfile.GNU_FORMAT), random.Random(0)
    whole = reference(archive)
    headers = [one.offset - BLOCK for one in whole]
    for trial in range(300):
        broken, hit = bytearray(archive), set[int]()
        for _ in range(chance.randint(1, 3)):
            block = chance.randrange((whole[-1].offset + whole[-1].size) // BLOCK) * BLOCK
            if trial % 3 == 0:
                broken[block : block + BLOCK] = bytes(BLOCK)
            elif trial % 3 == 1:
                broken[block : block + BLOCK] = chance.randbytes(BLOCK)
            else:
                broken[block + chance.randrange(100)] ^= 1 << chance.randrange(8)
            hit.add(block)
        if trial % 3 == 2 and bytes(broken) == archive:
            continue
        found = walk(bytes(broken))
        unharmed = [one for one, header in zip(whole, headers, strict=True) if header not in hit]
        assert [one for one in found if not one.wrong] == unharmed
        assert any(one.wrong for one in found) == bool(hit & set(headers))


def test_a_zeroed_sector_is_not_taken_for_the_end() -> None:
    archive = bytearray(pack(ENTRIES, tarfile.GNU_FORMAT))
    whole = reference(bytes(archive))
    archive[whole[1].offset - BLOCK : whole[2].offset - BLOCK] = bytes(whole[2].offset - whole[1].offset)
    assert walk(bytes(archive)) == [
        whole[0], Member(f"byte {whole[1].offset - BLOCK}", whole[2].offset - BLOCK, 0, NO_HEADER), *whole[2:]
    ]  # fmt: skip


class Pipe:
    """Gives what comes next, and can't go back."""

    def __init__(self, body: bytes) -> None:
        self.file = io.BytesIO(body)
        self.read, self.tell = self.file.read, self.file.tell

    def seekable(self) -> bool:
        return False


def test_a_file_that_cannot_seek_gives_the_same(tmp_path: Path) -> None:
    archive = pack([(name, b"x" * 2000) for name in NAMES])
    assert list(members(cast(BinaryIO, Pipe(archive)))) == reference(archive)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(archive))
    with open_stream(str(tmp_path / "a.tar.gz")) as file:
        assert [(one, file.read(one.size)) for one in members(file)] == [
            (one, b"x" * 2000) for one in reference(archive)
        ]
