"""From beliefs to soups: what is most probable above zero, and when a belief is used."""

import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.types import Belief
from palate.serve.believed import mode_above_zero


def test_the_mode_above_zero_is_what_a_general_optimiser_finds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        root = generator.normal(size=(4, 4))
        covariance = root @ root.T + 0.1 * np.eye(4)
        belief = Belief(generator.normal(size=4), covariance)
        precision = np.linalg.inv(covariance)

        def away(m: np.ndarray, p: np.ndarray = precision, mean: np.ndarray = belief.mean) -> float:
            return float((m - mean) @ p @ (m - mean))

        start = np.maximum(belief.mean, 0.0) + 0.1
        found = minimize(away, start, bounds=[(0, None)] * 4, tol=1e-12)
        assert away(mode_above_zero(belief)) <= found.fun + 1e-8
        assert np.all(mode_above_zero(belief) >= 0)


def test_a_belief_that_is_above_zero_is_its_own_mode() -> None:
    belief = Belief(np.array([0.5, 2.0]), np.array([[1.0, 0.3], [0.3, 0.5]]))
    assert mode_above_zero(belief) == pytest.approx(belief.mean)


def test_giving_up_a_negative_coefficient_moves_what_goes_with_it() -> None:
    # by hand: with correlation 0.9, cutting the second at 0 moves the first by 0.9 * 1 = 0.9
    belief = Belief(np.array([1.0, -1.0]), np.array([[1.0, 0.9], [0.9, 1.0]]))
    assert mode_above_zero(belief) == pytest.approx([1.9, 0.0])
