from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Index, InputError, Term, Vector, search
from multimodal_ssl.binder import Binder
from multimodal_ssl.calibration import calibrate
from multimodal_ssl.embed import Embedded
from multimodal_ssl.retrieval import unit, why

from .toys import toy_binder

COUNT = 300


@pytest.fixture(scope="module")
def binder() -> Binder:
    return toy_binder("ab").eval()


@pytest.fixture
def index(tmp_path: Path, binder: Binder) -> Iterator[Index]:
    """Hold the numbers from 0 to 299 as "a" and as "b", ten of them a group."""
    with Index.create(tmp_path / "index", binder.fingerprint(), binder.dim) as made:
        for name in "ab":
            made.add(name, numbers(binder, name))
        yield made


def numbers(binder: Binder, name: str) -> Embedded:
    values = [float(i) for i in range(COUNT)]
    keys, groups = [str(i) for i in range(COUNT)], [str(i // 10) for i in range(COUNT)]
    metadata = [{"tens": float(i // 10 % 10), "odd": "yes" if i % 2 else "no"} for i in range(COUNT)]
    return Embedded(binder.encode(name, values), keys, groups, metadata=metadata)


def keys(hits: Any) -> list[str]:
    return [hit.item.key for hit in hits]


def test_every_way_of_searching_agrees_with_comparing_all(index: Index, binder: Binder) -> None:
    queries = [3.3, 77.7, 240.0]
    vectors, b = binder.encode("a", queries), numbers(binder, "b")
    cosines = vectors @ b.vectors.T
    found = search(binder, index, queries, by="a", k=7)
    for hits, row in zip(found, cosines, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(row)[::-1][:7], rtol=1e-5)
        np.testing.assert_allclose([row[int(key)] for key in keys(hits)], [hit.score for hit in hits], rtol=1e-5)
    (hits,) = search(binder, index, queries[:1], by="a", k=7, where="odd = 'yes' and tens < 3")
    allowed = np.array([i % 2 == 1 and i // 10 % 10 < 3 for i in range(COUNT)])
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines[0][allowed])[::-1][:7], rtol=1e-5)
    assert all(allowed[int(key)] for key in keys(hits))
    assert search(binder, index, queries[:1], by="a", where="tens > 50") == [[]]


def test_a_query_of_several_parts_is_their_weighted_sum(index: Index, binder: Binder) -> None:
    terms = [Term("a", 3.0), Term("b", 50.0, 0.5), Term("a", 120.0, -0.7)]
    one, two, three = (binder.encode(term.by, [term.item])[0] for term in terms)
    query = unit(one + 0.5 * two - 0.7 * three)
    (hits,) = search(binder, index, [terms], among="b", k=5)
    expected = np.sort(numbers(binder, "b").vectors @ query)[::-1][:5]
    np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=1e-5)
    with pytest.raises(InputError, match="cancel each other out"):
        search(binder, index, [[Term("a", 3.0), Term("a", 3.0, -1.0)]])


def test_a_product_of_parts_is_searched_by_as_one_vector(index: Index, binder: Binder) -> None:
    parts = [Term("a", 0.4), Term("b", 1.1)]
    (hits,) = search(binder, index, [parts], among="a", product=True)
    product = unit(binder.encode("a", [0.4])[0] * binder.encode("b", [1.1])[0])
    expected = numbers(binder, "a").vectors @ product
    assert [hit.score for hit in hits] == pytest.approx(np.sort(expected)[::-1][:10], abs=1e-5)
    with pytest.raises(InputError, match="a product has no weights, but b has -1"):
        search(binder, index, [[parts[0], Term("b", 1.1, -1)]], product=True)
    with pytest.raises(InputError, match="leave out centre"):
        search(binder, index, [parts], product=True, centre=True)


def test_what_was_embedded_before_is_searched_by_as_if_it_were_embedded_now(index: Index, binder: Binder) -> None:
    fresh = [Term("a", 3.0), Term("b", 50.0, 0.5)]
    stored = [Term("a", Vector(index.vector("a", "3"))), Term("b", Vector(index.vector("b", "50")), 0.5)]
    for centre in (False, True):
        (expected,) = search(binder, index, [fresh], among=["a", "b"], k=5, centre=centre)
        for one, maker in ((stored, binder), (stored, None), ([stored[0], fresh[1]], binder)):
            (hits,) = search(maker, index, [one], among=["a", "b"], k=5, centre=centre)
            assert keys(hits) == keys(expected)
            np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in expected], rtol=1e-5)
    with pytest.raises(InputError, match="some a to search by is no Vector"):
        search(None, index, [fresh])
    with pytest.raises(InputError, match=r"vectors \[N, 4\], not \[1, 2\]"):
        search(None, index, [Vector(np.ones(2, np.float32))], by="a")
    with pytest.raises(InputError, match="not finite"):
        search(None, index, [Vector(np.full(4, np.nan, np.float32))], by="a")
    with pytest.raises(InputError, match="no a with the key 'x'"):
        index.vector("a", "x")


def test_a_mixed_gallery_is_ranked_with_the_mean_of_each_modality_taken_off(index: Index, binder: Binder) -> None:
    (hits,) = search(binder, index, [3.3], by="a", among=["a", "b"], k=20)
    query = unit(binder.encode("a", [3.3])[0] - index.mean("a"))
    both = {name: unit(numbers(binder, name).vectors - index.mean(name)) @ query for name in "ab"}
    expected = np.sort(np.concatenate(list(both.values())))[::-1][:20]
    np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=1e-4)
    np.testing.assert_allclose([both[hit.item.modality][int(hit.item.key)] for hit in hits], expected, rtol=1e-4)
    (raw,) = search(binder, index, [3.3], by="a", among=["a", "b"], k=20, centre=False)
    cosines = np.concatenate([numbers(binder, name).vectors @ binder.encode("a", [3.3])[0] for name in "ab"])
    np.testing.assert_allclose([hit.score for hit in raw], np.sort(cosines)[::-1][:20], rtol=1e-5)


@pytest.mark.parametrize("among", [["b"], ["a"], ["a", "b"]])
@pytest.mark.parametrize("centre", [False, True])
def test_csls_agrees_with_a_loop_over_all_pairs(index: Index, binder: Binder, among: list[str], centre: bool) -> None:
    queries = [3.0, 77.7]
    (*found,) = search(binder, index, queries, by="a", among=among, k=COUNT * len(among), centre=centre, csls=True)
    of = {name: numbers(binder, name).vectors.astype(float) for name in "ab"}
    means = {name: index.mean(name).astype(float) if centre else 0.0 for name in "ab"}
    moved = {name: [x / np.linalg.norm(x) for x in of[name] - means[name]] for name in "ab"}
    for value, hits in zip(queries, found, strict=True):
        (query,) = binder.encode("a", [value]).astype(float) - means["a"]
        query /= np.linalg.norm(query)
        expected = {}
        for name in among:
            of_query = nearness([query @ y for y in moved[name]])
            for key, item in enumerate(moved[name]):
                of_item = nearness([item @ x for x in moved["a"]])
                expected[name, str(key)] = 2 * query @ item - of_query - of_item
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert len(hits) == len(expected)
        np.testing.assert_allclose(
            scores, [expected[hit.item.modality, hit.item.key] for hit in hits], rtol=0, atol=3e-5
        )


def nearness(cosines: list[float]) -> float:
    """Return the mean of the ten greatest but for that of a vector with itself."""
    ordered = sorted(cosines, reverse=True)
    return float(np.mean(ordered[1:11] if ordered[0] >= 1 - 1e-5 else ordered[:10]))


def test_with_csls_a_hub_gives_way_to_the_match(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    common = unit(rng.standard_normal(32).astype(np.float32))
    first = unit(common + 1.5 * unit(rng.standard_normal((200, 32)).astype(np.float32)))
    second = unit(first - 0.8 * common + 1.2 * unit(rng.standard_normal((200, 32)).astype(np.float32)))
    second[:5] = unit(common + 0.1 * rng.standard_normal((5, 32)).astype(np.float32))  # near to every query
    names = [str(i) for i in range(200)]
    with Index.create(tmp_path / "index", "f", 32) as made:
        made.add("a", Embedded(first, names, names))
        made.add("b", Embedded(second, names, names))
        queries = [Term("a", Vector(vector)) for vector in first[5:]]
        right = {
            csls: np.mean([hits[0].item.key == key for hits, key in zip(
                search(None, made, queries, by="a", k=1, csls=csls), names[5:], strict=True)])
            for csls in (False, True)
        }  # fmt: skip
        assert right[True] > right[False] + 0.2, right
        with pytest.raises(InputError, match="this index holds no c: what is a hub among b for c can't be told"):
            search(None, made, [Term("c", Vector(first[0]))], among="b", csls=True)


def test_groups_are_collapsed_and_near_duplicates_folded(index: Index, binder: Binder) -> None:
    (hits,) = search(binder, index, [3.3], by="a", k=25, one_per_group=True)
    groups = [hit.item.group for hit in hits]
    assert len(set(groups)) == len(groups) == 25
    cosines = numbers(binder, "b").vectors @ binder.encode("a", [3.3])[0]
    best = sorted((cosines[10 * group : 10 * group + 10].max() for group in range(30)), reverse=True)
    np.testing.assert_allclose([hit.score for hit in hits], best[:25], rtol=1e-5)
    (hits,) = search(binder, index, [3.3], by="a", k=10, fold=0.99)
    vectors = numbers(binder, "b").vectors
    chosen: list[int] = []
    for row in np.argsort(-cosines, kind="stable"):
        if all(vectors[row] @ vectors[other] < 0.99 for other in chosen):
            chosen.append(int(row))
    assert keys(hits) == [str(row) for row in chosen[:10]]


def test_why_names_the_training_samples_nearest_to_query_and_answer(
    index: Index, binder: Binder, tmp_path: Path
) -> None:
    (hit, *_) = search(binder, index, [3.3], by="a", k=1)[0]
    with Index.create(tmp_path / "training", binder.fingerprint(), binder.dim) as training:
        with pytest.raises(InputError, match="holds no 'a'"):
            why(binder, index, training, 3.3, hit, by="a")
        for name in "ab":
            training.add(name, numbers(binder, name))
        witnesses = why(binder, index, training, 3.3, hit, by="a", k=3)
    with_query = numbers(binder, "a").vectors @ binder.encode("a", [3.3])[0]
    with_hit = numbers(binder, "b").vectors @ numbers(binder, "b").vectors[int(hit.item.key)]
    best = np.sort(with_query + with_hit)[::-1][:3]
    np.testing.assert_allclose([one.with_query + one.with_hit for one in witnesses], best, rtol=1e-5)
    for one in witnesses:
        row = int(one.items["a"].key)
        assert one.items["b"].key == str(row)
        assert one.with_query == pytest.approx(float(with_query[row]), rel=1e-5)
        assert one.with_hit == pytest.approx(float(with_hit[row]), rel=1e-5)


def pairs(rng: np.random.Generator, count: int, noise: float) -> list[np.ndarray[Any, Any]]:
    meaning = rng.standard_normal((count, 32))
    return [unit((meaning + noise * rng.standard_normal((count, 32))).astype(np.float32)) for _ in range(2)]


@pytest.mark.parametrize("noise", [0.4, 0.8])
def test_probabilities_of_unseen_queries_are_right_and_a_query_without_an_answer_gets_none(
    tmp_path: Path, noise: float
) -> None:
    rng = np.random.default_rng(0)
    first, second = pairs(rng, 3000, noise)
    names = [str(i) for i in range(3000)]
    with Index.create(tmp_path / "index", "f", 32) as index:
        index.add("a", Embedded(first[:1000], names[:1000], names[:1000]))
        index.add("b", Embedded(second[:2000], names[:2000], names[:2000]))
        assert index.calibrate()["a-b"].error < 0.05
        cosines, ids = index.nearest("b", first[1000:], 5)  # 1,000 that have an answer and 1,000 that have none
        probability = index.probability("a", "b", first[1000:], cosines)
        hits = [index.hits(*one) for one in zip(ids, cosines, strict=True)]
    is_match = np.array([[hit.item.key == str(1000 + row) for hit in some] for row, some in enumerate(hits)])
    for low in np.arange(0, 1, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        if inside.sum() > 100:
            assert abs(is_match[inside].mean() - probability[inside].mean()) < 0.1
    says_something = probability[:, 0] >= 0.5
    assert says_something[1000:].mean() < 0.15
    assert says_something[:1000].mean() > (0.8 if noise == 0.4 else 0.2)


@pytest.mark.parametrize("seed", range(20))
def test_a_greater_cosine_is_never_less_probable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    is_match = rng.random((300, 5)) < 0.5
    z = np.where(is_match, 4 + 0.1 * rng.standard_normal((300, 5)), rng.uniform(0, 6, (300, 5)))
    found = calibrate(z, is_match, 1000)
    assert found
    assert (np.diff(found.probability(np.linspace(0, 20, 200), 1000)) >= 0).all()
    assert found.probability(np.array([4.0]), 10_000) < found.probability(np.array([4.0]), 1000)


def test_an_improbable_answer_is_left_out_and_without_groups_nothing_is_probable(index: Index, binder: Binder) -> None:
    with pytest.raises(InputError, match="can't tell how probable a match of a among b is"):
        search(binder, index, [3.3], by="a", min_probability=0.5)
    assert search(binder, index, [3.3], by="a", k=1)[0][0].probability is None
    with Index(index.store.folder) as other:
        index.calibrate()
        assert search(binder, other, [3.3], by="a", k=1)[0][0].probability is not None
    (hits,) = search(binder, index, [3.3], by="a", k=300)
    assert all(hit.probability is not None for hit in hits)
    middle = float(np.median([hit.probability or 0 for hit in hits]))
    (some,) = search(binder, index, [3.3], by="a", k=300, min_probability=middle)
    assert keys(some) == [hit.item.key for hit in hits if (hit.probability or 0) >= middle]


def test_what_makes_no_sense_is_told(index: Index, binder: Binder) -> None:
    with pytest.raises(InputError, match="queries are a list"):
        search(binder, index, "words")
    with pytest.raises(InputError, match="min_probability is 2"):
        search(binder, index, [1.0], by="a", min_probability=2)
    with pytest.raises(InputError, match="made by the Binder"):
        search(toy_binder("ab", seed=1).eval(), index, [1.0], by="a")
    with pytest.raises(InputError, match="expected"):
        search(binder, index, [1.0], by="a", where="tens >")
    with pytest.raises(InputError, match="no b has 'ten' to filter by: did you mean 'tens'"):
        search(binder, index, [1.0], by="a", where="ten > 3")
    index.add("b", Embedded(numbers(binder, "b").vectors[:1], ["odd one"], ["g"], metadata=[{"only": 1.0}]))
    assert keys(search(binder, index, [1.0], by="a", among=["a", "b"], where="only = 1")[0]) == ["odd one"]


def test_a_filter_that_takes_too_long_is_stopped(index: Index, binder: Binder) -> None:
    index.store.patience = -1.0
    with pytest.raises(InputError, match="make it simpler"):
        search(binder, index, [1.0], by="a", where=" or ".join(["odd like '%y%e%s%'"] * 100))
    index.store.patience = 10.0
    assert len(search(binder, index, [1.0], by="a", where="odd = 'yes'")[0]) == 10
