from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Index, InputError, Preview
from multimodal_ssl.embed import Embedded
from multimodal_ssl.index import Kind

from .toys import units


def items(seed: int, count: int, prefix: str = "k") -> Embedded:
    keys = [f"{prefix}{i}" for i in range(count)]
    return Embedded(
        units(count, 16, seed=seed),
        keys,
        [f"g{i // 2}" for i in range(count)],
        [Preview(text=f"t{i}") for i in range(count)],
    )


def test_the_nearest_items_are_those_that_brute_force_finds() -> None:
    index = Index("f", 16)
    index.add("text", items(0, 500))
    queries = units(20, 16, seed=1)
    scores, rows = index.nearest("text", queries, 10)
    expected = queries @ items(0, 500).vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :10])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :10], rtol=1e-5)
    hits = index.items("text", rows[0], scores[0])
    assert [hit.key for hit in hits] == [f"k{row}" for row in rows[0]]
    assert hits[0].preview.text == f"t{rows[0][0]}"
    assert hits[0].group == f"g{rows[0][0] // 2}"


def test_hnsw_finds_nearly_all_that_brute_force_finds() -> None:
    exact, fast = Index("f", 16), Index("f", 16, kind="hnsw")
    for index in (exact, fast):
        index.add("text", items(0, 3000))
    queries = units(100, 16, seed=1)
    (_, expected), (_, found) = (index.nearest("text", queries, 10) for index in (exact, fast))
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected, found, strict=True)])
    assert recall > 0.97


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_saved_index_answers_as_before(tmp_path: Path, kind: Kind) -> None:
    index = Index("f", 16, kind=kind)
    index.add("text", items(0, 300))
    index.add("image", Embedded(units(5, 16, seed=2), list("abcde"), list("vwxyz"), [Preview(png=b"\x89PNG")] * 5))
    index.save(tmp_path / "index")
    opened = Index.load(tmp_path / "index")
    assert opened.counts == {"text": 300, "image": 5}
    for name in ("text", "image"):
        for one, other in zip(
            index.nearest(name, units(4, 16, seed=3), 50), opened.nearest(name, units(4, 16, seed=3), 50), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    rows, scores = np.array([4, 0]), np.array([0.5, 0.4], np.float32)
    assert opened.items("image", rows, scores) == index.items("image", rows, scores)


def test_an_index_of_another_binder_of_the_same_dimension_is_refused() -> None:
    index = Index("a" * 64, 16)
    index.check("a" * 64)
    with pytest.raises(InputError, match="made by the Binder aaaaaaaaaaaa, not by bbbbbbbbbbbb"):
        index.check("b" * 64)


def test_adding_twice_extends_and_repeated_keys_are_listed() -> None:
    index = Index("f", 16)
    index.add("text", items(0, 10))
    index.add("text", items(1, 10, prefix="other"))
    assert index.counts == {"text": 20}
    _, rows = index.nearest("text", items(1, 10).vectors[3:4], 1)
    assert index.items("text", rows[0], np.ones(1, np.float32))[0].key == "other3"
    with pytest.raises(InputError, match="10 keys of text repeat: k0, k1"):
        index.add("text", items(2, 10))
    assert index.counts == {"text": 20}


def test_vectors_that_are_not_of_length_one_are_refused() -> None:
    index = Index("f", 16)
    with pytest.raises(InputError, match="of length 1"):
        index.add("text", Embedded(2 * units(3, 16, seed=0), list("abc"), list("abc")))
    with pytest.raises(InputError, match="not finite"):
        index.add("text", Embedded(np.full((3, 16), np.nan, np.float32), list("abc"), list("abc")))
    with pytest.raises(InputError, match="3 vectors, 2 keys, 3 groups"):
        index.add("text", Embedded(units(3, 16, seed=0), list("ab"), list("abc")))
    with pytest.raises(InputError, match=r"\[N, 16\], not \[3, 8\]"):
        index.add("text", Embedded(units(3, 8, seed=0), list("abc"), list("abc")))


def test_a_damaged_or_missing_index_is_told_and_a_strange_folder_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index"):
        Index.load(tmp_path)
    index = Index("f", 16)
    index.add("text", items(0, 10))
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is no index: it is left as it is"):
        index.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")
    (vectors,) = (tmp_path / "index").glob("text-*.faiss")
    vectors.write_bytes(vectors.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        Index.load(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**manifest, "format": 7}))
    with pytest.raises(InputError, match="format 7, this version reads 2"):
        Index.load(tmp_path / "index")


def test_an_unknown_modality_is_told() -> None:
    index = Index("f", 16)
    index.add("image", items(0, 3))
    with pytest.raises(InputError, match="holds no 'imag': did you mean 'image'"):
        index.nearest("imag", units(1, 16, seed=0), 1)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_items_of_one_vector_are_all_found(tmp_path: Path, kind: Kind) -> None:
    index = Index("f", 16, kind=kind)
    words, per_word = units(10, 16, seed=0), 300
    for part in range(3):  # added in parts
        keys = [f"{part}/{i}" for i in range(10 * per_word)]
        index.add("text", Embedded(np.repeat(words, per_word, 0), keys, [str(i // per_word) for i in range(len(keys))]))
    index.save(tmp_path / "index")
    for one in (index, Index.load(tmp_path / "index")):
        scores, rows = one.nearest("text", words, 3 * per_word + 5)
        assert (np.diff(scores) <= 1e-6).all()
        for word in range(10):
            hits = one.items("text", rows[word], scores[word])
            assert len({hit.key for hit in hits}) == 3 * per_word + 5
            assert [hit.group for hit in hits[: 3 * per_word]] == [str(word)] * 3 * per_word
    assert index.counts == {"text": 9000}


def test_a_save_that_is_killed_anywhere_leaves_the_old_index_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(seed: int) -> Index:
        index = Index(str(seed), 16)
        index.add("text", items(seed, 20))
        return index

    made(0).save(tmp_path / "index")
    steps = 0
    real = {name: getattr(Path, name) for name in ("touch", "replace", "unlink")}

    def counting(name: str) -> Callable[..., Any]:
        def call(path: Path, *args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise KeyboardInterrupt  # from here on nothing is done, not even tidying up
            return real[name](path, *args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(Path, name, counting(name))
    outcomes = []
    for last in range(40):
        steps, seed = last, last + 1
        try:
            made(seed).save(tmp_path / "index")
            outcomes.append("whole")
        except KeyboardInterrupt:
            found = Index.load(tmp_path / "index")
            outcomes.append("new" if found.fingerprint == str(seed) else "old")
            _, rows = found.nearest("text", items(int(found.fingerprint), 20).vectors[7:8], 1)
            assert rows[0, 0] == 7
    assert set(outcomes) == {"old", "new", "whole"}
    assert len(list((tmp_path / "index").iterdir())) == 3


def test_items_are_read_from_the_file_when_asked_for(tmp_path: Path) -> None:
    index = Index("f", 16)
    previews = [Preview(text="t", png=bytes([i]) * 1000, path=f"{i}.png", caption="red") for i in range(50)]
    index.add("image", Embedded(units(50, 16, seed=0), [str(i) for i in range(50)], [""] * 50, previews))
    index.save(tmp_path / "index")
    (hit,) = Index.load(str(tmp_path / "index")).items("image", np.array([33]), np.ones(1, np.float32))
    assert hit.preview == previews[33]


def test_queries_that_make_no_sense_are_told() -> None:
    index = Index("f", 16)
    index.add("image", items(0, 3))
    with pytest.raises(InputError, match="k is 0"):
        index.nearest("image", units(1, 16, seed=0), 0)
    with pytest.raises(InputError, match="not finite"):
        index.nearest("image", np.full((1, 16), np.nan, np.float32), 1)
