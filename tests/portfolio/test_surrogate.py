from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.portfolio.division import fit_surrogate
from research.portfolio.tabular import TabularOracle


def heights(surrogate, preferences):
    """The predicted best values: each preference times the values predicted for it."""
    return np.sum(surrogate.values(preferences) * preferences, axis=1)


def table_at(problem, preferences):
    oracle = TabularOracle(problem)
    return oracle.payoffs([oracle.policy(w) for w in preferences]).table


@pytest.mark.parametrize("d", [2, 3, 4])
def test_it_goes_through_every_policy(small_problem, d):
    rng = np.random.default_rng(d)
    preferences = np.vstack([np.eye(d), rng.dirichlet(np.ones(d), size=3)])
    table = table_at(small_problem(0, d, 0.3), preferences)
    found = fit_surrogate(table)
    best = np.sum(preferences * table.values, axis=1)
    np.testing.assert_allclose(heights(found, preferences), best, atol=1e-4)
    np.testing.assert_allclose(found.values(preferences), table.values, atol=1e-3)


def test_it_foresees_policies_in_between_far_better_than_the_proven_bounds(small_problem):
    problem = small_problem(0, 3, 0.3)
    rng = np.random.default_rng(0)
    preferences = np.vstack([np.eye(3), np.full((1, 3), 1 / 3), rng.dirichlet(np.ones(3), size=4)])
    found = fit_surrogate(table_at(problem, preferences))
    others = rng.dirichlet(np.ones(3), size=50)
    error = np.abs(heights(found, others) - problem.best_values(others)).max()
    assert error < 0.002
    assert np.abs(found.values(others) - problem.optimal_values(others)).max() < 0.02


def test_a_linear_best_value_is_foreseen_exactly():
    # one policy best for everybody: J* is linear and every value vector is the same
    from palate.core.types import PayoffTable

    preferences = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    table = PayoffTable(
        objectives=("a", "b"),
        policies=("p", "q", "r"),
        values=np.tile([0.4, 0.9], (3, 1)),
        standard_errors=np.zeros((3, 2)),
        beta=0.1,
        preferences=preferences,
    )
    found = fit_surrogate(table)
    others = np.array([[0.5, 0.5], [0.9, 0.1]])
    np.testing.assert_allclose(heights(found, others), others @ [0.4, 0.9], atol=1e-9)
    np.testing.assert_allclose(found.values(others), np.tile([0.4, 0.9], (2, 1)), atol=1e-9)


def test_noise_keeps_it_from_following_every_value(small_problem):
    preferences = np.vstack([np.eye(2), [[0.5, 0.5]]])
    table = table_at(small_problem(0, 2, 0.3), preferences)
    bumped = replace(table, values=table.values + np.array([[0, 0], [0, 0], [0.05, 0.05]]))
    noisy = replace(bumped, standard_errors=np.full_like(table.values, 0.2))
    centre = preferences[2:]
    assert (
        centre @ fit_surrogate(noisy).values(centre).T
        < centre @ fit_surrogate(bumped).values(centre).T
    )


def test_unknown_preferences_are_refused(small_problem):
    table = table_at(small_problem(0, 2), np.eye(2))
    with pytest.raises(InvalidInputError, match="preference it was made for"):
        fit_surrogate(replace(table, preferences=np.full((2, 2), np.nan)))
