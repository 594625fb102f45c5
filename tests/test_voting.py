from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl import InputError, Manifest, MapSource, PairingSource, Sample, UnreadableError
from multimodal_ssl.data import Supply
from multimodal_ssl.metrics import auroc
from multimodal_ssl.voting import Voted, Votes, merge, weigh

from .toys import Lazy, Stream

TRUE_ACCURACY = (0.95, 0.7, 0.4)
COVERAGE = (0.8, 0.9, 0.6)


def simulate(*, keys: int = 3000, answers: int = 1000, seed: int = 0) -> tuple[Votes, NDArray[np.bool_]]:
    """Return votes of three voters and which of them are right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, answers, keys)
    rows = []
    for voter, (accuracy, coverage) in enumerate(zip(TRUE_ACCURACY, COVERAGE, strict=True)):
        for key in np.flatnonzero(rng.random(keys) < coverage):
            said = truth[key] if rng.random() < accuracy else truth[rng.integers(keys)]
            rows.append((voter, key, said, said == truth[key]))
    table = np.array(rows, np.int64)
    return Votes(*table[:, [0, 1, 2, 2]].T), table[:, 3].astype(bool)


def test_the_accuracy_of_each_voter_is_found_without_a_label() -> None:
    _, accuracy = weigh(simulate()[0])
    assert accuracy == pytest.approx(TRUE_ACCURACY, abs=0.025)


def test_the_probabilities_are_calibrated_and_tell_the_right_votes() -> None:
    votes, right = simulate()
    probability, _ = weigh(votes)
    assert auroc(probability, right) > 0.95
    bins = np.minimum((probability * 10).astype(int), 9)
    error = sum(abs(probability[bins == one].sum() - right[bins == one].sum()) for one in range(10)) / len(right)
    assert error < 0.02


def test_the_probabilities_are_those_of_enumerating_every_answer() -> None:
    """Bayes by hand: the truth is any of the answers, by their shares; who is wrong says any answer by its share."""
    answers = np.array([5, 5, 6, 6, 7, 5, 7])
    votes = Votes(np.array([0, 1, 2, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 2, 1]), answers, answers)
    probability, accuracy = weigh(votes)
    share = {answer: (votes.answers == answer).mean() for answer in (5, 6, 7)}
    for key in range(3):
        said = [(v, a) for v, k, a, _ in zip(*votes, strict=True) if k == key]
        joint = {
            truth: p * math.prod(accuracy[v] if a == truth else (1 - accuracy[v]) * share[a] for v, a in said)
            for truth, p in share.items()
            if truth in {a for _, a in said}
        }
        # No answer that was given is the truth: what is left of the prior.
        rest = 1 - sum(share[truth] for truth in joint)
        nobody = rest * math.prod((1 - accuracy[v]) * share[a] for v, a in said)
        total = sum(joint.values()) + nobody
        for row in np.flatnonzero(votes.keys == key):
            assert probability[row] == pytest.approx(joint[votes.answers[row]] / total, abs=1e-9)


def test_a_common_answer_on_which_two_agree_is_worth_less_than_a_rare_one() -> None:
    rows = [(voter, key, 0) for voter, key in itertools.product(range(2), range(50))]  # "image", again and again
    rows += [(voter, key, key) for voter, key in itertools.product(range(2), range(50, 60))]
    rows += [(voter, key, 1000 * (voter + 1) + key) for voter, key in itertools.product(range(2), range(60, 80))]
    probability, _ = weigh(Votes(*np.array(rows)[:, [0, 1, 2, 2]].T))
    assert probability[0] < probability[100]


class Rows(MapSource):
    """Samples of key -> text; None can't be read."""

    modalities: Mapping[str, str] = {"number": "number", "text": "text"}

    def __init__(
        self,
        rows: Mapping[str, Any],
        *,
        kind: str = "text",
        times: int = 1,
        group: str = "",
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        self.rows, self.group, self.numbers = list(rows.items()) * times, group, numbers or {}
        self.modalities = {"number": "number", "text": kind}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        key, text = self.rows[index]
        if text is None:
            raise UnreadableError(key, "broken")
        number = self.numbers.get(key, int(key))
        return Sample(key, {"number": np.array([number]), "text": text}, self.group, weight=0.5)


def supplies(*sources: PairingSource, names: Sequence[str] = ("number", "text")) -> list[Supply]:
    return [Supply(source, tuple(names)) for source in sources]


def voted(*sources: PairingSource) -> Voted:
    return Voted(dict(enumerate(supplies(*sources))))


def test_each_pair_stands_once_and_those_that_contradict_share_a_group() -> None:
    source = voted(Rows({"1": "one", "2": "two"}), Rows({"1": "one", "2": "zwei", "3": "three"}))
    found = {sample.key: (sample.items["text"], sample.group) for sample in source}
    assert found == {"1": ("one", "1"), "2": ("two", "2"), "2#2": ("zwei", "2"), "3": ("three", "3")}
    weights = {sample.key: sample.weight for sample in source}
    assert 0.5 >= weights["1"] > weights["3"] > weights["2"] > 0


def test_the_metadata_of_a_pair_tell_which_sources_said_so() -> None:
    first, other, second = Rows({"1": "one", "2": "two"}), Rows({"1": "1"}), Rows({"1": "one", "2": "zwei"})
    lonely = Supply(other, ("text",))
    (both, _), _ = merge([*supplies(first), lonely, *supplies(second)])
    found = {sample.key: sample.metadata for sample in both.source}
    assert found == {"1": {"voices": "0 2"}, "2": {"voices": "0"}, "2#2": {"voices": "2"}}


def test_all_of_one_key_are_of_one_group_whichever_source_tells_it() -> None:
    first, second = Rows({"1": "one", "2": "two"}, group="product"), Rows({"1": "eins", "3": "three"})
    for source in (voted(first, second), voted(second, first)):
        assert {one.key: one.group for one in source} == {"1": "product", "1#2": "product", "2": "product", "3": "3"}


def test_a_source_that_repeats_itself_has_one_vote() -> None:
    once, often = ([Rows({"1": "one", "2": "two"}, times=times), Rows({"1": "eins", "2": "two"})] for times in (1, 3))
    weights = [[sample.weight for sample in voted(*sources)] for sources in (once, often)]
    assert weights[0] == weights[1]
    assert [[one.samples for one in voted(*sources).voices] for sources in (once, often)] == [[2, 2], [2, 2]]


@pytest.mark.parametrize("other", [{}, {"60": 7, "61": 8}])
def test_that_two_say_a_common_thing_of_different_items_proves_little(other: dict[str, int]) -> None:
    """Each key has a number of its own, so that no answer repeats as a whole; a few sources hold another number."""
    common = {str(key): "image" for key in range(50)}
    rare = {str(key): f"thing {key}" for key in range(50, 60)}
    first, second = ({str(key): f"{who} {key}" for key in range(60, 80)} for who in "ab")
    source = voted(Rows(common | rare | first), Rows(common | rare | second, numbers=other))
    weights = {sample.key: sample.weight for sample in source}
    assert weights["0"] < weights["50"]
    alike = voted(Rows(common | rare), Rows(common | rare))  # where nothing differs all items are what is said
    weights = {sample.key: sample.weight for sample in alike}
    assert weights["0"] == weights["50"]


def test_items_that_say_the_same_are_one_wherever_they_lie(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("again", "one"), ("b", "two")):
        (tmp_path / name).write_text(text)
    first = {"1": tmp_path / "a", "2": tmp_path / "b", "3": tmp_path / "gone"}
    for second in ({"1": tmp_path / "again", "2": "two"}, {"1": Lazy("1", b"one"), "2": Lazy("2", b"two")}):
        source = voted(Rows(first), Rows(second))
        assert [sample.key for sample in source] == ["1", "2"]
        assert [key for key, _ in source.skipped] == ["3"]
    pictures = ({"1": tmp_path / "a"}, {"1": tmp_path / "again"}, {"1": Lazy("x", b"one")})
    assert len(voted(*(Rows(one, kind="image") for one in pictures))) == 1


def test_what_is_known_of_all_samples_stays_known() -> None:
    class Known(Rows):
        modalities: Mapping[str, str]

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.modalities = {"more": "text", **self.modalities}

        def manifest(self) -> Manifest:
            number = np.array([float(key) for key, _ in self.rows], np.float32)
            length = np.column_stack([0 * number, number, 10 * number])
            return Manifest(np.tile([False, True, True], (len(self), 1)), None, length, 2 * number)

    source = voted(Known({"1": "a", "2": "b"}), Rows({"2": "b", "3": "c"}))
    assert source.modalities == {"number": "number", "text": "text"}
    manifest = source.manifest()
    assert manifest.present.all()
    assert manifest.length is not None
    assert manifest.frequency is not None
    assert manifest.length.tolist() == [[1, 10], [2, 20], [0, 0]]
    assert manifest.frequency.tolist() == [2, 4, 1]
    unknown = voted(Rows({"1": "a"}), Rows({"1": "a", "2": "b"})).manifest()
    assert unknown.frequency is None, "or all samples count alike, however many pairs they have"
    assert unknown.length is None


def test_the_table_counts_coverage_overlap_and_conflict() -> None:
    _, (first, second) = merge(supplies(Rows({"1": "a", "2": "b"}), Rows({"1": "a", "2": "c", "3": "d", "4": "e"})))
    assert (first.samples, first.coverage, first.overlap, first.conflict) == (2, 0.5, 1.0, 0.5)
    assert (second.samples, second.coverage, second.overlap, second.conflict) == (4, 1.0, 0.5, 0.25)


def test_what_can_not_be_read_is_recorded_and_has_no_vote() -> None:
    source = voted(Rows({"1": "a", "2": None}), Rows({"1": "a", "2": "b"}))
    assert source.skipped == [("2", "broken")]
    assert len(source) == 2


def test_sources_of_other_items_are_left_as_they_are() -> None:
    both = supplies(Rows({"1": "a"}), Rows({"1": "a"}))
    other = Supply(Rows({"1": "a"}), ("text",))
    merged, voices = merge([both[0], other, both[1]])
    assert [len(one.names) for one in merged] == [2, 1]
    assert merged[1] is other
    assert [voice.source for voice in voices] == [0, 2]
    assert merged[0].share == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (supplies(Rows({"1": "a"}), Stream(Rows({"1": "a"}))), "Stream has no random access"),
        (supplies(Rows({"1": "a"}), Rows({"1": "a"}, kind="image")), "'text' is 'text' in one source and 'image'"),
        (supplies(Rows({"1": "a"})), "no two sources have the same items"),
    ],
)
def test_sources_that_can_not_vote_are_refused(given: list[Supply], told: str) -> None:
    with pytest.raises(InputError, match=told):
        merge(given)
