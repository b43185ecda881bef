import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import fit_batch
from research.preferences.regions import credible_region
from research.preferences.simplex_mode import normal_on_plane, rooted_on_plane


def test_a_normal_region_is_the_chi_square_ellipsoid() -> None:
    region = credible_region(Belief(np.zeros(1), np.array([[4.0]])), level=0.95)
    assert region.contains(np.array([3.9]))  # 1.96 standard deviations of 2
    assert not region.contains(np.array([3.93]))
    with pytest.raises(InvalidInputError, match="level"):
        credible_region(Belief(np.zeros(1), np.eye(1)), level=1.0)


def test_a_region_of_preferences_holds_only_preferences() -> None:
    region = credible_region(normal_on_plane(n_objectives=3), is_preference=True)
    assert region.contains(np.full(3, 1 / 3))
    assert not region.contains(np.array([0.5, 0.6, -0.1]))
    assert not region.contains(np.array([0.5, 0.6, 0.5]))


def test_regions_cover_simulated_preferences_at_their_level() -> None:
    generator = np.random.default_rng(0)
    users = generator.dirichlet(np.ones(4), size=150)
    features = generator.random((150, 20, 4)) - generator.random((150, 20, 4))
    chance = expit(10.0 * np.einsum("pnf,pf->pn", features, users))
    labels = (generator.random(chance.shape) < chance).astype(float)
    prior = rooted_on_plane(normal_on_plane(n_objectives=4))
    fits = fit_batch(features, labels, prior=prior, gain=10.0)
    inside = [
        credible_region(Belief(mean, covariance), is_preference=True).contains(preference)
        for mean, covariance, preference in zip(fits.mean, fits.covariance, users, strict=True)
    ]
    # 150 users: two standard errors are five points
    assert 0.82 <= np.mean(inside) <= 0.97
