from __future__ import annotations

import io

import numpy as np
import pytest

from multimodal_ssl import Catalog, features
from multimodal_ssl.testing import check_encoder, check_modality

CATALOG = Catalog.of(features=features)
VECTOR = CATALOG.modality("vector")


def encoder(width: int = 4):
    return CATALOG.create("encoders", "vector", options={"width": width})


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_the_modality_conforms(tmp_path) -> None:
    path = tmp_path / "one.npy"
    path.write_bytes(npy(np.arange(4.0)))
    check_modality(VECTOR, [path, npy(np.ones(3, np.float16)), [1, 2, 3], np.ones((2, 5))])


def test_the_encoder_conforms() -> None:
    check_encoder(encoder(), [np.arange(4, dtype=np.float32), np.ones(4, np.float32)])


def test_training_draws_one_of_several_views_and_evaluation_takes_the_first() -> None:
    item = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert encoder().prepare(item).tolist() == [0, 1, 2, 3]
    drawn = {encoder().prepare(item, np.random.default_rng(seed))[0].item() for seed in range(30)}
    assert drawn == {0, 4, 8}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array(["a"]), "a vector holds numbers"),
        (np.zeros((2, 2, 2)), r"not of shape \(2, 2, 2\)"),
        (np.zeros(0), "not of shape"),
        ([1.0, float("nan")], "not finite"),
        (b"nonsense", "pickled"),
        (npy(np.array([{}], object)), "allow_pickle"),
    ],
)
def test_what_is_no_vector_is_refused(value, said) -> None:
    with pytest.raises(ValueError, match=said):
        VECTOR.load(value)


def test_a_vector_of_another_width_is_told() -> None:
    with pytest.raises(ValueError, match="the vector has 3 numbers, not 4"):
        encoder().prepare(np.zeros(3, np.float32))
