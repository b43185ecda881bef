import numpy as np
import pytest
from scipy.special import expit

from palate.core.types import Belief
from palate.preferences.gaussian_posterior import average_fit
from palate.preferences.noise import LOG_SD, average_over_gain, fit_gain
from palate.preferences.population import fit_population

PRIOR = Belief(np.zeros(4), np.eye(4))
PRIOR_OF_TWO = Belief(np.zeros(2), np.eye(2))


def voters(
    n: int, *, gain: float, seed: int, n_comparisons: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    coefficients = generator.normal(size=(n, 4))
    features = generator.normal(size=(n, n_comparisons, 4))
    chance = expit(gain * np.einsum("pnf,pf->pn", features, coefficients))
    return features, (generator.random(chance.shape) < chance).astype(float)


def fit_gains(features: np.ndarray, labels: np.ndarray, *, prior: Belief) -> np.ndarray:
    return np.array([fit_gain(x, y, prior=prior) for x, y in zip(features, labels, strict=True)])


def test_without_labels_a_user_is_an_average_one() -> None:
    assert fit_gain(np.zeros((0, 4)), np.zeros(0), prior=PRIOR, gain=2.5) == 2.5
    silent = fit_gain(np.ones((3, 4)), np.ones(3), prior=PRIOR, gain=2.5, discounts=np.zeros(3))
    assert silent == pytest.approx(2.5)


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
def test_the_gain_of_careful_and_careless_users_differs(gain: float) -> None:
    features, labels = voters(40, gain=gain, seed=0)
    typical = float(np.exp(np.log(fit_gains(features, labels, prior=PRIOR)).mean()))
    assert gain / 1.8 < typical < gain * 1.8


def test_random_voters_get_next_to_no_gain() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(20, 80, 4))
    labels = generator.integers(0, 2, size=(20, 80)).astype(float)
    assert np.median(fit_gains(features, labels, prior=PRIOR)) < 0.3


def test_with_own_gains_random_voters_spoil_the_population_less() -> None:
    generator = np.random.default_rng(2)
    coefficients = generator.multivariate_normal([1.5, -1.0, 0.0, 0.0], 0.2 * np.eye(4), size=60)
    features = generator.normal(size=(120, 40, 4))
    labels = generator.integers(0, 2, size=(120, 40)).astype(
        float
    )  # the second half votes at random
    chance = expit(np.einsum("pnf,pf->pn", features[:60], coefficients))
    labels[:60] = generator.random((60, 40)) < chance
    plain = fit_population(features, labels)
    gains = fit_gains(features, labels, prior=Belief(np.zeros(4), 2.0 * np.eye(4)))
    aware = fit_population(features, labels, gain=gains)
    true_mean = np.array([1.5, -1.0, 0.0, 0.0])
    away = [float(np.linalg.norm(p.mean - true_mean)) for p in (plain, aware)]
    assert away[1] < 0.9 * away[0]


def test_without_labels_the_average_over_gains_is_the_prior() -> None:
    found = average_over_gain(np.zeros((0, 4)), np.zeros(0), prior=PRIOR, gain=2.5)
    assert np.allclose(found.mean, PRIOR.mean)
    assert np.allclose(found.covariance, PRIOR.covariance)
    assert found.gain == pytest.approx(2.5)


def test_the_average_over_gains_agrees_with_sampling_of_gain_and_vector() -> None:
    """A second way: 2 million vectors and gains from their priors, weighed by the labels."""
    generator = np.random.default_rng(5)
    features = 1.5 * generator.normal(size=(12, 2))
    labels = (generator.random(12) < expit(features @ np.array([1.2, -0.6]))).astype(float)
    vectors = generator.normal(size=(2_000_000, 2))
    log_gains = LOG_SD * generator.normal(size=len(vectors))
    margins = np.exp(log_gains)[:, None] * (vectors @ features.T)
    weight = np.exp(-np.logaddexp(0.0, np.where(labels == 1.0, -margins, margins)).sum(axis=1))
    weight[(log_gains < -6 * np.log(2)) | (log_gains > 2 * np.log(2))] = 0.0
    weight /= weight.sum()
    mean = weight @ vectors
    covariance = (vectors - mean).T @ (weight[:, None] * (vectors - mean))
    found = average_over_gain(features, labels, prior=PRIOR_OF_TWO)
    assert np.allclose(found.mean, mean, atol=0.03)
    # the closest normals are somewhat narrower than a skewed posterior: up to a tenth in sd here
    ratio = np.sqrt(np.diag(found.covariance) / np.diag(covariance))
    assert np.all((ratio > 0.9) & (ratio < 1.01))
    assert found.gain == pytest.approx(np.exp(weight @ log_gains), rel=0.12)


def test_intervals_cover_when_the_gain_is_averaged_over_and_not_when_it_is_fitted() -> None:
    features, labels = voters(150, gain=1.0, seed=7)
    coefficients = np.random.default_rng(7).normal(size=(150, 4))  # the first draws of `voters`
    hits = {"fitted": 0, "averaged": 0}
    for x, y, vector in zip(features, labels, coefficients, strict=True):
        fitted = average_fit(x, y, prior=PRIOR, gain=fit_gain(x, y, prior=PRIOR))
        for name, belief in (
            ("fitted", fitted),
            ("averaged", average_over_gain(x, y, prior=PRIOR)),
        ):
            half = 1.96 * np.sqrt(np.diag(belief.covariance))
            hits[name] += int((np.abs(vector - belief.mean) <= half).sum())
    # 600 coefficients: two standard errors are 2 points, somewhat more as gains are shared
    assert hits["averaged"] / 600 > 0.93 > 0.9 > hits["fitted"] / 600
