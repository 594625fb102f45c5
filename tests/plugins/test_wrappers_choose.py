"""The sources that leave samples out: ``limit``, ``filter``, ``dedup`` and ``split``."""

from __future__ import annotations

import itertools
import pickle
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmssl_wrappers.dedup import ByHash, deduplicate
from mmssl_wrappers.near import difference_hash, pairs_above, pairs_within
from multimodal_ssl import BrokenItem, Catalog, InputError, MapSource, PairingSource, Sample
from multimodal_ssl.config import parse_config
from multimodal_ssl.pipeline import fit

from ..toys import Lazy
from .wrapping import Decoded, Listed, Sharded, check, keys, refusal, wrap

SAMPLES = [
    Sample(
        f"k{i}",
        {"a": f"a{i % 9}", "b": f"b{i}"} if i % 5 else {"a": f"a{i % 9}"},
        group=f"g{i % 6}" if i % 2 else "",
        metadata={"year": 2000 + i, "license": "MIT" if i % 3 else None, "odd": float("nan")},
    )
    for i in range(40)
]
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def both() -> list[PairingSource]:
    return [Listed(SAMPLES), Sharded(SAMPLES)]


@pytest.mark.parametrize("source", both())
def test_a_limit_takes_the_first_or_so_many_at_random(source: PairingSource) -> None:
    first, drawn = wrap("limit", source=source, count=10), wrap("limit", source=source, count=10, seed=1)
    check(first)
    check(drawn)
    assert keys(first) == keys(source)[:10]
    assert len(keys(drawn)) == 10
    assert (
        keys(drawn)
        == sorted(keys(drawn), key=keys(source).index)
        == keys(wrap("limit", source=source, count=10, seed=1))
    )
    assert keys(drawn) not in (keys(first), keys(wrap("limit", source=source, count=10, seed=2)))
    assert (
        keys(wrap("limit", source=source, count=99))
        == keys(wrap("limit", source=source, count=99, seed=0))
        == keys(source)
    )
    assert keys(pickle.loads(pickle.dumps(drawn))) == keys(drawn)


@pytest.mark.parametrize("source", both())
def test_a_filter_keeps_what_passes_all_conditions(source: PairingSource) -> None:
    found = wrap("filter", source=source, where="year >= 2010 and license = 'MIT'", has=["b"], key="[02468]$")
    check(found)
    wanted = [i for i in range(10, 40) if i % 3 and i % 5 and i % 2 == 0]
    assert keys(found) == [f"k{i}" for i in wanted]
    assert keys(pickle.loads(pickle.dumps(found))) == keys(found)
    assert keys(wrap("filter", source=source, where="\"group\" = 'g3' or key = 'k0'")) == [
        one.key for one in SAMPLES if one.group == "g3" or one.key == "k0"
    ]
    assert keys(wrap("filter", source=source, where="odd is null", has=["b"])) == [f"k{i}" for i in range(40) if i % 5]
    said = refusal(lambda: wrap("filter", source=source, where="yeer = 1"))
    assert "no sample has 'yeer': did you mean 'year'?" in said
    assert "none of 40 samples" in refusal(lambda: wrap("filter", source=source, where="year < 0"))
    assert "no items 'c'" in refusal(lambda: wrap("filter", source=source, has=["c"]))
    assert "no regular expression" in refusal(lambda: wrap("filter", source=source, key="("))
    assert "give a condition" in refusal(lambda: wrap("filter", source=source))


def test_what_can_t_be_read_stays_in_a_filter_and_a_dedup_and_has_one_part_in_a_split() -> None:
    source = Listed([SAMPLES[0], None, SAMPLES[1]])
    assert len(wrap("filter", source=source, where="year = 2001")) == 2
    assert len(wrap("dedup", source=source, by=["a"])) == 3
    parts = [len(wrap("split", source=source, part=part, shares={"x": 0.5, "y": 0.5}, seed=4)) for part in "xy"]
    assert sum(parts) == 3


def test_what_a_stream_can_t_read_stays_in_a_filter_and_does_not_count_as_passing() -> None:
    broken = Sample("broken", {"a": BrokenItem("its JSON can't be read"), "b": BrokenItem("its JSON can't be read")})
    stream = Sharded([broken, *SAMPLES[:5]])
    found = wrap("filter", source=stream, where="year = 2003", has=["b"], key="^k")
    check(found)
    assert keys(found) == ["broken", "k3"]
    assert "none of 6 samples" in refusal(lambda: wrap("filter", source=stream, where="year < 0"))


def test_an_item_that_is_damaged_is_equal_to_nothing_and_stays() -> None:
    clips = [Decoded(image=one) for one in (b"x", None, b"x", None)]
    source = Listed([Sample(f"k{i}", one) for i, one in enumerate(clips)], {"image": "image"})
    assert keys(wrap("dedup", source=source, by=["image"])) == ["k0", "k1", "k3"]
    assert len(wrap("dedup", source=source, by=["image"], near={"hash": 3})) == 3
    shares = {"x": 0.5, "y": 0.5}
    parts = [keys(wrap("split", source=source, part=part, shares=shares, by=["image"])) for part in shares]
    assert sorted(itertools.chain(*parts)) == ["k0", "k1", "k2", "k3"]
    assert all(("k0" in part) == ("k2" in part) for part in parts)


@pytest.mark.parametrize("source", both())
def test_of_samples_with_equal_bytes_the_first_stays(source: PairingSource, capsys: pytest.CaptureFixture[str]) -> None:
    left = wrap("dedup", source=source, by=["a"])
    check(left)
    assert keys(left) == [f"k{i}" for i in range(9)]
    assert capsys.readouterr().err == "dedup: 31 duplicates of 40 samples dropped\n"
    assert not left.skipped
    assert keys(wrap("dedup", source=source, by=["b"])) == [
        one.key for i, one in enumerate(SAMPLES)
    ]  # what has no b is equal to nothing
    grouped = wrap("dedup", source=source, by=["a"], then="group")
    check(grouped)
    groups = {one.key: one.group for one in grouped}
    for one, other in itertools.combinations(SAMPLES, 2):
        if one.items["a"] == other.items["a"] or (one.group and one.group == other.group):
            assert groups[one.key] == groups[other.key] != ""


def test_files_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    contents = {"1": b"same", "2": b"same", "3": b"diff", "4": b"longer"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    items: list[Any] = [*(tmp_path / name for name in contents), tmp_path / "gone", tmp_path / "gone", b"same", "diff"]
    items += [np.zeros(3), np.zeros(3), np.zeros(3, np.float32)]
    items += [Lazy(1, b"same"), Lazy(2, None), Lazy(3, None), Lazy(4, tmp_path / "4"), Lazy(5, "new"), Lazy(6, b"new")]
    source = Listed([Sample(str(i), {"a": item}) for i, item in enumerate(items)])
    assert keys(wrap("dedup", source=source, by=["a"])) == ["0", "2", "3", "4", "5", "8", "10", "12", "13", "15"]


def test_a_stream_whose_keys_come_again_is_refused_where_samples_are_known_by_them() -> None:
    twice = Sharded([Sample(f"k{i // 2}", {"a": f"a{i // 4}", "b": f"b{i}"}) for i in range(20)])
    rows = Listed(twice.samples)
    for name, options in {
        "limit": {"count": 7, "seed": 1},
        "dedup": {"by": ["a"]},
        "split": {"part": "x", "shares": {"x": 0.5, "y": 0.5}, "by": ["b"]},
    }.items():
        said = refusal(lambda name=name, options=options: wrap(name, source=twice, **options))
        assert re.fullmatch(rf"{name}.*: two samples of the source have the key 'k\d'; make its keys unique.*", said)
        assert 0 < len(wrap(name, source=rows, **options)) < 20  # rows are known by their number
    for seed in range(20):  # wherever the key that comes again lies
        with pytest.raises(InputError):
            wrap("limit", source=twice, count=1, seed=seed)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 14), st.sampled_from([3, 300, 1100, 2500]))
def test_all_pairs_of_near_hashes_are_found(seed: int, distance: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    for row in range(count // 2, count):  # neighbours of others
        for bit in rng.integers(0, 64, rng.integers(0, distance + 3)).tolist():
            hashes[row] ^= np.uint64(1 << bit)
        hashes[row] = hashes[row - count // 2] ^ np.bitwise_or.reduce(
            np.uint64(1) << rng.integers(0, 64, distance + int(rng.integers(0, 2)), np.uint64), initial=np.uint64(0)
        )
    found = {pair for i, j in pairs_within(hashes, distance) for pair in zip(i.tolist(), j.tolist(), strict=True)}
    i, j = np.nonzero(np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance, 1))
    assert found == set(zip(i.tolist(), j.tolist(), strict=True))


def test_vectors_are_near_by_their_cosine() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [pair for i, j in pairs_above(vectors, 0.95) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    pairs = itertools.combinations(range(300), 2)
    assert sorted(found) == [(i, j) for i, j in pairs if np.dot(vectors[i], vectors[j]) >= np.float32(0.95)]


def test_a_picture_saved_anew_is_a_near_duplicate_and_plain_ones_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        picture = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((90, 90), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{n}.png")
        picture.resize((60, 64)).save(tmp_path / f"{n}.jpg", quality=60)
    for name, colour in (("red", "red"), ("blue", "blue"), ("red again", "red")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    samples = [Sample(path.name, {"image": path}) for path in sorted(tmp_path.iterdir())]
    source = Listed(samples, {"image": "image"})
    lazy = [Sample(one.key, {"image": Lazy(i, one.items["image"].read_bytes())}) for i, one in enumerate(samples)]
    left, dropped = deduplicate(source, ["image"], ByHash(6), "drop")
    assert dropped == [("0.png", "0.jpg"), ("1.png", "1.jpg"), ("2.png", "2.jpg"), ("red.png", "red again.png")]
    assert len(keys(left)) == len(samples) - 4
    assert deduplicate(Listed(lazy, {"image": "image"}), ["image"], ByHash(6), "drop").dropped == dropped
    assert keys(wrap("dedup", source=source, by=["image"], near={"hash": 6})) == keys(left)
    assert difference_hash(Image.new("L", (5, 5), 7)) is None
    for wrong in ({"hash": 65}, {"hash": 1.5}, {"run": "x"}, {}):
        assert "give {hash: 3}" in refusal(lambda wrong=wrong: wrap("dedup", source=source, by=["image"], near=wrong))


def test_what_a_run_finds_near_is_a_near_duplicate(tmp_path: Path) -> None:
    texts = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cup", "box", "hat", "Cup")]
    (tmp_path / "t.csv").write_text("text,other\n" + "\n".join(f"{one},{one[::-1]}" for one in texts))
    text = {"name": "small-text", "width": 16, "depth": 1, "heads": 1, "vocabulary": 300, "length": 8, "drop": 0.0}
    columns = {"text": "text", "other": {"column": "other", "modality": "text"}}
    config = parse_config(
        {
            "run": str(tmp_path / "run"),
            "sources": [{"name": "table", "path": str(tmp_path / "t.csv"), "columns": columns}],
            "encoders": {"text": text, "other": text},
            "train": {"steps": 2, "batch": 4, "workers": 0},
        }
    )
    binder = fit(config)
    samples = [Sample(str(i), {"text": one}) for i, one in enumerate(texts)]
    vectors = binder.encode("text", texts)
    above = float(np.quantile((vectors @ vectors.T)[np.triu_indices(len(texts), 1)], 0.8))
    near = {"run": str(tmp_path / "run"), "above": above}
    stays: list[int] = []
    for i in range(len(texts)):
        if not any(vectors[i] @ vectors[j] >= above for j in stays):
            stays.append(i)
    assert 2 < len(stays) < len(texts)
    assert keys(wrap("dedup", source=Listed(samples), by=["text"], near=near)) == [str(i) for i in stays]
    said = refusal(lambda: wrap("dedup", source=Listed([Sample("0", {"image": "x"})]), by=["image"], near=near))
    assert "has no encoder of 'image': other, text" in said


@st.composite
def rows(draw: st.DrawFn) -> list[Sample]:
    some = draw(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30), st.integers(0, 30)), min_size=20, max_size=80)
    )
    return [
        Sample(f"k{i}", {"a": f"{a}", "b": f"{b}"}, group=f"g{group}" if group else "")
        for i, (group, a, b) in enumerate(some)
    ]


def parts_of(source: PairingSource, **options: Any) -> dict[str, str]:
    """Return the part of each key; each has one."""
    part_of: dict[str, str] = {}
    for part in SHARES:
        try:
            found = wrap("split", source=source, part=part, shares=SHARES, **options)
        except InputError as error:
            if f"no sample is in the part {part!r}" not in str(error):
                raise
            continue
        for key in keys(found):
            assert key not in part_of
            part_of[key] = part
    assert part_of.keys() == set(keys(source))
    return part_of


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows(), st.integers(0, 5))
def test_no_group_and_no_item_is_in_two_parts(samples: list[Sample], seed: int) -> None:
    by_group, by_item = (parts_of(Listed(samples), seed=seed, by=by) for by in ("group", ["a"]))
    parts: dict[str, set[str]] = defaultdict(set)
    for one in samples:
        if one.group:
            parts[f"group {one.group}"].add(by_group[one.key])
            parts[f"by item, group {one.group}"].add(by_item[one.key])
        parts[f"item {one.items['a']}"].add(by_item[one.key])
    assert all(len(some) == 1 for some in parts.values())
    assert parts_of(Sharded(samples), seed=seed) == by_group
    assert parts_of(Sharded(samples), seed=seed, by=["a"]) == by_item
    fewer = parts_of(Listed(samples[::2]), seed=seed)
    assert fewer == {key: by_group[key] for key in fewer}


def test_parts_are_as_large_as_their_shares_and_of_the_same_manifest() -> None:
    many = Listed([Sample(f"{i}", {"a": "x", "b": str(i)}, group=f"g{i // 3}") for i in range(3000)])
    sizes = {part: len(wrap("split", source=many, part=part, shares=SHARES)) for part in SHARES}
    assert all(abs(sizes[part] / 3000 - share) < 0.04 for part, share in SHARES.items()), sizes
    items = Listed([Sample(f"{i}", {"a": str(i // 30)}) for i in range(9000)])
    size = len(wrap("split", source=items, part="train", shares=SHARES, by=["a"]))
    assert abs(size / 9000 - 0.6) < 0.1  # the least of many hashes is not what is drawn
    for source in both():
        part = wrap("split", source=source, part="train", shares=SHARES)
        check(part)
        if isinstance(part, MapSource):
            known = part.manifest()
            assert known.length is not None
            assert known.length[:, 0].tolist() == [float(key[1:]) for key in keys(part)]
    assert "largest lot that belongs together has 3,000" in refusal(
        lambda: [wrap("split", source=many, part=part, shares=SHARES, by=["a"]) for part in SHARES]
    )
    assert "did you mean 'train'?" in refusal(lambda: wrap("split", source=many, part="trian", shares=SHARES))
    assert "their sum 1 (it is 0.9)" in refusal(lambda: wrap("split", source=many, part="x", shares={"x": 0.9}))


def test_sources_within_sources_are_opened_by_name_and_an_error_says_which_it_was(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,other\n" + "".join(f"t{i % 30},o{i}\n" for i in range(60)))
    table = {
        "name": "table",
        "path": str(tmp_path / "t.csv"),
        "columns": {"text": "text", "other": {"column": "other", "modality": "text"}},
    }
    catalog = Catalog.discover()

    def nest(inner: dict[str, Any]) -> PairingSource:
        deduped = {"name": "dedup", "source": inner, "by": ["text"]}
        options = {"source": deduped, "part": "train", "shares": SHARES}
        made: PairingSource = catalog.create("pairing_sources", "split", options=options)
        return made

    source = nest(table)
    check(source)
    assert 5 < len(keys(source)) < 30
    begin = "'split', option source: 'dedup', option source: "
    assert refusal(lambda: nest({**table, "path": "gone.csv"})).startswith(begin + "'table': ")
    assert refusal(lambda: nest({**table, "colums": {}})).startswith(begin + "'table' has no option 'colums'")
    assert refusal(lambda: nest({**table, "name": "tabel"})).startswith(begin + "no pairing source is named 'tabel'")
    mixed = {"sources": [table, {**table, "path": "gone.csv"}]}
    said = refusal(lambda: catalog.create("pairing_sources", "mix", options=mixed))
    assert said.startswith("'mix', option sources.1: 'table': ")
