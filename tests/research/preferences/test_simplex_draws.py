import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from research.preferences.simplex_draws import preference_draws, preference_mean
from research.preferences.simplex_mode import normal_on_plane


def test_draws_of_a_flat_belief_have_the_moments_of_the_uniform_distribution() -> None:
    draws = preference_draws(normal_on_plane(n_objectives=4, sd=50.0))
    # uniform on the simplex of 4: mean 1/4, variance (d - 1) / (d^2 (d + 1)) = 3/80
    assert draws.min() >= 0.0
    assert draws.sum(axis=1) == pytest.approx(1.0)
    assert draws.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.015)
    assert draws.var(axis=0) == pytest.approx(np.full(4, 3 / 80), rel=0.12)


def test_draws_of_a_narrow_belief_have_its_own_moments() -> None:
    plane = np.eye(3) - 1 / 3
    mean = np.array([0.5, 0.3, 0.2])
    draws = preference_draws(Belief(mean, 0.02**2 * plane))
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.002)
    assert np.cov(draws.T) == pytest.approx(0.02**2 * plane, abs=5e-5)


def test_draws_agree_with_rejection_where_an_edge_cuts() -> None:
    generator = np.random.default_rng(4)
    spread = np.array([[0.03, -0.02, -0.01], [-0.02, 0.03, -0.01], [-0.01, -0.01, 0.02]])
    mean = np.array([0.9, 0.3, -0.2])
    free = generator.multivariate_normal(mean[:2], spread[:2, :2], size=400_000)
    whole = np.column_stack([free, 1.0 - free.sum(axis=1)])
    wanted = whole[(whole >= 0).all(axis=1)]
    got = preference_draws(Belief(mean, spread))
    assert len(wanted) > 5_000
    assert got.mean(axis=0) == pytest.approx(wanted.mean(axis=0), abs=0.006)
    assert got.std(axis=0) == pytest.approx(wanted.std(axis=0), abs=0.006)


def test_the_mean_preference_lies_on_the_simplex_even_when_the_belief_does_not() -> None:
    outside = Belief(np.array([1.4, -0.1, -0.3]), 0.01 * (np.eye(3) - 1 / 3))
    mean = preference_mean(outside)
    assert mean.min() >= 0
    assert mean.sum() == pytest.approx(1.0)
    assert mean[0] > 0.9


def test_a_belief_off_the_plane_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="sum to 1"):
        preference_draws(Belief(np.array([0.5, 0.1]), 0.1 * np.eye(2)))
