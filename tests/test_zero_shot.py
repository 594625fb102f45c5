from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multimodal_ssl.data import Supply
from multimodal_ssl.embed import Embedded, embed
from multimodal_ssl.errors import InputError
from multimodal_ssl.zero_shot import class_vectors, classify, labels_of, read_classes, read_templates

from .toys import Numbers, refusal, toy_binder

BINDER = toy_binder()
CLASSES = {"low": ["0", "0.4"], "middle": "1.5", "high": ["3"]}


def numbers(*values: float, groups: list[str] | None = None) -> dict[str, Embedded]:
    """Return numbers that are embedded as prompts are."""
    keys = [str(value) for value in values]
    return {"a": Embedded(BINDER.encode("b", values), keys, groups or [f"0/{key}" for key in keys])}


def test_a_class_is_the_normalised_mean_of_the_unit_vectors_of_its_prompts() -> None:
    vectors = class_vectors(BINDER, "b", {"x": ["1", "2", "4"], "y": ["3"]})
    mean = BINDER.encode("b", ["1", "2", "4"]).mean(0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(vectors[1], BINDER.encode("b", ["3"])[0], rtol=1e-5)


def test_accuracy_agrees_with_a_loop_over_items() -> None:
    values = np.linspace(-1, 4, 60).tolist()
    labels = [("low", "middle", "high")[min(2, max(0, int(value)))] for value in values]
    found = classify(BINDER, numbers(*values, groups=labels), "a", by="b", classes=CLASSES, templates=["{}", "{}1"])
    assert found.prompts == {"low": ["0", "0.4"], "middle": ["1.5", "1.51"], "high": ["3"]}
    classes = class_vectors(BINDER, "b", found.prompts)
    right: dict[str, list[bool]] = {name: [] for name in CLASSES}
    for vector, label in zip(BINDER.encode("b", values), labels, strict=True):
        right[label].append(list(CLASSES)[int((classes @ vector).argmax())] == label)
    assert found.top_1.value == pytest.approx(np.mean([one for some in right.values() for one in some]))
    assert found.by_class == pytest.approx({name: np.mean(one) for name, one in right.items()})
    assert found.mean_per_class.value == pytest.approx(np.mean(list(found.by_class.values())))
    assert found.top_5.value == 1, "there are but three classes"
    assert (found.top_1.chance, found.top_5.chance, found.mean_per_class.chance) == pytest.approx((1 / 3, 1, 1 / 3))
    for one in (found.top_1, found.mean_per_class):
        assert one.low < one.value < one.high


def test_a_collapsed_model_scores_chance() -> None:
    values = list(range(20))
    items = numbers(*values, groups=[str(value % 10) for value in values])
    same = {str(value): ["7"] for value in range(10)}
    items["a"].vectors = np.tile(items["a"].vectors[:1], (20, 1))
    found = classify(BINDER, items, "a", by="b", classes=same)
    assert (found.top_1.value, found.top_1.chance) == pytest.approx((0.1, 0.1))
    assert (found.top_5.value, found.top_5.chance) == pytest.approx((0.5, 0.5))
    assert found.mean_per_class.value == pytest.approx(0.1)


def test_classes_are_the_groups_unless_they_are_given() -> None:
    found = classify(BINDER, numbers(1, 1, 3, groups=["1", "1", "3"]), "a", by="b")
    assert found.prompts == {"1": ["1"], "3": ["3"]}
    assert found.top_1.value == 1
    assert found.left_out == 0


def test_an_item_without_a_label_or_of_no_class_is_left_out() -> None:
    (items,) = (embed(BINDER, [Supply(Numbers(6, group=lambda i: "" if i < 2 else str(i)), ("a",))])[0],)
    assert labels_of(items["a"], None) == [None, None, "2", "3", "4", "5"]
    found = classify(BINDER, items, "a", by="b", classes={"3": "3", "5": "5", "9": "9"})
    assert (found.n, found.left_out, found.classes) == (2, 4, 3)


def test_a_column_of_the_metadata_may_be_the_class() -> None:
    items = numbers(1, 3, 3)
    items["a"].metadata = [{"kind": "1"}, {"kind": 3.0}, {"kind": None}]
    assert labels_of(items["a"], "kind") == ["1", "3.0", None]
    found = classify(BINDER, items, "a", by="b", label="kind")
    assert (found.n, found.top_1.value) == (2, 1)
    assert "no item has 'kinds' in its metadata: did you mean 'kind'?" in refusal(
        lambda: labels_of(items["a"], "kinds")
    )


def test_items_of_one_group_are_no_independent_evidence_but_a_class_is_no_draw() -> None:
    items = numbers(*[1.0] * 20, groups=[f"product {i // 10}" for i in range(20)])
    items["a"].metadata = [{"kind": "1" if i < 10 else "3"} for i in range(20)]
    by_product = classify(BINDER, items, "a", by="b", label="kind").top_1
    items["a"].groups = [str(one["kind"]) for one in items["a"].metadata]
    by_class = classify(BINDER, items, "a", by="b").top_1
    assert by_product.value == by_class.value
    assert by_product.high - by_product.low > by_class.high - by_class.low


def test_what_can_not_be_classified_is_told() -> None:
    items = numbers(1, 2, groups=["1", "2"])
    assert "has no 'image' to classify: known: a" in refusal(lambda: classify(BINDER, items, "image"))
    message = refusal(lambda: classify(BINDER, items, "a", by="b", classes={"x": "1"}))
    assert "no a is of one of the classes: the labels are 1, 2, the classes x" in message
    assert "no encoder for 'text'" in refusal(lambda: classify(BINDER, items, "a"))


def test_classes_and_templates_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(CLASSES))
    assert read_classes(path) == CLASSES
    for text, message in (
        ("[1]", "must hold classes with names or prompts"),
        ('{"x": []}', "the class 'x' must have a name or a list of prompts"),
        ('{"x": 3}', "the class 'x' must have a name or a list of prompts"),
        ("{", "can't read the classes"),
    ):
        path.write_text(text)
        assert message in refusal(lambda: read_classes(path))
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}\n\n  {} \n")
    assert read_templates(path) == ["a photo of a {}", "{}"]
    for text in ("", "a photo\n", "{} and {}\n"):
        path.write_text(text)
        with pytest.raises(InputError, match="must hold templates such as"):
            read_templates(path)
    assert "can't read the templates" in refusal(lambda: read_templates(tmp_path / "nowhere.txt"))
