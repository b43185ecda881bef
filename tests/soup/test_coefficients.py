import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.errors import InvalidInputError
from palate.soup.coefficients import (
    box_coefficients,
    reward_space_coefficients,
    simplex_coefficients,
    tilt_coefficients,
)


def test_with_one_expert_per_objective_the_coefficients_are_the_preference():
    preference = np.array([0.2, 0.5, 0.3])
    assert reward_space_coefficients(preference, anchors=np.eye(3)) == pytest.approx(preference)


def test_more_anchors_share_and_fewer_come_as_close_as_they_can():
    anchors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    shared = reward_space_coefficients(np.array([1.0, -0.5]), anchors=anchors)
    assert shared == pytest.approx([0.5, 0.5, -0.5])
    alone = reward_space_coefficients(np.array([3.0, 1.0]), anchors=np.array([[1.0, 1.0]]))
    assert alone == pytest.approx([2.0])


def test_tilts_inside_the_span_are_found_again(generator):
    basis = generator.normal(size=(50, 4))
    lam = generator.normal(size=4)
    assert tilt_coefficients(basis @ lam, basis=basis) == pytest.approx(lam)


def test_ridge_shrinks_and_splits_duplicates_evenly(generator):
    column = generator.normal(size=(50, 1))
    basis = np.hstack([column, column])
    found = tilt_coefficients(2.0 * column[:, 0], basis=basis, ridge=1e-6)
    assert found == pytest.approx([1.0, 1.0], abs=1e-6)
    square = float(column[:, 0] @ column[:, 0])
    heavy = tilt_coefficients(2.0 * column[:, 0], basis=basis, ridge=square)
    assert heavy == pytest.approx([2 / 3, 2 / 3])  # 2 s / (2 s + s)


def test_the_simplex_fit_is_the_best_on_the_simplex(generator):
    for _ in range(20):
        basis, target = generator.normal(size=(30, 4)), generator.normal(size=30)
        found = simplex_coefficients(target, basis=basis)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1.0)
        best = minimize(
            lambda lam, b=basis, t=target: np.sum((b @ lam - t) ** 2),
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda lam: lam.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert np.sum((basis @ found - target) ** 2) <= best.fun + 1e-6


def test_a_floor_binds_and_the_rest_makes_up_for_it(generator):
    basis = generator.normal(size=(40, 3))
    target = basis @ np.array([0.1, 1.0, -0.4])
    lower, upper = np.array([0.5, -np.inf, -np.inf]), np.full(3, np.inf)
    found = box_coefficients(target, basis=basis, lower=lower, upper=upper)
    rest = np.linalg.lstsq(basis[:, 1:], target - 0.5 * basis[:, 0], rcond=None)[0]
    assert found == pytest.approx([0.5, *rest], abs=1e-6)
    free = box_coefficients(target, basis=basis, lower=np.full(3, -np.inf), upper=upper)
    assert free == pytest.approx([0.1, 1.0, -0.4], abs=1e-6)


def test_bad_targets_are_refused():
    with pytest.raises(InvalidInputError, match="one row"):
        tilt_coefficients(np.zeros(3), basis=np.zeros((4, 2)))
    with pytest.raises(InvalidInputError, match="not finite"):
        simplex_coefficients(np.array([np.nan]), basis=np.ones((1, 2)))
    with pytest.raises(InvalidInputError, match="ridge"):
        tilt_coefficients(np.zeros(3), basis=np.ones((3, 2)), ridge=-1.0)
    with pytest.raises(InvalidInputError, match="bounds"):
        box_coefficients(np.zeros(2), basis=np.ones((2, 1)), lower=np.ones(1), upper=np.zeros(1))
