import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.soup.learning import feature_scales, plain_prior, population_prior


def test_scales_are_those_of_the_log_ratios_times_beta():
    means, scales = feature_scales(np.array([[1.0, 0.0], [3.0, 0.0]]), beta=0.5)
    assert means == pytest.approx([1.0, 0.0])
    assert scales[0] == pytest.approx(0.5)
    assert scales[1] > 0  # never divides by zero


def test_log_ratios_that_are_not_finite_or_too_few_are_refused():
    with pytest.raises(InvalidInputError, match="finite"):
        feature_scales(np.array([[1.0], [np.nan]]), beta=0.1)
    with pytest.raises(InvalidInputError, match="two answers"):
        feature_scales(np.ones((1, 2)), beta=0.1)


def test_the_plain_prior_allows_a_margin_of_one_per_feature_whatever_the_gain():
    prior = plain_prior(n_experts=2, gain=4.0)
    assert prior.gain**2 * np.diag(prior.covariance) == pytest.approx([1.0, 1.0])


def test_a_simulated_populations_gain_and_prior_are_found_again():
    """Tastes are as large as the experts in root mean square, so the true gain is the answer."""
    generator = np.random.default_rng(0)
    n_people, n_votes, gain = 200, 150, 6.0
    scales = np.array([0.2, 0.3])
    calibration = generator.normal(size=(2000, 2))
    calibration = calibration / calibration.std(axis=0)
    size = np.sqrt(np.mean(scales**2) / 2)  # independent features: E[m' m] = mean scale^2
    means = size * generator.normal(size=(n_people, 2))
    differences = generator.normal(size=(n_people, n_votes, 2)) * np.sqrt(2)
    margins = gain * np.einsum("pvk,pk->pv", differences, means)
    labels = (generator.random(margins.shape) < expit(margins)).astype(float)
    prior = population_prior(differences, labels, calibration=calibration, scales=scales)
    assert prior.n_observations == n_people
    assert prior.gain == pytest.approx(gain, rel=0.15)
    assert np.sqrt(np.diag(prior.covariance)) == pytest.approx([size, size], rel=0.2)
