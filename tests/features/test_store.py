from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from multimodal_ssl import InputError
from multimodal_ssl.features.store import FeatureStore, default_folder

MANY = """
import sys
import numpy as np
from multimodal_ssl.features.store import FeatureStore

store, me = FeatureStore(__import__("pathlib").Path(sys.argv[1]), 3, {}), int(sys.argv[2])
for turn in range(50):
    key = me * 1000 + turn + 1
    store.append(np.array([key]), np.full((1, 1, 3), key, np.float32))
"""


def rows(*numbers: float) -> np.ndarray:
    return np.repeat(np.array(numbers, np.float32)[:, None], 3, axis=1)


def test_what_is_appended_is_found_also_by_others_and_later(tmp_path) -> None:
    store, other = (FeatureStore(tmp_path / "store", 3, {"name": "toy"}) for _ in range(2))
    store.append(np.array([7, -3]), rows(7, -3)[:, None])
    assert store.find(np.array([7])).tolist() == [-1]
    for one in (store, other, FeatureStore(tmp_path / "store", 3, {})):
        one.refresh()
        found = one.find(np.array([-3, 5, 7]))
        assert found.tolist() == [1, -1, 0]
        assert one.vectors()[found[[0, 2]]].tolist() == rows(-3, 7).tolist()
    assert json.loads((tmp_path / "store" / "about.json").read_text()) == {"name": "toy", "width": 3}


def test_an_empty_store_finds_nothing(tmp_path) -> None:
    store = FeatureStore(tmp_path, 3, {})
    assert store.find(np.array([1, 2])).tolist() == [-1, -1]
    assert store.vectors().shape == (0, 3)


@pytest.mark.parametrize("torn", ["keys.i64", "vectors.f32"])
def test_what_a_stopped_process_left_behind_is_written_over(tmp_path, torn) -> None:
    store = FeatureStore(tmp_path, 3, {})
    store.append(np.array([1]), rows(1)[:, None])
    with (tmp_path / torn).open("ab") as file:
        file.write(b"\1\2\3\4\5")  # a part of a row
    store = FeatureStore(tmp_path, 3, {})
    assert len(store) == 1
    store.append(np.array([2]), rows(2)[:, None])
    store.refresh()
    assert store.vectors()[store.find(np.array([1, 2]))].tolist() == rows(1, 2).tolist()


@pytest.mark.parametrize("size", [None, 0, 5])
def test_vectors_that_were_lost_are_told(tmp_path, size) -> None:
    FeatureStore(tmp_path, 3, {}).append(np.array([1]), rows(1)[:, None])
    if size is None:
        (tmp_path / "vectors.f32").unlink()
    else:
        (tmp_path / "vectors.f32").write_bytes(bytes(size))
    with pytest.raises(InputError, match=r"vectors\.f32 is cut short or lost: remove its folder"):
        FeatureStore(tmp_path, 3, {})


def test_an_item_may_have_several_rows(tmp_path) -> None:
    store = FeatureStore(tmp_path, 3, {})
    store.append(np.array([5]), [rows(1, 2)])
    store.append(np.array([9, 4]), [rows(3), rows(4, 5, 6)])
    store.refresh()
    last = store.find(np.array([4, 5, 9, 6]))
    assert last.tolist() == [5, 1, 2, -1]
    assert store.first(last[:3]).tolist() == [3, 0, 2]
    assert store.vectors()[3:6].tolist() == rows(4, 5, 6).tolist()


def test_what_is_left_of_an_item_whose_process_was_stopped_is_written_over(tmp_path) -> None:
    store = FeatureStore(tmp_path, 3, {})
    store.append(np.array([5]), [rows(1, 2)])
    whole = (tmp_path / "keys.i64").read_bytes()
    store.append(np.array([9]), [rows(3, 4, 5, 6)])
    (tmp_path / "keys.i64").write_bytes(whole + bytes(3 * 8))  # all rows but the last, which has the key
    store = FeatureStore(tmp_path, 3, {})
    assert len(store) == 2
    assert store.find(np.array([5, 9])).tolist() == [1, -1]
    store.append(np.array([7]), [rows(7)])
    store.refresh()
    last = store.find(np.array([7]))
    assert store.first(last).tolist() == last.tolist()
    assert store.vectors()[last].tolist() == rows(7).tolist()


def test_processes_append_in_turns(tmp_path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), str(me)]) for me in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    store = FeatureStore(tmp_path, 3, {})
    keys = np.array([me * 1000 + turn + 1 for me in range(3) for turn in range(50)])
    assert np.array_equal(store.vectors()[store.find(keys)], rows(*keys))


def test_a_folder_that_can_not_be_made_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"features can't be kept in .*: give another folder with cache=FOLDER"):
        FeatureStore(tmp_path / "file" / "store", 3, {})


def test_the_default_folder_is_the_users_unless_the_environment_says_otherwise(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MMSSL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mmssl" / "features"
    monkeypatch.setenv("MMSSL_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
