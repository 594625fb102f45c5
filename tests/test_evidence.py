"""Evidence: what is merely hard is told from what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodal_ssl.evidence import DEVIATIONS, ENOUGH, NEAR, RIDGE, Regression, belief, surroundings
from multimodal_ssl.metrics import auroc
from multimodal_ssl.significance import decoy_p_values, wrong_rate

from .toys import units


def test_rival_and_parallel_are_those_of_a_double_loop() -> None:
    a, b = (units(60, 8, seed=seed) for seed in (0, 1))
    decoy, rows = np.arange(60) % 5 == 0, np.arange(0, 60, 3)
    found = surroundings(a, b, decoy, rows)
    for place, row in enumerate(rows):
        others = [one for one in range(60) if one != row]
        rival = max(a[row] @ b[one] for one in others) + max(b[row] @ a[one] for one in others)
        parallel = 0.0
        for own, partner in ((a, b), (b, a)):
            near = sorted(others, key=lambda one: -partner[row] @ partner[one])[:NEAR]
            parallel += max(own[row] @ own[one] for one in near if not decoy[one])
        np.testing.assert_allclose(found[place], [rival, parallel], atol=1e-6)


def test_a_sample_whose_neighbours_are_all_decoys_has_no_parallel() -> None:
    a, b = (units(NEAR + 1, 8, seed=seed) for seed in (0, 1))
    found = surroundings(a, b, np.arange(NEAR + 1) > 0, np.arange(1))
    np.testing.assert_allclose(found[0, 1], -2)


def test_the_regression_is_where_the_gradient_of_the_ridged_likelihood_is_zero() -> None:
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(500, 3)) * [1, 10, 0.1] + [0, -3, 2]
    labels = rng.random(500) < 1 / (1 + np.exp(evidence[:, 0] * 2 - 5 * (evidence[:, 2] - 2)))
    found = Regression(evidence, labels)
    z = np.clip((evidence - evidence.mean(0)) / evidence.std(0), -DEVIATIONS, DEVIATIONS)
    products = [z[:, i] * z[:, j] for i in range(3) for j in range(i, 3)]
    terms = np.stack([np.ones(500), *z.T, *products], 1)
    weights = found.weights
    np.testing.assert_allclose(found.log_odds(evidence), terms @ weights, atol=1e-9)
    ridge = RIDGE * weights * (np.arange(10) > 0) / 500
    gradient = terms.T @ (1 / (1 + np.exp(-terms @ weights)) - labels) / 500 + ridge
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_regression_takes_evidence_that_separates_or_is_all_the_same() -> None:
    evidence = np.stack([np.linspace(-1, 1, 20_000), np.ones(20_000)], 1)
    odds = Regression(evidence, evidence[:, 0] > 0).log_odds(np.array([[-50.0, 1.0], [50.0, 1.0]]))
    assert np.isfinite(odds).all()
    assert odds[0] < -2 < 2 < odds[1]


def hard_pairs(
    count: int, rate: float, judges: int, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return evidence [J, N, 3], the judge of each, who is a decoy and who is wrong.

    Right pairs are trusted unless they are hard. The rival tells how hard both items are, be the pair right or wrong.
    """
    rng = np.random.default_rng(seed)
    judge, decoy, wrong = rng.integers(judges, size=count), rng.random(count) < 0.2, rng.random(count) < rate
    seen_wrong = wrong | (decoy & (judge != np.arange(judges)[:, None]))  # [J, N]
    easy = rng.random(count) < 0.7
    trust = rng.normal(size=(judges, count)) + 5 * (~seen_wrong & easy)
    rival = 0.5 * rng.normal(size=(judges, count)) + 3 * easy
    return np.stack([trust, rival, rng.normal(size=(judges, count))], -1), judge, decoy, wrong


def p_values(scores: NDArray[np.float64], judge: NDArray[np.int64], decoy: NDArray[np.bool_]) -> NDArray[np.float64]:
    one = np.zeros(len(judge), np.int64)
    drawn = np.random.default_rng(9).random(len(judge))
    return decoy_p_values(scores, judge, decoy, source=one, suspect=one, exchanged=one, drawn=drawn)


@pytest.mark.parametrize("judges", [2, 3])
def test_hard_pairs_are_no_mismatches_and_mismatches_keep_uniform_p_values(judges: int) -> None:
    evidence, judge, decoy, wrong = hard_pairs(20_000, 0.1, judges)
    kind = np.zeros((judges, 20_000), np.int64)
    by_trust = p_values(evidence[..., 0], judge, decoy)
    scores, alone = belief(evidence, judge, decoy, source=np.zeros(20_000), kind=kind)
    assert alone == []
    by_all = p_values(scores, judge, decoy)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    for some in (wrong & decoy, wrong & ~decoy):
        np.testing.assert_allclose(np.quantile(by_all[some], quantiles), quantiles, atol=0.06)
    groups = np.arange(20_000)
    assert wrong_rate(by_trust, groups).value > 0.3, "trust alone takes hard pairs for wrong"
    assert wrong_rate(by_all, groups).value == pytest.approx(0.1, abs=0.03)
    assert auroc(by_all, wrong) > auroc(by_trust, wrong) + 0.03


def test_the_evidence_on_a_sample_does_not_weigh_itself() -> None:
    evidence, judge, decoy, _ = hard_pairs(2000, 0.1, 2)
    kind, source = np.zeros((2, 2000), np.int64), np.zeros(2000)
    before, _ = belief(evidence, judge, decoy, source=source, kind=kind)
    changed = evidence.copy()
    shifted = np.flatnonzero(judge == 0)[:300]
    changed[1, shifted, :2] += 2.0
    after, _ = belief(changed, judge, decoy, source=source, kind=kind)
    same = (judge == 0) & ~np.isin(np.arange(2000), shifted)
    assert (after[1, same] == before[1, same]).all(), "judge 1 weighs those of judge 0 as judge 0 does its own"
    assert (after[0, judge == 1] != before[0, judge == 1]).all(), "and judge 0 those of judge 1 as judge 1 does"
    changed = evidence.copy()
    changed[0, judge == 1, 1] *= -1
    after, _ = belief(changed, judge, decoy, source=source, kind=kind)
    assert (after[0, judge == 0] == before[0, judge == 0]).all(), "a judge weighs its own as the other one does"
    assert (after[1, judge == 0] != before[1, judge == 0]).all()


def test_a_source_with_too_few_decoys_of_a_kind_is_judged_by_trust_alone() -> None:
    evidence, judge, decoy, _ = hard_pairs(3000, 0.1, 2)
    decoy[2000:] &= np.arange(1000) < 4 * ENOUGH  # of the second source, a fifth of half of so many
    source, kind = np.repeat([0, 1], [2000, 1000]), np.zeros((2, 3000), np.int64)
    evidence[1, 5] = np.nan
    odds, alone = belief(evidence, judge, decoy, source=source, kind=kind)
    assert alone == [1]
    assert (odds[:, 2000:] == evidence[:, 2000:, 0]).all()
    assert np.isnan(odds[1, 5])
    assert (odds[0, :2000] != evidence[0, :2000, 0]).all()
    kind[:, 1990:2000] = 1
    odds, alone = belief(evidence, judge, decoy, source=source, kind=kind)
    assert alone == [0, 1]
    assert (odds[0] == evidence[0, :, 0]).all()


def test_a_source_is_weighed_by_its_own_decoys() -> None:
    evidence, judge, decoy, _ = hard_pairs(4000, 0.1, 2)
    evidence[:, 2000:, 1] *= -1  # the second source's rivals mean the contrary
    source, kind = np.repeat([0, 1], 2000), np.zeros((2, 4000), np.int64)
    both, _ = belief(evidence, judge, decoy, source=source, kind=kind)
    for rows in (slice(None, 2000), slice(2000, None)):
        alone, _ = belief(evidence[:, rows], judge[rows], decoy[rows], source=source[rows], kind=kind[:, rows])
        np.testing.assert_allclose(both[:, rows], alone, rtol=1e-6)


def test_kinds_are_weighed_by_decoys_of_their_own() -> None:
    evidence, judge, decoy, _ = hard_pairs(6000, 0.1, 2)
    suspect, exchanged = np.random.default_rng(3).integers(3, size=(2, 6000))
    kind = np.where(decoy & (judge != np.arange(2)[:, None]), exchanged, suspect)
    evidence[..., 1] *= kind - 1  # the rival means the contrary, nothing, or what it means
    source = np.zeros(6000)
    odds, _ = belief(evidence, judge, decoy, source=source, kind=kind)
    for one in range(3):
        only = np.where((kind == one)[..., None], evidence, np.nan)
        alone, _ = belief(only, judge, decoy, source=source, kind=kind)
        np.testing.assert_allclose(odds[kind == one], alone[kind == one], rtol=1e-6)
