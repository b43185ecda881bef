import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
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


def test_a_population_as_large_as_the_experts_has_its_true_gain():
    """Two features that move together with correlation 1/2, by paper and pencil.

    spread = [[1, .5], [.5, 1]]; margins have covariance 36 I, mean zero: E[m' spread m] = 72.
    The experts' mean squared scale is (0.04 + 0.16) / 2 = 0.1, so gain^2 = 720.
    """
    root = np.linalg.cholesky(np.array([[1.0, 0.5], [0.5, 1.0]]))
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    calibration = np.sqrt(3 / 4) * corners @ root.T  # unbiased covariance of four rows
    population = Belief(np.zeros(2), 36.0 * np.eye(2), 50)
    prior = population_prior(population, calibration=calibration, scales=np.array([0.2, 0.4]))
    assert prior.gain == pytest.approx(np.sqrt(720.0))
    assert prior.covariance == pytest.approx(36.0 / 720.0 * np.eye(2))
    assert prior.n_observations == 50


def test_a_population_without_preferences_has_no_gain():
    population = Belief(np.zeros(1), np.zeros((1, 1)), 50)
    with pytest.raises(InvalidInputError, match="move no calibration answer"):
        population_prior(population, calibration=np.array([[0.0], [1.0]]), scales=np.ones(1))
