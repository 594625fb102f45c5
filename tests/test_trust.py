from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl import trust as trust_module
from multimodal_ssl.config import TrustConfig
from multimodal_ssl.data import hash64
from multimodal_ssl.trust import Trust


class ByDict:
    """The same as Trust, one sample at a time, from all that it saw of it."""

    def __init__(self, config: TrustConfig) -> None:
        self.config, self.seen, self.top = config, {}, 0.0

    def value(self, name: int) -> float:
        """Go through the visits after the warm-up; of fewer visits the last one counts."""
        visits = self.seen[name]
        mean, *others = np.log(visits[min(self.config.warmup, len(visits) - 1) :])
        for count, one in enumerate(others, 2):
            momentum = min(self.config.momentum, 1 - 1 / count)
            mean = momentum * mean + (1 - momentum) * one
        return float(np.exp(mean))

    def update(self, names: list[int], agreements: list[float]) -> None:
        for name, agreement in zip(names, agreements, strict=True):
            self.seen.setdefault(name, []).append(max(agreement, 1e-6))
        top = np.exp(np.quantile(np.log([self.value(name) for name in names]), 0.9))
        self.top = 0.95 * self.top + 0.05 * top if self.top else top

    def weight(self, name: int, progress: float) -> float:
        if not self.seen.get(name) or len(self.seen[name]) < self.config.warmup:
            return 1.0
        weight = min(1.0, self.value(name) / max(self.config.full * progress**0.5 * self.top, 1e-9))
        return weight if weight >= self.config.floor else 0.0


def visits(seed: int, batches: int, names: int) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    known = rng.integers(-(2**63), 2**63, size=names)
    return [
        (known[rng.choice(names, 16, replace=False)], rng.random(16).astype(np.float32) ** 3) for _ in range(batches)
    ]


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("momentum", [0.6, 0.9])
@pytest.mark.parametrize("recent", [4, 10_000])
def test_the_running_mean_is_that_of_one_sample_at_a_time(
    warmup: int, momentum: float, recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "RECENT", recent)
    config = TrustConfig(warmup=warmup, momentum=momentum)
    trust, reference = Trust(config), ByDict(config)
    for step, (names, agreement) in enumerate(visits(0, 60, 100)):
        expected = [reference.weight(int(name), step / 60) for name in names]
        np.testing.assert_allclose(trust.weights(names, progress=step / 60), expected, rtol=1e-5)
        trust.update(names, agreement)
        reference.update(names.tolist(), agreement.tolist())
    names = np.array(list(reference.seen))
    assert len(trust) == len(names)
    np.testing.assert_allclose(trust.values(names), [reference.value(int(name)) for name in names], rtol=1e-5)


def test_a_sample_that_was_never_visited_weighs_one_and_has_no_trust() -> None:
    trust = Trust(TrustConfig())
    trust.update(hash64(["a"]), np.array([0.5], np.float32))
    assert trust.weights(hash64(["b"])) == [1]
    assert np.isnan(trust.values(hash64(["b"])))


def test_a_name_that_repeats_in_a_batch_is_one_visit_with_the_geometric_mean() -> None:
    trust = Trust(TrustConfig())
    trust.update(hash64(["a", "b", "a"]), np.array([0.2, 0.9, 0.4], np.float32))
    assert trust.values(hash64(["a", "b"])) == pytest.approx([0.08**0.5, 0.9])
    assert trust.tensors()["visits"].tolist() == [1, 1]


def test_a_restored_trust_goes_on_as_if_it_had_never_been_saved(tmp_path: Path) -> None:
    whole, stopped = Trust(TrustConfig()), Trust(TrustConfig())
    for part in (0, 1):
        for names, agreement in visits(part, 30, 50):
            whole.update(names, agreement)
            stopped.update(names, agreement)
        resumed = Trust(TrustConfig())
        resumed.restore(stopped.tensors())
        stopped = resumed
    for one, other in zip(whole.tensors().values(), stopped.tensors().values(), strict=True):
        assert one.equal(other)
    whole.save(tmp_path / "trust.parquet")
    opened = Trust.load(tmp_path / "trust.parquet", TrustConfig())
    for one, other in zip(whole.tensors().values(), opened.tensors().values(), strict=True):
        assert one.equal(other)


def test_a_sample_takes_sixteen_bytes() -> None:
    trust = Trust(TrustConfig())
    for start in range(0, 200_000, 5_000):
        trust.update(np.arange(start, start + 5_000), np.zeros(5_000, np.float32))
    held = sum(one.nbytes for part in (trust._settled, trust._recent) for one in part)
    assert held == 16 * 200_000


def test_the_weight_does_not_depend_on_how_large_agreements_are() -> None:
    """Early in training, or in a large batch, right pairs have little, too: it is the share of the best that counts."""
    small, large = Trust(TrustConfig()), Trust(TrustConfig())
    for names, given in visits(0, 60, 100):
        agreement = np.maximum(given, 1e-3)  # what is below 1e-6 is taken for 1e-6
        small.update(names, agreement / 64)
        large.update(names, agreement)
        found = [trust.weights(names, progress=0.7) for trust in (small, large)]
        np.testing.assert_allclose(*found, rtol=1e-4)
    assert len(np.unique(found[0])) > 5


def test_a_sample_is_compared_with_what_others_were_trusted_not_with_what_they_were_just_seen_to_be() -> None:
    """Trust lags behind an agreement that grows; if the best is as far behind, nobody is doubted for it."""
    trust = Trust(TrustConfig(warmup=0, momentum=0.9))
    for agreement in np.geomspace(1e-3, 0.9, 20):
        trust.update(hash64("abcd"), np.full(4, agreement, np.float32))
    assert trust.values(hash64("a")) < 0.5 < agreement
    assert trust.weights(hash64("abcd")).tolist() == [1, 1, 1, 1]


def test_early_in_training_less_is_enough() -> None:
    trust = Trust(TrustConfig(warmup=0))
    trust.update(hash64("abcd"), np.array([1.0, 0.4, 0.2, 0.01], np.float32))
    early, late = (trust.weights(hash64("abcd"), progress=progress) for progress in (0.04, 1.0))
    assert (early >= late).all()
    assert early.tolist()[:3] == [1, 1, 1]
    assert late[0] == 1 > late[1] > late[2] > late[3] == 0


def test_pairs_of_a_harder_source_are_not_doubted_for_it() -> None:
    """Each kind of batch is compared with the best of its own, as if the others had never been."""
    together, alone = Trust(TrustConfig()), {kind: Trust(TrustConfig()) for kind in (3, -7)}
    for step, (names, given) in enumerate(visits(0, 80, 100)):
        kind, scale = ((3, 1.0), (-7, 1 / 64))[step % 2]
        names = names + kind
        agreement = np.maximum(given, 1e-3) * np.float32(scale)
        together.update(names, agreement, kind=kind)
        alone[kind].update(names, agreement)
        found = together.weights(names, kind=kind, progress=0.7)
        np.testing.assert_array_equal(found, alone[kind].weights(names, progress=0.7))
    assert (found == 1).any()
    assert (together.weights(names, kind=3, progress=0.7) < 0.1).all()
