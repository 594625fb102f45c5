"""Frozen encoders run once: what is trained from the cache is what is trained without, and nothing stale is read."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from multimodal_ssl import Manifest, MapSource, Sample
from multimodal_ssl.config import parse_config
from multimodal_ssl.data import Feed, Supply, Ticket
from multimodal_ssl.digests import item_key
from multimodal_ssl.embed import embed
from multimodal_ssl.features.cache import cached, view_key
from multimodal_ssl.pipeline import bench, fit
from multimodal_ssl.testing import check_pairing_source, check_resume

from ..toys import (
    Numbers,
    Stream,
    Torn,
    Waves,
    catalog,
    messy,
    read_rows,
    refusal,
    toy_binder,
    toy_config,
)

MADE: Counter[str] = Counter()


class Counting(Waves):
    """Waves that count how often they prepare and how many items they encode."""

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        MADE["prepared"] += 1
        return super().prepare(item, rng)

    def forward(self, inputs: Tensor) -> Tensor:
        MADE["encoded"] += len(inputs)
        return super().forward(inputs)


class Plain(MapSource):
    """Thirty numbers; it can be pickled."""

    modalities = {"a": "number", "b": "number"}

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), {"a": index, "b": -index})


@pytest.fixture(autouse=True)
def _count() -> None:
    MADE.clear()


def config_of(run: Path, names: str = "ab", count: int = 1, *, only: str = "", views: int = 1, **train: Any):
    values = toy_config(run, names, count, **train).model_dump(mode="json")
    values["encoders"] = {
        name: {"name": "waves", "frozen": True, "cache": views} if name in (only or names) else {"name": "waves"}
        for name in names
    }
    return parse_config({**values, "cache": str(run.parent / "cache"), "evaluation": values["sources"]})


def binder_of(names: str = "ab"):
    binder = toy_binder(names, Counting)
    binder.recipe = json.dumps({"encoders": {key: {"name": "waves", "options": {}, "lora": None} for key in names}})
    return binder.requires_grad_(False)


def features_of(binder, name: str, item: float) -> np.ndarray:
    encoder = binder.encoder(name).eval()
    with torch.no_grad():
        return encoder(encoder.prepare(item)[None])[0].numpy()


def test_training_from_the_cache_is_training_without_it(tmp_path) -> None:
    class Still(Waves):
        def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
            return super().prepare(item)

    known = catalog([Numbers(40)], encoder=Still)
    with_cache = config_of(tmp_path / "with")
    values = with_cache.model_dump(mode="json")
    values["encoders"] = {key: {"name": "waves", "frozen": True} for key in "ab"}
    without = parse_config({**values, "run": str(tmp_path / "without")})
    one, other = fit(with_cache, catalog=known), fit(without, catalog=known)
    for name in "ab":
        torch.testing.assert_close(one.heads[name].weight, other.heads[name].weight)
        assert torch.equal(one.encoder(name).layer.weight, other.encoder(name).layer.weight)
    assert [direction.result.recall for direction in bench(tmp_path / "with", catalog=known)] == [
        direction.result.recall for direction in bench(tmp_path / "without", catalog=known)
    ]


def test_each_item_is_encoded_once_whatever_is_trained_after(tmp_path) -> None:
    known = catalog([Numbers(40)], encoder=Counting)
    fit(config_of(tmp_path / "one", steps=30), catalog=known)
    first = MADE["encoded"]
    assert first == 2 * 40
    fit(config_of(tmp_path / "two", steps=30, lr=0.1), catalog=known)
    bench(tmp_path / "two", catalog=known)
    assert MADE["encoded"] == first


def test_other_weights_options_or_items_are_other_features(tmp_path) -> None:
    supply = Supply(Numbers(10), ("a", "b"))
    binder = binder_of()
    cached(binder, [supply], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 10
    cached(binder, [supply], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 10
    other = {"name": "waves", "options": {"size": 2}, "lora": None}
    binder.recipe = json.dumps({"encoders": dict.fromkeys("ab", other)})
    cached(binder, [supply], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 20
    with torch.no_grad():
        binder.encoder("a").layer.weight[0, 0] += 1e-3
    cached(binder, [supply], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 30
    cached(binder, [Supply(Numbers(12), ("a", "b"))], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 32


def test_a_path_is_the_same_however_it_is_spelt(tmp_path, monkeypatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    binder = binder_of()
    for spelt in ("model", "./model", str(tmp_path / "model")):
        one = {"name": "waves", "options": {"model": spelt}, "lora": None}
        binder.recipe = json.dumps({"encoders": dict.fromkeys("ab", one)})
        cached(binder, [Supply(Numbers(10), ("a", "b"))], {"a": 1}, folder=tmp_path / "cache")
    assert MADE["encoded"] == 10


def test_features_of_an_encoder_of_other_files_are_others(tmp_path) -> None:
    binder = binder_of()
    for digest in ("one", "one", "another"):
        binder.preparation = {name: {"versions": {}, "digest": digest} for name in "ab"}
        cached(binder, [Supply(Numbers(10), ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path)
    assert MADE["encoded"] == 2 * 20, "ten of a and ten of b, once for each of the files"


def test_equal_items_of_different_samples_share_their_features(tmp_path) -> None:
    class Repeated(Numbers):
        def __getitem__(self, index: int) -> Sample:
            return Sample(str(index), {"a": index % 3, "b": index})

    cached(binder_of(), [Supply(Repeated(600), ("a", "b"))], {"a": 1}, folder=tmp_path)
    assert MADE["encoded"] == 3


def test_features_are_those_of_the_encoder_and_reach_the_right_samples(tmp_path) -> None:
    binder = binder_of("abc")
    supplies = [Supply(one, ("a", "b", "c")) for one in messy()]
    taking, made = cached(binder, supplies, dict.fromkeys("abc", 1), folder=tmp_path)
    for supply, original in zip(made, supplies, strict=True):
        before = {one.key: one for one in original.source}
        found = list(supply.source)
        assert {one.key for one in found} == set(before)
        for sample in found:
            was = before[sample.key]
            assert (sample.group, sample.weight, set(sample.items)) == (was.group, was.weight, set(was.items))
            for name, item in sample.items.items():
                np.testing.assert_allclose(item[0], features_of(binder, name, was.items[name]), rtol=1e-5, atol=1e-6)
    inputs = {name: torch.from_numpy(sample.items[name]) for name in sample.items}
    direct = {name: torch.stack([binder.encoder(name).prepare(before[sample.key].items[name])]) for name in inputs}
    for name, view in taking(inputs).items():
        torch.testing.assert_close(view, binder.eval()(direct)[name])


def test_a_source_of_features_conforms(tmp_path) -> None:
    for source in messy():
        _, (supply,) = cached(
            binder_of("abc"), [Supply(source, ("a", "b", "c"))], dict.fromkeys("abc", 2), folder=tmp_path
        )
        check_pairing_source(supply.source)
        check_resume(supply.source, workers=(0, 1))
    _, (supply,) = cached(binder_of(), [Supply(Plain(), ("a", "b"))], {"a": 2}, folder=tmp_path)
    check_pairing_source(supply.source)
    check_resume(supply.source, workers=(0, 1))


def test_beside_cached_items_the_others_are_read_as_they_were(tmp_path) -> None:
    known = catalog([Numbers(40)], encoder=Counting)
    binder = fit(config_of(tmp_path / "run", only="a", steps=20), catalog=known)
    torch.manual_seed(0)
    untrained = Counting()
    assert torch.equal(binder.encoder("a").layer.weight, untrained.layer.weight)
    assert MADE["encoded"] == 40 + 20 * 8  # a once each, b at every visit


def test_features_that_are_the_space_are_evaluated_from_the_cache(tmp_path) -> None:
    binder = binder_of()
    binder.heads = torch.nn.ModuleDict({name: torch.nn.Identity() for name in "ab"})
    taking, supplies = cached(binder, [Supply(Numbers(10), ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path)
    found, _ = embed(taking, supplies)
    expected = np.stack([features_of(binder, "a", one) for one in range(10)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found["a"].vectors, expected, rtol=1e-5, atol=1e-6)


def test_a_stream_of_which_only_a_part_is_cached_is_refused(tmp_path) -> None:
    supply = Supply(Stream(Numbers(10)), ("a", "b"))
    said = refusal(lambda: cached(binder_of(), [supply], {"a": 1}, folder=tmp_path))
    assert said.startswith("sources.0 has no random access: the features of a can be cached only with those of b")


def test_a_cached_stream_is_trained_for_epochs_though_it_told_no_length(tmp_path) -> None:
    fit(config_of(tmp_path / "run", steps=None, epochs=3, batch=8), catalog=catalog([Stream(Numbers(40))]))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3 * 40 // 8


def test_a_cached_stream_is_shuffled_as_a_whole_and_knows_its_length(tmp_path) -> None:
    _, (supply,) = cached(
        binder_of(), [Supply(Stream(Numbers(10)), ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path
    )
    assert len(supply.source) == 10
    assert isinstance(supply.source.manifest(), Manifest)


def test_views_are_augmented_each_its_own_way_and_the_first_is_plain(tmp_path) -> None:
    binder = binder_of()
    _, (supply,) = cached(binder, [Supply(Numbers(6), ("a", "b"))], {"a": 3, "b": 1}, folder=tmp_path)
    views = supply.source[4].items["a"]
    assert views.shape == (3, 8)
    np.testing.assert_allclose(views[0], features_of(binder, "a", 4), rtol=1e-5)
    assert len(np.unique(views.round(5), axis=0)) == 3
    _, (again,) = cached(binder, [Supply(Numbers(6), ("a", "b"))], {"a": 4, "b": 1}, folder=tmp_path)
    assert np.array_equal(again.source[4].items["a"][:3], views)


@pytest.mark.parametrize("seed", [None, 1])
def test_features_that_are_taken_at_once_make_the_batch_that_they_make_one_by_one(tmp_path, seed) -> None:
    taking, supplies = cached(binder_of(), [Supply(Plain(), ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path)
    assert MADE["prepared"]
    encoders = {name: taking.encoder(name) for name in "ab"}
    feed = Feed(supplies, encoders, taking.modalities, seed=seed)
    ticket = Ticket(3, 0, ("a", "b"), [5, 29, 5, 0], range(1, 9, 2))
    one, other = feed._at_once(ticket), feed._one_by_one(ticket)
    for field in ("supply", "keys", "groups", "unreadable", "metadata", "cursor", "kind"):
        assert getattr(one, field) == getattr(other, field), field
    assert torch.equal(one.weight, other.weight)
    for name in "ab":
        assert torch.equal(one.inputs[name], other.inputs[name])


def test_views_are_drawn_by_the_place_in_the_batch_of_all_processes(tmp_path) -> None:
    taking, supplies = cached(binder_of(), [Supply(Plain(), ("a", "b"))], dict.fromkeys("ab", 3), folder=tmp_path)
    feed = Feed(supplies, {name: taking.encoder(name) for name in "ab"}, taking.modalities, seed=1)
    rows = list(range(24))
    whole = feed._at_once(Ticket(3, 0, ("a", "b"), rows, range(24))).inputs["a"]
    parts = [feed._at_once(Ticket(3, 0, ("a", "b"), rows[rank::2], range(rank, 24, 2))).inputs["a"] for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)
    views = np.stack([supplies[0].source[row].items["a"] for row in rows])
    drawn = (views == whole.numpy()[:, None]).all(-1)
    assert (drawn.sum(1) == 1).all()
    assert drawn.any(0).all()
    assert not torch.equal(feed[Ticket(4, 0, ("a", "b"), rows, range(24))].inputs["a"], whole)


def test_what_is_wrong_with_one_sample_is_told_where_others_are_taken_at_once(tmp_path) -> None:
    taking, (supply,) = cached(binder_of(), [Supply(Plain(), ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path)
    source, names = supply.source, ("a", "b")
    source._vectors["b"] = source._vectors["b"].copy()
    source._vectors["b"][source._rows["b"][4]] = np.nan
    feed = Feed([supply], {name: taking.encoder(name) for name in names}, taking.modalities)
    batch = feed[Ticket(0, 0, names, [3, 4, 5], range(3))]
    assert batch.keys == ["3", "5"]
    assert [key for key, _ in batch.unreadable] == ["4"]


def test_augmented_views_may_have_another_shape(tmp_path) -> None:
    class Cropping(Waves):
        def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
            whole = super().prepare(item)
            return whole if rng is None else whole[:1]

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs[:, :1].expand(-1, 2))

    fit(config_of(tmp_path / "run", views=3), catalog=catalog([Numbers(40)], encoder=Cropping))


def test_strings_that_are_no_paths_are_items(tmp_path) -> None:
    assert item_key("CCO", "molecule") == item_key("CCO", "molecule") != item_key("CCC", "molecule")
    assert item_key("a\0b", "molecule")
    path = tmp_path / "x"
    path.write_bytes(b"1")
    before = item_key(str(path), "molecule")
    path.write_bytes(b"12")
    assert item_key(str(path), "molecule") != before


def test_samples_that_can_not_be_read_or_have_no_finite_features_are_left_out_and_told(tmp_path) -> None:
    class Breaking(Waves):
        def forward(self, inputs: Tensor) -> Tensor:
            features = super().forward(inputs)
            return torch.where(inputs[:, :1] == inputs.new_tensor(np.sin(11.0)), torch.nan, features)

    known = catalog([Torn(40)], encoder=Breaking)
    fit(config_of(tmp_path / "run"), catalog=known)
    told = {row["key"]: row["reason"] for row in read_rows(tmp_path / "run")}
    assert told == {"row 7": "OSError: disk", "11": "its b has no finite features"}


def test_a_weight_that_is_none_makes_a_sample_unreadable_as_without_a_cache(tmp_path) -> None:
    source = Numbers(10, weights={4: 2.0})
    _, (supply,) = cached(binder_of(), [Supply(source, ("a", "b"))], dict.fromkeys("ab", 1), folder=tmp_path)
    assert len(supply.source) == 9
    assert supply.source.known.unreadable == [("4", "its weight is 2.0, not in (0, 1]")]


def test_too_many_unreadable_samples_stop_the_run_as_without_a_cache(tmp_path) -> None:
    known = catalog([Numbers(40, broken=set(range(30)))], encoder=Waves)
    said = refusal(lambda: fit(config_of(tmp_path / "run"), catalog=known))
    assert said.startswith("30 of 40 samples can't be read, train.max_unreadable is 0.1; e.g. ")


def test_what_a_stream_skipped_is_still_told(tmp_path) -> None:
    stream = Stream(Numbers(40, broken={3}))
    fit(config_of(tmp_path / "run"), catalog=catalog([stream], encoder=Waves))
    assert [row["key"] for row in read_rows(tmp_path / "run")] == ["line 3"]


def test_an_evaluation_of_which_a_part_is_cached_and_that_is_a_stream_is_encoded_anew(tmp_path) -> None:
    known = catalog([Numbers(40), Stream(Numbers(10))], encoder=Waves)
    values = config_of(tmp_path / "run", only="a").model_dump(mode="json")
    fit(parse_config({**values, "evaluation": ["1"]}), catalog=known)
    assert len(bench(tmp_path / "run", catalog=known)) == 2


def test_items_that_differ_have_keys_that_differ(tmp_path) -> None:
    large = bytearray(12 << 20)
    before = item_key(bytes(large), "audio")
    large[4 << 20] = 1
    assert item_key(bytes(large), "audio") != before
    with pytest.raises(TypeError):  # of two palettes the pixels may be the same
        item_key(Image.new("P", (2, 2)), "image")
    path = tmp_path / "one.npy"
    path.write_bytes(b"1")
    assert item_key(str(path), "vector") == item_key(path, "vector") != item_key(str(path), "text")
    assert item_key(np.zeros(2, np.float32), "series") != item_key(np.zeros(2, np.float64), "series")


def test_a_file_is_known_by_path_size_and_time(tmp_path) -> None:
    path = tmp_path / "item.txt"
    path.write_text("one")
    first = item_key(path, "audio")
    assert item_key(tmp_path / "." / "item.txt", "audio") == first
    os.utime(path, ns=(1, 1))
    assert item_key(path, "audio") != first
    assert item_key("one", "text") == item_key("one", "text") != item_key("two", "text")


def test_views_have_keys_of_their_own() -> None:
    assert view_key(5, 0) == 5
    assert len({view_key(key, view) for key in (5, 6) for view in range(4)}) == 8


def test_a_run_that_is_resumed_from_the_cache_ends_in_the_same_bits(tmp_path) -> None:
    from ..toys import interrupted, learnt

    known = catalog([Numbers(40)], encoder=Waves)
    whole = fit(config_of(tmp_path / "whole", steps=12, checkpoint_every=3), catalog=known)
    stopped = config_of(tmp_path / "stopped", steps=12, checkpoint_every=3)
    with interrupted(step=8):
        fit(stopped, catalog=known)
    resumed = fit(stopped, resume=True, catalog=known)
    assert resumed.fingerprint() == whole.fingerprint()
    assert learnt(tmp_path / "stopped") == learnt(tmp_path / "whole")
