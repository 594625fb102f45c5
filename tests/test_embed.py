from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_ssl import InputError, PairingSource, Sample
from multimodal_ssl.data import Supply, Traits
from multimodal_ssl.digests import digest
from multimodal_ssl.embed import Embedded, embed

from .toys import Numbers, Stream, Waves, toy_binder


def embedded(*sources: PairingSource, **options: Any) -> tuple[dict[str, Embedded], list[tuple[str, str]]]:
    supplies = [Supply(source, tuple(source.modalities)) for source in sources]
    return embed(toy_binder("abc"), supplies, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_item_is_embedded_once_with_its_key_group_and_preview(workers: int) -> None:
    source = Numbers(20, "abc", kind=lambda i: ("ab", "abc", "c")[i % 3], group=lambda i: f"g{i // 2}")
    found, unreadable = embedded(source, batch=3, workers=workers, previews=True)
    assert not unreadable
    binder = toy_binder("abc")
    for name, one in found.items():
        numbers = [int(key) for key in one.keys]
        assert sorted(numbers) == [i for i in range(20) if name in source.kind(i)]
        assert one.groups == [f"g{i // 2}" for i in numbers]
        assert [preview.text for preview in one.previews] == [str(float(i)) for i in numbers]
        np.testing.assert_allclose(one.vectors, binder.encode(name, numbers), atol=1e-6)


class Overflowing(Waves):
    """Knows nothing of the number 0."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where((inputs[:, 1] == 1).unsqueeze(1), math.nan, super().forward(inputs))


class Labelled(Numbers):
    """Numbers that know more of themselves; two and two are the same item."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        items = dict.fromkeys(sample.items, index // 2)
        return replace(sample, items=items, metadata={"parity": ("even", "odd")[index % 2], "half": index / 2})


@pytest.mark.parametrize("workers", [0, 1])
def test_traits_and_metadata_are_those_of_the_key_at_their_place(workers: int) -> None:
    source = Labelled(20, "abc", kind=lambda i: ("ab", "abc", "c")[i % 3], broken={4, 7})
    found, unreadable = embedded(source, batch=3, workers=workers, traits=True)
    assert sorted(key for key, _ in unreadable) == ["4", "7"]
    for one in found.values():
        numbers = [int(key) for key in one.keys]
        assert one.metadata == [{"parity": ("even", "odd")[i % 2], "half": i / 2} for i in numbers]
        assert one.traits == [Traits(digest(Waves().prepare(i // 2)), {"seen": 1}) for i in numbers]
        assert not one.previews


def test_traits_and_metadata_of_an_item_without_a_finite_vector_are_left_out() -> None:
    found, unreadable = embed(toy_binder("a", Overflowing), [Supply(Labelled(6), ("a",))], traits=True)
    assert [key for key, _ in unreadable] == ["0", "1"]
    assert found["a"].keys == ["2", "3", "4", "5"]
    assert [one["half"] for one in found["a"].metadata] == [1, 1.5, 2, 2.5]
    assert [one.digest for one in found["a"].traits] == [digest(Waves().prepare(number)) for number in (1, 1, 2, 2)]


def test_traits_are_empty_if_not_asked_for() -> None:
    found, _ = embedded(Labelled(4))
    assert not found["a"].traits
    assert len(found["a"].metadata) == 4


def test_keys_of_several_sources_are_told_apart_also_where_they_are_unreadable() -> None:
    found, unreadable = embedded(Numbers(4, broken={1}), Stream(Numbers(4, "bc", broken={1})))
    assert found["a"].keys == ["0/0", "0/2", "0/3"]
    assert found["b"].keys == ["0/0", "0/2", "0/3", "1/0", "1/2", "1/3"]
    assert found["b"].groups == found["b"].keys
    assert dict(unreadable).keys() == {"0/1", "1/line 1"}


def test_what_a_source_skips_while_it_is_read_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    found, unreadable = embedded(Stream(Numbers(10, broken={3, 4})))
    assert unreadable == [("line 3", "broken"), ("line 4", "broken")]
    assert len(found["a"].keys) == 8
    assert "warning: 2 could not be read, e.g. line 3: broken; line 4: broken" in capsys.readouterr().err


def test_an_item_without_a_finite_vector_is_reported_and_its_partner_is_kept() -> None:
    binder = toy_binder("a", Overflowing)
    found, unreadable = embed(binder, [Supply(Numbers(5), ("a",))])
    assert found["a"].keys == ["1", "2", "3", "4"]
    assert np.isfinite(found["a"].vectors).all()
    assert unreadable == [("0", "its a has no finite vector")]


def test_a_modality_of_which_nothing_can_be_read_is_an_error_that_says_why() -> None:
    with pytest.raises(InputError, match=r"no a could be read \(0: broken; 1: broken; 2: broken\)"):
        embedded(Numbers(4, broken=range(4)))

    class Empty(PairingSource):
        modalities = {"a": "number"}

        def __iter__(self) -> Any:
            return iter([Sample("0", {})])

    with pytest.raises(InputError, match=r"no a could be read \(the sources hold none\)"):
        embedded(Empty())


def test_embedding_leaves_the_binder_in_the_mode_that_it_had() -> None:
    binder = toy_binder("ab").train()
    embed(binder, [Supply(Numbers(4), ("a", "b"))])
    assert all(module.training for module in binder.modules())
