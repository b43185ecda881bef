import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.errors import InvalidInputError
from research.soup.ceilings import simplex_coefficients, tilt_coefficients


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


def test_bad_targets_are_refused():
    with pytest.raises(InvalidInputError, match="one row"):
        tilt_coefficients(np.zeros(3), basis=np.zeros((4, 2)))
    with pytest.raises(InvalidInputError, match="not finite"):
        simplex_coefficients(np.array([np.nan]), basis=np.ones((1, 2)))
    with pytest.raises(InvalidInputError, match="ridge"):
        tilt_coefficients(np.zeros(3), basis=np.ones((3, 2)), ridge=-1.0)
