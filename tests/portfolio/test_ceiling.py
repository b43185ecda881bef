import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from palate.core.errors import NotCertifiedError
from palate.portfolio.ceiling import ceiling_rows, unit_row


def ceiling_value(
    *, preference: np.ndarray, preferences: np.ndarray, upper_values: np.ndarray
) -> float:
    """The upper bound at one preference by its linear program: a second method."""
    solution = linprog(upper_values, A_eq=preferences.T, b_eq=preference, method="highs")
    assert solution.status == 0
    return float(solution.fun)


def test_the_ceiling_is_that_of_the_trace(tabular_case):
    for step in tabular_case["certificate_trace"]:
        rows = ceiling_rows(
            preferences=np.array(step["visited"]), upper_values=np.array(step["J_star"])
        )
        found = (np.array(step["corner_preferences"]) @ rows.T).max(axis=1)
        np.testing.assert_allclose(found, step["U"], rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(0, 12))
def test_the_ceiling_equals_its_linear_program(seed, d, n_more):
    rng = np.random.default_rng(seed)
    preferences = np.vstack([np.eye(d), rng.dirichlet(np.ones(d), size=n_more)])
    upper = np.concatenate([rng.random(d), preferences[d:].max(axis=1) * rng.random(n_more)])
    rows = ceiling_rows(preferences=preferences, upper_values=upper)
    for w in [*rng.dirichlet(np.ones(d), size=5), *preferences[:2]]:
        expected = ceiling_value(preference=w, preferences=preferences, upper_values=upper)
        assert np.max(rows @ w) == pytest.approx(expected, abs=1e-9)


def test_the_unit_vectors_alone_give_one_plane_and_a_higher_bound():
    preferences = np.vstack([np.eye(3), [[1 / 3, 1 / 3, 1 / 3]]])
    upper = np.array([0.9, 0.8, 0.7, 0.5])
    assert unit_row(preferences=preferences, upper_values=upper).tolist() == [0.9, 0.8, 0.7]
    plain = ceiling_rows(preferences=np.eye(3), upper_values=upper[:3])
    assert plain.tolist() == [[0.9, 0.8, 0.7]]
    centre = preferences[3]
    rows = ceiling_rows(preferences=preferences, upper_values=upper)
    assert np.max(rows @ centre) == pytest.approx(0.5, abs=1e-12)
    assert np.max(plain @ centre) == pytest.approx(0.8, abs=1e-12)


def test_the_lower_of_two_bounds_at_one_preference_counts():
    preferences = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    rows = ceiling_rows(preferences=preferences, upper_values=np.array([1.0, 1.0, 0.9, 0.6]))
    assert np.max(rows @ [0.5, 0.5]) == pytest.approx(0.6, abs=1e-12)


def test_a_missing_unit_vector_is_refused():
    with pytest.raises(NotCertifiedError, match="unit vector of objective 1"):
        ceiling_rows(preferences=np.array([[1.0, 0.0], [0.5, 0.5]]), upper_values=np.ones(2))


def test_the_ceiling_of_the_best_values_lies_above_them(small_problem):
    problem = small_problem(3, 3)
    rng = np.random.default_rng(0)
    visited = np.vstack([np.eye(3), rng.dirichlet(np.ones(3), size=6)])
    rows = ceiling_rows(preferences=visited, upper_values=problem.best_values(visited))
    users = rng.dirichlet(np.ones(3), size=1000)
    assert np.all((users @ rows.T).max(axis=1) >= problem.best_values(users) - 1e-12)
