"""The sources that are made of several: ``mix`` and ``co-label``."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmssl_sources import open_webdataset
from mmssl_wrappers.co_label import pair
from multimodal_ssl import MapSource, PairingSource, Sample
from multimodal_ssl.config import CorruptConfig
from multimodal_ssl.corrupt import corrupted
from multimodal_ssl.map_order import MapOrder

from .wrapping import Listed, Sharded, check, keys, refusal, wrap

LARGE = [Sample(f"k{i}", {"a": f"{i}", "b": f"{i}"}, group=f"g{i % 4}" if i % 2 else "") for i in range(60)]
SMALL = [Sample(f"k{i}", {"b": f"{i}", "a": f"{i}"}, group=f"g{i % 4}") for i in range(20)]


def visits(source: MapSource, epochs: int) -> Counter[str]:
    """Count the visits of samples by what is before the / of their key."""
    order = MapOrder(source, ["a", "b"], batch=10, seed=[0])
    rows = [row for n in range(order.per_epoch * epochs) for row in order[n][1]]
    assert order.per_epoch == 8
    return Counter(source[row].key.split("/")[0] for row in rows)


def test_a_mix_visits_each_source_by_its_share() -> None:
    sources = [Listed(LARGE), Listed(SMALL, {"b": "text", "a": "text"})]
    plain = wrap("mix", sources=sources)
    check(plain)
    assert keys(plain) == [f"0/k{i}" for i in range(60)] + [f"1/k{i}" for i in range(20)]
    assert plain.manifest().frequency is None
    assert visits(plain, 10) == {"0": 600, "1": 200}
    even = visits(wrap("mix", sources=sources, weights=[2, 2]), 20)
    assert even["0"] == pytest.approx(800, rel=0.05)
    warm = wrap("mix", sources=sources, temperature=2)
    assert visits(warm, 20)["1"] == pytest.approx(1600 * 20**0.5 / (20**0.5 + 60**0.5), rel=0.05)
    assert warm.manifest().frequency.sum() == pytest.approx(80)
    length = plain.manifest().length
    assert length[:, 1].tolist() == [*range(60), *range(20)]
    assert keys(pickle.loads(pickle.dumps(plain))) == keys(plain)


def test_groups_of_two_sources_are_apart_unless_they_are_shared() -> None:
    sources = [Listed(LARGE), Listed(SMALL)]
    for shared in (False, True):
        source = wrap("mix", sources=sources, share_groups=shared)
        numbers = source.manifest().group
        names = [one.group or one.key for one in source]
        assert len(set(zip(numbers.tolist(), names, strict=True))) == len(set(numbers.tolist())) == len(set(names))
        assert ("g1" in names) == shared


def test_streams_mix_shard_by_shard_and_without_weights() -> None:
    for sources in ([Sharded(LARGE), Sharded(SMALL)], [Sharded(LARGE), Listed([*SMALL, None])]):
        source = wrap("mix", sources=sources)
        check(source)
        assert len(keys(source)) == 80
        assert list(source.skipped) == ([("1/broken 20", "broken")] if isinstance(sources[1], Listed) else [])
        assert "need random access" in refusal(lambda sources=sources: wrap("mix", sources=sources, weights=[1, 2]))


def test_what_a_stream_skips_is_told_once_by_all_that_is_made_of_it(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("0.a", "0.b", "1.a", "1.b", "1.pkl"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"text"))

    def open_tar() -> PairingSource:
        kinds = {"a": "text", "b": "text"}
        return open_webdataset(path=str(tmp_path / "s.tar"), items={"a": "a", "b": "b"}, modalities=kinds, stream=True)

    pickle_told = ("s/1.pkl", "it is a pickle, which could run anything: never loaded")
    for name, options in {
        "limit": {"count": 9},
        "filter": {"has": ["a"]},
        "dedup": {"by": ["b"], "then": "group"},
    }.items():
        source = wrap(name, source=open_tar(), **options)
        assert len(keys(source)) == len(keys(source)) == 2
        assert list(source.skipped) == [pickle_told]
    nested = wrap("limit", source=wrap("mix", sources=[open_tar(), Listed(SMALL)]), count=99)
    copy = pickle.loads(pickle.dumps(nested))
    for source in (nested, copy):
        assert not source.skipped
        assert len(keys(source)) == len(keys(source)) == 22
        assert list(source.skipped) == [("0/s/1.pkl", pickle_told[1])]
    corrupt = corrupted(open_tar(), CorruptConfig(words=0.5, item="a"), ["a", "b"])
    assert len(keys(corrupt)) == 2
    assert list(corrupt.skipped) == [pickle_told]


def test_a_mix_that_can_t_be_is_refused() -> None:
    one = Listed(LARGE)
    assert "give two or more" in refusal(lambda: wrap("mix", sources=[one]))
    assert "give each of 2 sources" in refusal(lambda: wrap("mix", sources=[one, one], weights=[1]))
    assert "1 where there are weights" in refusal(
        lambda: wrap("mix", sources=[one, one], weights=[1, 1], temperature=2)
    )
    other = Listed(SMALL, {"a": "image", "b": "text"})
    assert "'a' is 'text' in one source and 'image'" in refusal(lambda: wrap("mix", sources=[one, other]))
    assert "source 1 is empty" in refusal(lambda: wrap("mix", sources=[one, Listed([], {"a": "text"})]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=4), st.integers(1, 9), st.integers(0, 2**32))
def test_pairs_differ_and_use_each_item_of_the_largest_alike(sizes: list[int], repeats: int, seed: int) -> None:
    pairs = pair([[*range(size)] for size in sizes], repeats=repeats, seed=seed)
    assert len(set(pairs)) == len(pairs)
    largest = max(sizes)
    turns = min(repeats, int(np.prod(sizes)) // largest)
    for place, size in enumerate(sizes):
        used = Counter(one[place] for one in pairs)
        assert set(used) == set(range(size))
        assert max(used.values()) - min(used.values()) <= turns
    assert set(Counter(one[sizes.index(largest)] for one in pairs).values()) == {turns}


def test_collections_are_paired_by_their_label(capsys: pytest.CaptureFixture[str]) -> None:
    pictures = Listed([Sample(f"p+{i}", {"a": f"{i}", "word": f"w{i % 3}"}, weight=0.5) for i in range(12)])
    sounds = Listed(
        [Sample(f"{i}", {"b": f"{i}"}, weight=0.5, metadata={"word": f"w{i % 4}"}) for i in range(8)]
        + [None, Sample("x", {"b": "x"}, metadata={"word": ""})]
    )
    source = wrap("co-label", sources={"pictures": pictures, "sounds": sounds}, label="word", seed=3)
    check(source)
    assert capsys.readouterr().err.splitlines() == [
        "co-label: 1 sample of sounds left out, which have no word",
        "co-label: 2 samples left out, whose word is not in all collections, e.g. 'w3'",
    ]
    assert list(source.skipped) == [("sounds/broken 8", "broken")]
    seen = defaultdict(set)
    for one in source:
        assert one.items["word"] == one.group == f"w{int(one.items['a']) % 3}" == f"w{int(one.items['b']) % 4}"
        assert one.weight == 0.25
        assert one.key == f"p%2B{one.items['a']}+{one.items['b']}"
        seen["a"].add(one.items["a"])
        seen["b"].add(one.items["b"])
    assert (len(seen["a"]), len(seen["b"]), len(source)) == (12, 6, 12)
    options = {"sources": {"pictures": pictures, "sounds": sounds}, "label": "word"}
    assert keys(wrap("co-label", **options, seed=3)) == keys(source) != keys(wrap("co-label", **options, seed=4))
    assert len(wrap("co-label", **options, repeats=2)) == 24
    assert keys(pickle.loads(pickle.dumps(source))) == keys(source)
    said = refusal(lambda: wrap("co-label", **{**options, "label": "wort"}))
    assert "co-label.label, pictures: no sample has 'wort': did you mean 'word'?" in said
    others = Listed([replace(one, metadata={"word": "z"}) for one in sounds.samples if one])
    said = refusal(lambda: wrap("co-label", sources={"pictures": pictures, "sounds": others}, label="word"))
    assert "pictures: 'w0', 'w1', 'w2'; sounds: 'z'" in said
    assert "items of two sources are called 'a'" in refusal(
        lambda: wrap("co-label", sources={"x": pictures, "y": pictures}, label="word")
    )
    stream = Sharded([Sample("1", {"b": "1"})])
    assert "no random access" in refusal(lambda: wrap("co-label", sources={"x": pictures, "y": stream}, label="word"))
