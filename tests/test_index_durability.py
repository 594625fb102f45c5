"""What is left of an index whose writer was killed, or whose files were damaged, and what others see meanwhile."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_ssl import Index, InputError, Preview
from multimodal_ssl.embed import Embedded

from .indices import items
from .toys import units


def state_after(operations: int) -> dict[str, int]:
    """Return the keys that are there after so many operations of `write`, with the seed of their vectors."""
    state: dict[str, int] = {}
    for n in range(operations):
        rng = random.Random(n)
        if n % 3 == 2 and len(state) > 20:
            for key in rng.sample(sorted(state), 10):
                del state[key]
        else:
            state |= {f"k{(n * 7 + i) % 200}": n for i in range(rng.randint(1, 30))}
    return state


def write(folder: Path, begin: int, done: int) -> None:
    """Carry out operations from `begin` on for ever, and tell each that is acknowledged."""
    index = Index(folder)
    state = state_after(begin)
    n = begin
    while True:
        after = state_after(n + 1)
        if gone := sorted(state.keys() - after.keys()):
            index.delete("text", gone)
        else:
            keys = [key for key in after if after[key] == n]
            vectors = np.concatenate([units(1, 16, seed=hash_of(key, n)) for key in keys])
            index.add("text", Embedded(vectors, keys, keys), update=True)
        if n % 40 == 39:
            index.compact()
        os.write(done, b".")
        state, n = after, n + 1


def hash_of(key: str, n: int) -> int:
    return int(key[1:]) * 100_003 + n


def test_a_writer_that_is_killed_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Index.create(folder, "f", 16).close()
    rng, known = random.Random(0), 0
    kills = int(os.environ.get("MMSSL_KILLS", "15"))
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                write(folder, known, writing)
            finally:
                os._exit(1)
        os.close(writing)
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            known += len(pipe.read())
        with Index(folder) as index:
            ids = index.store.places("text").ids
            found = {item.key: id for id, item in index.store.items(ids.tolist()).items()}
            if found.keys() != state_after(known).keys() or not agrees(index, found, known):
                known += 1  # the one that was under way was committed, and its word did not reach us
                assert found.keys() == state_after(known).keys()
                assert agrees(index, found, known)
    assert known > kills


def agrees(index: Index, found: dict[str, int], known: int) -> bool:
    """Tell whether each item is found by the vector that it has to have, once."""
    state = state_after(known)
    if not state:
        return not found
    queries = np.concatenate([units(1, 16, seed=hash_of(key, state[key])) for key in found])
    scores, ids = index.nearest("text", queries, 1)
    return bool((scores > 0.9999).all()) and ids[:, 0].tolist() == list(found.values())


def test_a_search_sees_whole_changes_while_another_thread_and_process_add(tmp_path: Path) -> None:
    folder, size, number = tmp_path / "index", 25, 40
    Index.create(folder, "f", 16).close()
    child = os.fork()
    if not child:
        try:
            with Index(folder) as index:
                for n in range(number):
                    keys = [f"p{n}/{i}" for i in range(size)]
                    index.add("text", Embedded(units(size, 16, seed=1000 + n), keys, [f"p{n}"] * size))
                    index.compact()  # which takes the files away that others may be about to open
            os._exit(0)
        finally:
            os._exit(1)
    with Index(folder) as index:

        def add() -> None:
            for n in range(number):
                keys = [f"t{n}/{i}" for i in range(size)]
                index.add("text", Embedded(units(size, 16, seed=n), keys, [f"t{n}"] * size))

        thread = threading.Thread(target=add)
        thread.start()
        seen = []
        while thread.is_alive():
            if not index.counts:
                continue
            ids = index.nearest("text", units(1, 16, seed=3), 3 * size * number)[1][0]
            groups = [hit.item.group for hit in index.hits(ids, np.zeros(len(ids), np.float32))]
            seen.append(len(groups))
            assert all(groups.count(group) == size for group in set(groups))
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert index.counts == {"text": 2 * size * number}
    assert len(set(seen)) > 2


def test_damaged_files_end_in_a_clear_error_and_never_in_another_answer(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with Index.create(folder, "f", 16) as index:
        made = items(0, 400)
        made.previews = [Preview(text=f"t{i}", png=bytes([i % 256]) * 90) for i in range(400)]
        index.add("text", made)
        index.optimise("text", kind="hnsw", recall=0.99)
        index.add("text", items(1, 50, prefix="more"))
        index.delete("text", ["k3", "more4"])
    queries = units(4, 16, seed=2)

    def answers() -> list[Any]:
        with Index(folder) as index:
            scores, ids = index.nearest("text", queries, 448)
            index.store.check_items()
            return [index.hits(*pair) for pair in zip(ids, scores, strict=True)]

    expected, rng, outcomes = answers(), random.Random(0), []
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for trial in range(int(os.environ.get("MMSSL_TRIALS", "60"))):
            broken = bytearray(whole)
            if trial % 6 == 0:
                del broken[rng.randrange(len(broken)) :]
            else:
                for _ in range(rng.choice([1, 1, 8])):
                    broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            path.write_bytes(broken)
            told = ""
            try:
                found = answers()
            except InputError as error:
                told = str(error)
            assert ("damaged" in told) if told else (found == expected), (path.name, told)
            outcomes.append(told)
            for extra in folder.glob("*.sqlite-*"):
                extra.unlink()
        path.write_bytes(whole)
    assert sum(map(bool, outcomes)) > 60
    assert answers() == expected
