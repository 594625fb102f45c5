from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Index, InputError, Preview
from multimodal_ssl.ann import DESIGNS
from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import StorageError

from .indices import items, keys_of
from .toys import units


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "index", "f", 16) as made:
        yield made


def test_the_nearest_items_are_those_that_brute_force_finds(index: Index) -> None:
    index.add("text", items(0, 500))
    queries = units(20, 16, seed=1)
    scores, ids = index.nearest("text", queries, 10)
    cosines = queries @ items(0, 500).vectors.T
    order = np.argsort(-cosines, axis=1)[:, :10]
    assert [keys_of(index, one) for one in ids] == [[f"k{row}" for row in rows] for rows in order]
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, order, 1), rtol=1e-5)
    (hit, *_) = index.hits(ids[0], scores[0])
    first = order[0, 0]
    assert (hit.item.group, hit.item.preview.text, hit.item.modality) == (f"g{first // 2}", f"t{first}", "text")
    assert hit.item.metadata == {"number": float(first), "name": f"n{first}"}
    assert hit.score == pytest.approx(cosines[0, first])


@pytest.mark.parametrize("kind", DESIGNS)
def test_every_structure_gives_exact_scores_and_the_wanted_recall(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.ann.FLAT", 100)  # so that the structure is asked
    words = units(40, 32, seed=5)
    rng = np.random.default_rng(0)
    vectors = words[rng.integers(40, size=4000)] + 0.1 * rng.standard_normal((4000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = [str(i) for i in range(4000)]
    with Index.create(tmp_path / "index", "f", 32) as index:
        index.add("image", Embedded(vectors[:3900], keys[:3900], keys[:3900]))
        measured = index.optimise("image", kind=kind, recall=0.9)
        assert min(measured.recall.values()) > 0.88
        index.add("image", Embedded(vectors[3900:], keys[3900:], keys[3900:]))  # which the structure lacks
        index.delete("image", keys[:50])
        there = np.arange(50, 4000)
        queries = vectors[::40]
        cosines = queries @ vectors[there].T
        best = np.sort(-cosines, axis=1)[:, :10]
        for opened in (index, Index(tmp_path / "index")):
            scores, ids = opened.nearest("image", queries, 10)
            found = [[int(key) for key in keys_of(opened, one)] for one in ids]
            np.testing.assert_allclose(
                scores, [[queries[q] @ vectors[row] for row in rows] for q, rows in enumerate(found)], rtol=1e-4
            )
            assert (scores >= -best[:, -1:] - 1e-6).mean() > 0.85
            assert not {row for rows in found for row in rows} & set(range(50))
            assert opened.describe()["modalities"]["image"]["structure"]["kind"] == kind


@pytest.mark.parametrize("kind", [None, "hnsw", "ivf-pq"])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_only_the_items_asked_for_are_found_and_nearly_all_of_the_nearest(
    tmp_path: Path, kind: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.ann.FLAT", 100)  # so that the structure is asked
    with Index.create(tmp_path / "index", "f", 16) as index:
        index.add("text", items(0, 3000))
        if kind:
            index.optimise("text", kind=kind, recall=0.97)
        rows = np.random.default_rng(1).permutation(3000)[: round(3000 * share)]
        ids = np.array(list(index.store.find("text", [f"k{row}" for row in rows]).values()))
        queries = units(50, 16, seed=1)
        _, found = index.nearest("text", queries, 10, among=ids)
        assert np.isin(found, ids).all()
        cosines = queries @ items(0, 3000).vectors[rows].T
        nearest = np.argsort(-cosines, axis=1)[:, :10]
        assert found.shape == nearest.shape
        recall = np.mean([len(set(found[q]) & set(ids[nearest[q]])) / nearest.shape[1] for q in range(50)])
        assert recall == 1 if kind is None else recall >= 0.95


def test_an_index_of_another_binder_of_the_same_dimension_is_refused(tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", "a" * 64, 16) as index:
        index.check("a" * 64)
        with pytest.raises(InputError, match="made by the Binder aaaaaaaaaaaa, not by bbbbbbbbbbbb"):
            index.check("b" * 64)


def test_items_are_added_replaced_and_deleted_by_key_and_all_see_it_at_once(index: Index) -> None:
    other = Index(index.store.folder)
    index.add("text", items(0, 10))
    index.add("text", items(1, 10, prefix="more"))
    assert other.counts == {"text": 20}
    with pytest.raises(InputError, match=r"10 keys of text repeat: 'k0', 'k1'"):
        index.add("text", items(2, 10))
    assert keys_of(other, other.nearest("text", items(1, 10).vectors[3:4], 1)[1][0]) == ["more3"]
    index.add("text", items(2, 5), update=True)
    assert other.counts == {"text": 20}
    (hit,) = other.hits(*(one[0] for one in reversed(other.nearest("text", items(2, 5).vectors[4:5], 1))))
    assert (hit.item.key, round(hit.score, 5)) == ("k4", 1)
    other.delete("text", ["k4", "more3"])
    assert index.counts == {"text": 18}
    assert not {"k4", "more3"} & set(keys_of(index, index.nearest("text", units(1, 16, seed=9), 18)[1][0]))
    with pytest.raises(InputError, match="1 keys of text are not in the index: 'k4'"):
        index.delete("text", ["k0", "k4"])
    assert index.counts == {"text": 18}
    assert [one["what"] for one in index.store.changes()] == ["add", "add", "update", "delete"]
    other.close()


@pytest.mark.parametrize("kind", [None, "hnsw"])
def test_compaction_gives_the_room_back_and_changes_no_answer(index: Index, kind: Any) -> None:
    other = Index(index.store.folder)
    index.add("text", items(0, 300))
    index.add("image", items(1, 10))
    if kind:
        index.optimise("text", kind=kind)
    index.delete("text", [f"k{i}" for i in range(0, 300, 2)])
    queries = units(5, 16, seed=3)
    scores, ids = other.nearest("text", queries, 20)
    index.compact()
    for one in (index, other, Index(index.store.folder)):
        again, found = one.nearest("text", queries, 20)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(found, ids, strict=True)]) >= (18 if kind else 20)
        np.testing.assert_allclose(again[:, 0], scores[:, 0], rtol=1e-6)
        assert one.describe()["modalities"]["text"]["vectors"] == 150
        assert one.describe()["modalities"]["text"]["structure"]["kind"] == (kind or "flat")
    assert sum(path.stat().st_size for path in index.store.folder.glob("text-*.f32")) == 150 * 16 * 4
    other.close()


@pytest.mark.parametrize("kind", [None, "hnsw"])
def test_items_of_one_vector_are_all_found(tmp_path: Path, kind: Any) -> None:
    words, per_word = units(10, 16, seed=0), 300
    with Index.create(tmp_path / "index", "f", 16) as index:
        index.add("text", items(5, 100, prefix="x"))
        for part in range(3):
            keys = [f"{part}/{i}" for i in range(10 * per_word)]
            groups = [str(i // per_word) for i in range(len(keys))]
            index.add("text", Embedded(np.repeat(words, per_word, 0), keys, groups))
            if kind and part == 0:
                index.optimise("text", kind=kind)
        index.delete("text", [f"1/{i}" for i in range(10)])
        assert index.describe()["modalities"]["text"]["vectors"] == 110
        for one in (index, Index(tmp_path / "index")):
            scores, ids = one.nearest("text", words, 3 * per_word)
            assert (np.diff(scores) <= 1e-6).all()
            for word in range(10):
                hits = one.hits(ids[word], scores[word])
                assert len({hit.item.key for hit in hits}) == 3 * per_word
                count = 3 * per_word - (10 if word == 0 else 0)
                assert [hit.item.group for hit in hits[:count]] == [str(word)] * count


def test_the_mean_of_a_modality_is_that_of_its_items(index: Index) -> None:
    index.add("text", items(0, 100))
    index.add("text", items(1, 20), update=True)
    index.delete("text", [f"k{i}" for i in range(10)])
    expected = np.concatenate([items(1, 20).vectors[10:], items(0, 100).vectors[20:]]).mean(0)
    np.testing.assert_allclose(index.mean("text"), expected, atol=1e-6)


def test_vectors_that_make_no_sense_are_refused_and_nothing_is_added(index: Index) -> None:
    with pytest.raises(InputError, match="of length 1"):
        index.add("text", Embedded(2 * units(3, 16, seed=0), list("abc"), list("abc")))
    with pytest.raises(InputError, match="not finite"):
        index.add("text", Embedded(np.full((3, 16), np.nan, np.float32), list("abc"), list("abc")))
    with pytest.raises(InputError, match="3 vectors, 2 keys, 3 groups"):
        index.add("text", Embedded(units(3, 16, seed=0), list("ab"), list("abc")))
    with pytest.raises(InputError, match=r"\[N, 16\], not \[3, 8\]"):
        index.add("text", Embedded(units(3, 8, seed=0), list("abc"), list("abc")))
    with pytest.raises(InputError, match="2 keys of text repeat: 'a', 'b'"):
        index.add("text", Embedded(units(4, 16, seed=0), list("abab"), list("abcd")))
    with pytest.raises(InputError, match="no valid Unicode"):
        index.add("text", Embedded(units(1, 16, seed=0), ["\ud800"], ["g"]))
    assert index.counts == {}


def test_queries_that_make_no_sense_are_told(index: Index) -> None:
    index.add("image", items(0, 3))
    with pytest.raises(InputError, match="k is 0"):
        index.nearest("image", units(1, 16, seed=0), 0)
    with pytest.raises(InputError, match="not finite"):
        index.nearest("image", np.full((1, 16), np.nan, np.float32), 1)
    with pytest.raises(InputError, match="holds no 'imag': did you mean 'image'"):
        index.nearest("imag", units(1, 16, seed=0), 1)


def test_pictures_sounds_paths_and_any_name_come_back_as_they_were(index: Index) -> None:
    previews = [Preview("t", png=bytes([i]) * 1000, wav=b"\x00", path=f"{i}.png", caption="red") for i in range(50)]
    strange = "../../etc/passwd"
    keys = [f"'; DROP TABLE items; -- {i} \x00 é" for i in range(50)]
    metadata = [{"n": float("nan"), "s": '"', "none": None}] * 50
    index.add(strange, Embedded(units(50, 16, seed=0), keys, [""] * 50, previews, metadata=metadata))
    with Index(index.store.folder) as opened:
        (hit,) = opened.hits(np.array([opened.store.find(strange, keys[33:34])[keys[33]]]), np.ones(1, np.float32))
    assert (hit.item.preview, hit.item.key, hit.item.modality) == (previews[33], keys[33], strange)
    assert hit.item.metadata == {"n": None, "s": '"', "none": None}
    assert {path.parent for path in index.store.folder.rglob("*")} == {index.store.folder}


def test_an_index_that_may_not_be_written_is_searched(index: Index) -> None:
    index.add("text", items(0, 20))
    folder = index.store.folder
    index.close()
    paths = [folder, *folder.iterdir()]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with Index(folder) as opened:
            assert opened.nearest("text", units(1, 16, seed=0), 3)[1].shape == (1, 3)
            if not os.access(folder, os.W_OK):
                with pytest.raises(InputError, match="can't be used"):
                    opened.delete("text", ["k0"])
    finally:
        for path in paths:
            path.chmod(0o755)


def test_a_strange_folder_is_left_alone_and_an_old_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index"):
        Index(tmp_path)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty: it is left as it is"):
        Index.create(tmp_path, "f", 16)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="of an earlier version: build it again"):
        Index(tmp_path)


def test_a_filter_that_takes_longer_than_it_may_is_given_up_and_the_next_is_not(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.database.PAUSE", 1)
    index.add("text", items(0, 100))
    index.store.patience = 0.0
    with pytest.raises(InputError, match="longer than 0 s") as caught:
        index.where(["text"], "number > 50")
    assert not isinstance(caught.value, StorageError)
    index.store.patience = 60.0
    assert len(index.where(["text"], "number > 50")[0]) == 49
