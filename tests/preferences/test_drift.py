import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.drift import change_discounts, forget, steady_discounts
from research.preferences.one_user import fit

PRIOR = Belief(np.zeros(3), np.eye(3))


def voter(coefficients: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=coefficients.shape)
    chance = expit(3.0 * (features * coefficients).sum(axis=1))
    return features, (generator.random(len(coefficients)) < chance).astype(float)


def test_steady_discounts_are_powers_of_the_factor() -> None:
    assert steady_discounts(3, factor=0.5).tolist() == [0.25, 0.5, 1.0]
    assert steady_discounts(0, factor=0.5).tolist() == []
    with pytest.raises(InvalidInputError, match="forgetting factor"):
        steady_discounts(3, factor=1.5)


def test_forgetting_by_nothing_changes_nothing_and_by_much_returns_the_prior() -> None:
    belief = Belief(np.array([1.0, 2.0, 0.0]), 0.1 * np.eye(3), 7)
    assert forget(belief, prior=PRIOR, factor=1.0) is belief
    faded = forget(belief, prior=PRIOR, factor=1e-9)
    assert faded.mean == pytest.approx(PRIOR.mean, abs=1e-6)
    assert faded.covariance == pytest.approx(PRIOR.covariance, abs=1e-6)


def test_forgetting_adds_precisions_in_proportion() -> None:
    belief = Belief(np.array([1.0, 0.0, 0.0]), np.diag([0.5, 0.25, 1.0]))
    half = forget(belief, prior=PRIOR, factor=0.5)
    # precisions 2, 4, 1 and prior precision 1: halves of both are 1.5, 2.5, 1
    assert np.diag(half.covariance) == pytest.approx([1 / 1.5, 1 / 2.5, 1.0])
    assert half.mean[0] == pytest.approx(0.5 * 2.0 * 1.0 / 1.5)


def test_without_a_change_little_is_forgotten() -> None:
    coefficients = np.array([1.0, -1.0, 0.5])
    kept = [
        change_discounts(*voter(np.tile(coefficients, (80, 1)), seed=seed), prior=PRIOR, gain=3.0)
        for seed in range(20)
    ]
    assert np.mean([discounts.mean() for discounts in kept]) > 0.8
    for discounts in kept:
        assert (np.diff(discounts) >= -1e-12).all()
        assert discounts[-1] == 1.0


def test_after_a_reversal_the_past_is_forgotten_within_twenty_comparisons() -> None:
    coefficients = np.array([1.0, -1.0, 0.5])
    before, after = np.tile(coefficients, (50, 1)), np.tile(-coefficients, (20, 1))
    for seed in range(10):
        features, labels = voter(np.concatenate([before, after]), seed=seed)
        discounts = change_discounts(features, labels, prior=PRIOR, gain=3.0)
        assert discounts[:45].max() < 0.1
        assert discounts[56:].min() > 0.8
        mean = fit(features, labels, prior=PRIOR, gain=3.0, discounts=discounts).mean
        assert mean @ -coefficients > 0


def test_one_or_no_comparison_is_kept() -> None:
    assert change_discounts(np.zeros((0, 3)), np.zeros(0), prior=PRIOR).tolist() == []
    assert change_discounts(np.ones((1, 3)), np.ones(1), prior=PRIOR).tolist() == [1.0]
    with pytest.raises(InvalidInputError, match="hazard"):
        change_discounts(np.ones((1, 3)), np.ones(1), prior=PRIOR, hazard=0.0)
