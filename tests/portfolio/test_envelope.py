from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.portfolio.envelope import (
    best_values,
    corner_preferences,
    facet_bound,
    is_enumerable,
)


def corners_by_subsets(values: np.ndarray) -> np.ndarray:
    """Every d-subset of the k + d constraints solved for (w, t), feasible solutions kept."""
    k, d = values.shape
    rows = np.vstack([np.column_stack([values, -np.ones(k)]), np.eye(d, d + 1)])
    total = np.append(np.ones(d), 0.0)
    found = []
    for chosen in combinations(range(k + d), d):
        system = np.vstack([rows[list(chosen)], total])
        if abs(np.linalg.det(system)) < 1e-12:
            continue
        solution = np.linalg.solve(system, np.append(np.zeros(d), 1.0))
        w, t = solution[:-1], solution[-1]
        if w.min() > -1e-9 and np.all(values @ w <= t + 1e-9):
            found.append(np.clip(w, 0, None))
    return np.unique(np.round(found, 8), axis=0)[::-1]


def test_corner_preferences_are_those_of_the_trace(tabular_case):
    for step in tabular_case["certificate_trace"]:
        found = corner_preferences(np.array(step["V"]))
        expected = np.array(sorted(step["corner_preferences"], reverse=True))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 6))
def test_corners_are_those_that_solving_every_subset_finds(seed, d, k):
    values = np.random.default_rng(seed).random((k, d))
    found = corner_preferences(values)
    expected = corners_by_subsets(values)
    assert len(found) == len(expected)
    np.testing.assert_allclose(np.round(found, 7), np.round(expected, 7), atol=2e-7)


@pytest.mark.parametrize(("d", "k"), [(6, 12), (8, 20), (10, 15)])
def test_corners_in_many_dimensions_are_ties_of_enough_members_and_walls(d, k):
    values = np.abs(np.random.default_rng(d).normal(size=(k, d)))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    corners = corner_preferences(values)
    worth = corners @ values.T
    n_ties = np.sum(worth >= worth.max(axis=1, keepdims=True) - 1e-8, axis=1)
    n_walls = np.sum(corners <= 1e-8, axis=1)
    assert np.all(n_ties + n_walls >= d)
    for unit in np.eye(d):
        assert np.any(np.all(np.abs(corners - unit) < 1e-9, axis=1))


def test_duplicates_dominated_members_and_equal_values_change_nothing():
    values = np.array([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5], [0.3, 0.3, 0.7]])
    expected = corner_preferences(values)
    with_more = np.vstack([values, values[:2], values[2] - 0.2])
    np.testing.assert_allclose(corner_preferences(with_more), expected, atol=1e-12)
    np.testing.assert_allclose(corner_preferences(np.full((4, 3), 0.5)), np.eye(3))


def test_a_shift_of_everybody_and_a_change_of_unit_move_no_corner():
    values = np.random.default_rng(1).random((5, 3))
    moved = 1e4 * values + np.array([7.0, -3.0, 100.0])
    np.testing.assert_allclose(corner_preferences(moved), corner_preferences(values), atol=1e-8)


def test_one_objective_and_one_member_have_only_the_unit_vectors():
    assert corner_preferences(np.array([[0.2], [0.7]])).tolist() == [[1.0]]
    assert corner_preferences(np.array([[0.2, 0.7]])).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert best_values(preferences=np.ones((1, 1)), values=np.array([[0.2], [0.7]])) == [0.7]


def test_the_facet_bound_is_that_of_cyclic_polytopes():
    # neighbourly polytopes: an n-gon has n edges, in 3 dimensions 2n - 4, in 4 n(n - 3) / 2
    assert facet_bound(n_members=5, n_objectives=2) == 8
    assert facet_bound(n_members=5, n_objectives=3) == 2 * 9 - 4
    assert facet_bound(n_members=5, n_objectives=4) == 10 * 7 // 2


def test_what_is_too_large_says_so():
    assert is_enumerable(n_members=40, n_objectives=10)
    assert not is_enumerable(n_members=40, n_objectives=14)
    with pytest.raises(NotConvergedError, match="too many corner preferences"):
        corner_preferences(np.random.default_rng(0).random((40, 14)))


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.array([[np.nan, 1.0]]), np.zeros(3)])
def test_unusable_values_are_refused(values):
    with pytest.raises(InvalidInputError, match="finite"):
        corner_preferences(values)
