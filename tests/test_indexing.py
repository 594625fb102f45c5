from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_ssl import Index, InputError, Preview, build_index, fit, load, load_config
from multimodal_ssl.embed import Embedded
from multimodal_ssl.migration import migrate
from multimodal_ssl.store import Store

from .toys import write_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config(write_tiny(tmp_path_factory.mktemp("run"), steps=1))
    fit(config)
    return config.run


def contents(index: Index) -> dict[tuple[str, str], Any]:
    """Return all that an index holds: item and vector by modality and key."""
    found = {}
    for name, part in index.store.parts().items():
        places, vectors = index.store.places(name), index.store.vectors(part)
        items = index.store.items(places.ids.tolist())
        for id, row in zip(places.ids.tolist(), places.rows.tolist(), strict=True):
            found[name, items[id].key] = (items[id]._replace(id=0), vectors[row].tolist())
    return found


def test_an_index_that_was_stopped_anywhere_goes_on_and_ends_as_if_it_had_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodal_ssl.indexing.COMMIT", 2)
    monkeypatch.setattr("multimodal_ssl.indexing.BATCH", 7)
    whole = contents(build_index(run, folder=tmp_path / "whole"))
    assert len(whole) > 40
    changing, left = Store.changing, 0

    def stopping(store: Store, *args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return changing(store, *args)

    monkeypatch.setattr(Store, "changing", stopping)
    stops = 0
    for last in range(1, 30):
        left = last
        try:
            index = build_index(run, folder=tmp_path / "index")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert contents(index) == whole
    assert not (tmp_path / "index.building").exists()


def test_an_index_takes_the_place_of_another_when_it_is_whole(run: Path, tmp_path: Path) -> None:
    first = build_index(run)
    assert first.store.folder == run / "index"
    before = contents(first)
    again = build_index(run, kind="hnsw")
    assert [path.name for path in run.glob("index*")] == ["index"]
    assert contents(again) == before
    (tmp_path / "letter").touch()
    with pytest.raises(InputError, match="is no index: it is left as it is"):
        build_index(run, folder=tmp_path)


def test_a_migrated_index_is_that_of_the_new_binder_with_what_was_added_and_deleted(run: Path, tmp_path: Path) -> None:
    config = load_config(write_tiny(tmp_path, steps=1), ["seed=1"])
    binder = fit(config)
    old = build_index(run, folder=tmp_path / "old")
    fresh = contents(build_index(config.run, folder=tmp_path / "fresh"))
    keys = [key for name, key in fresh if name == "text"]
    words = load(run).encode("text", ["red apple", "lost"])
    old.add("text", Embedded(words[:1], ["mine"], ["g"], [Preview(text="red apple")], metadata=[{"shelf": 3.0}]))
    old.add("image", Embedded(words[1:], ["gone"], ["g"], [Preview(png=b"x", path="nowhere.png")]))
    old.delete("text", keys[:2])
    before = contents(old)
    done = migrate(old, config.run, tmp_path / "new")
    assert contents(old) == before
    assert done.lost == {"image": ["gone"]}
    after = contents(done.index)
    assert after.keys() == before.keys() - {("image", "gone")}
    (item, vector) = after.pop(("text", "mine"))
    assert (item.group, item.metadata, item.preview.text) == ("g", {"shelf": 3.0}, "red apple")
    np.testing.assert_allclose(vector, binder.encode("text", ["red apple"])[0], atol=1e-6)
    assert {name: item for name, (item, _) in after.items()} == {name: fresh[name][0] for name in after}
    for name, (_, vector) in after.items():
        np.testing.assert_allclose(vector, fresh[name][1], atol=1e-6)
    assert {(one.query, one.gallery) for one in done.overlaps} >= {("text", "image"), ("outline", "text")}
    assert all(0 <= one.shared <= 1 for one in done.overlaps)
    with pytest.raises(InputError, match=r"was made by the Binder of .* already"):
        migrate(done.index, config.run, tmp_path / "again")


def test_an_index_migrated_to_a_binder_of_the_same_weights_answers_alike(run: Path, tmp_path: Path) -> None:
    old = build_index(run, folder=tmp_path / "old")
    Store.create(tmp_path / "strange", {**old.store.facts, "fingerprint": "another"}).close()
    with Index(tmp_path / "strange") as strange:
        for name, part in old.store.parts().items():
            places = old.store.places(name)
            items = [old.store.items([id])[id] for id in places.ids.tolist()]
            strange.add(name, Embedded(
                old.store.vectors(part)[places.rows], [one.key for one in items], [one.group for one in items],
                [one.preview for one in items],
            ))  # fmt: skip
        done = migrate(strange, run, tmp_path / "new")
    assert all(one.shared == 1 and one.found_before == one.found_after for one in done.overlaps)
