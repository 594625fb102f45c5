from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_ssl import InputError
from multimodal_ssl.binder import Binder
from multimodal_ssl.checkpoint import load_tensors, save_tensors

from .toys import NUMBER, Numbers, Waves, fit_toys, toy_binder


class Centred(Waves):
    """Learns a mean before training, as a vocabulary is learnt: preparation needs it, no layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(())

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        return super().prepare(item - self.mean.item(), rng)

    def adapt(self, items: Iterable[Any]) -> None:
        self.mean = torch.tensor(float(np.mean(list(items))))

    def get_extra_state(self) -> Tensor:
        return self.mean

    def set_extra_state(self, state: Tensor) -> None:
        self.mean = state


@pytest.mark.parametrize("items", ["17", b"17", Path("17.txt")])
def test_encode_takes_a_list_and_says_so_of_anything_that_only_looks_like_one(items: Any) -> None:
    with pytest.raises(InputError, match="encode takes a list of items, not one: give "):
        toy_binder().encode("a", items)


@pytest.mark.parametrize("training", [True, False])
def test_encode_names_an_item_that_cannot_be_read_and_leaves_the_mode_as_it_was(training: bool) -> None:
    binder = toy_binder().train(training)
    with pytest.raises(InputError, match="'twelve' can't be read as number: could not convert"):
        binder.encode("a", [1, 2, "twelve"])
    assert {module.training for module in binder.modules()} == {training}
    binder.encode("a", [1, 2])
    assert {module.training for module in binder.modules()} == {training}


def test_encode_gives_the_same_unit_vectors_in_any_batches_and_without_dropout() -> None:
    class Dropped(Waves):
        dropout = 0.5

    binder = toy_binder(encoder=Dropped).train()
    vectors = binder.encode("a", range(10))
    assert vectors.shape == (10, 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(binder.encode("a", (str(i) for i in range(10)), batch_size=3), vectors, atol=1e-6)
    assert binder.encode("a", []).shape == (0, 4)


def test_an_unknown_name_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no encoder for 'c': known: a, b"):
        toy_binder().encode("c", [1])


@pytest.mark.parametrize("name", ["", "a.b", "2d", "keys", "forward"])
def test_a_name_that_torch_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="can't be the name of items"):
        Binder({name: Waves()}, {name: NUMBER}, dim=4)


def test_bf16_reaches_the_encoders_and_the_vectors_are_float32() -> None:
    binder = toy_binder()
    dtypes: set[torch.dtype] = set()
    binder.encoder("a").layer.register_forward_hook(lambda *call: dtypes.add(call[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        view = binder({"a": torch.rand(5, 2)})["a"]
    assert dtypes == {torch.bfloat16}
    assert view.dtype == torch.float32
    torch.testing.assert_close(view.norm(dim=1), torch.ones(5))


def test_a_fingerprint_is_equal_where_recipe_and_weights_are(tmp_path: Path) -> None:
    binder, other = toy_binder(seed=1), toy_binder(seed=2)
    assert binder.fingerprint() == toy_binder(seed=1).fingerprint() != other.fingerprint()
    save_tensors(tmp_path / "model.safetensors", binder.state_dict())
    other.load_state_dict(load_tensors(tmp_path / "model.safetensors"))
    assert other.fingerprint() == binder.fingerprint()
    parts = {"a": Waves(), "b": Waves()}
    one, two = (Binder(parts, dict.fromkeys("ab", NUMBER), dim=4, recipe=recipe) for recipe in ("size: 24", "size: 32"))
    two.load_state_dict(one.state_dict())
    assert one.fingerprint() != two.fingerprint()


def test_a_fingerprint_changes_with_each_change_of_the_weights() -> None:
    binder = toy_binder()
    seen = [binder.fingerprint()]
    optimizer = torch.optim.AdamW(binder.parameters(), lr=0.1)
    binder({"a": torch.rand(5, 2)})["a"].sum().backward()
    optimizer.step()
    seen.append(binder.fingerprint())
    binder.load_state_dict(toy_binder(seed=1).state_dict())
    seen.append(binder.fingerprint())
    with torch.no_grad():
        binder.encoder("a").layer.weight[0, 0] += 1
    seen.append(binder.fingerprint())
    binder.heads["b"].weight = torch.nn.Parameter(torch.ones(4, 8))
    seen.append(binder.fingerprint())
    assert len(set(seen)) == 5


def test_a_fingerprint_changes_with_what_preparation_has_learnt_and_a_run_keeps_it(tmp_path: Path) -> None:
    binder = toy_binder(encoder=Centred)
    before = binder.fingerprint()
    binder.encoder("b").adapt([1, 2, 6])
    assert binder.fingerprint() != before
    trained = fit_toys(tmp_path / "run", Numbers(21), encoder=Centred)
    assert trained.encoder("a").mean == trained.encoder("b").mean == 10


def test_a_fingerprint_is_computed_once_for_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: calls.append(data) or real(*data))
    binder = toy_binder(encoder=Centred)
    assert len({binder.fingerprint() for _ in range(5)}) == 1
    binder.encode("a", [1])
    binder.fingerprint()
    assert len(calls) == 1
