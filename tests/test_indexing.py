from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimodal_ssl import Index, InputError, build_index, fit, load_config
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
