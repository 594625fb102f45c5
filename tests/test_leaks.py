from __future__ import annotations

import numpy as np
import pytest

from multimodal_ssl.data import Supply
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.evaluation import Evaluation, evaluate
from multimodal_ssl.leaks import Overlap, find_leaks
from multimodal_ssl.subset import Subset

from .toys import Numbers, toy_binder

BINDER = toy_binder(seed=3)


def embedded(*rows: int, names: str = "ab") -> dict[str, Embedded]:
    source = Subset(Numbers(200, names), np.array(rows))
    return embed(BINDER, [Supply(source, tuple(names))], traits=True)[0]


def by_items(overlaps: list[Overlap]) -> dict[tuple[str, ...], Overlap]:
    return {one.items: one for one in overlaps}


def test_equal_and_near_twins_are_those_of_a_double_loop() -> None:
    evaluation, training = evaluate(embedded(*range(20, 60))), embedded(*range(30))
    found = by_items(find_leaks(evaluation, training).overlaps)
    assert list(found) == [("a",), ("b",), ("a", "b")]
    for items, one in found.items():
        assert one.n == 40
        among = np.min([evaluation.items[name].vectors @ evaluation.items[name].vectors.T for name in items], axis=0)
        assert one.crowded == ((among - np.eye(40) >= 0.99).any(1)).sum()
        cosines = np.min([evaluation.items[name].vectors @ training[name].vectors.T for name in items], axis=0)
        near = {evaluation.items["a"].keys[row] for row in np.flatnonzero((cosines >= 0.99).any(1))}
        assert {twin.key for twin in one.twins} == near
        assert {twin.key for twin in one.twins if twin.equal} == {str(i) for i in range(20, 30)}
        assert all(twin.twin == twin.key for twin in one.twins if twin.equal)
        for twin in one.twins:
            row, column = evaluation.items["a"].keys.index(twin.key), training["a"].keys.index(twin.twin)
            assert twin.cosine == pytest.approx(cosines[row, column], abs=1e-6)
    order = [(not twin.equal, -twin.cosine) for twin in found["a",].twins]
    assert order == sorted(order), "the worst stand first"
    assert not all(twin.equal for twin in found["a",].twins), "the toys must have near twins, too"


def test_a_pair_is_leaked_only_if_one_sample_has_both_twins() -> None:
    shuffled = embedded(0, 1, 2, 3)
    shuffled["b"].keys = ["1", "2", "3", "0"]  # as if the partners had been exchanged
    found = by_items(find_leaks(evaluate(embedded(0, 1, 2, 3)), shuffled).overlaps)
    assert [sum(twin.equal for twin in found[names].twins) for names in (("a",), ("b",), ("a", "b"))] == [4, 4, 0]


def test_recall_is_told_with_and_without_what_leaked() -> None:
    evaluation, training = evaluate(embedded(*range(20, 60))), embedded(*range(25, 30), names="a")
    found = find_leaks(evaluation, training)
    assert list(by_items(found.overlaps)) == [("a",)]
    leaked = {twin.key for twin in found.overlaps[0].twins}
    for one in found.recall:
        values = evaluation.answers[one.query, one.gallery].values["R@1"]
        assert one.all is not None
        assert one.all.value == pytest.approx(values.mean())
        assert one.new_pair == one.all, "no sample of training has both"
        assert one.new_item is not None
        left = [key not in leaked or one.query == "b" for key in evaluation.items[one.query].keys]
        assert one.new_item.n == sum(left)
        assert one.new_item.value == pytest.approx(values[left].mean())


def test_an_evaluation_on_what_was_trained_on_has_nothing_left() -> None:
    items = embedded(*range(10))
    found = find_leaks(Evaluation(items, evaluate(items).answers), items)
    assert all(sum(twin.equal for twin in one.twins) == one.n == 10 for one in found.overlaps)
    assert all(one.new_item is one.new_pair is None for one in found.recall)


def test_an_evaluation_of_something_else_has_no_leak() -> None:
    training = embedded(*range(10))
    for one in training.values():
        one.vectors = -one.vectors
    found = find_leaks(evaluate(embedded(*range(100, 105))), training)
    assert not any(twin.equal for one in found.overlaps for twin in one.twins)
