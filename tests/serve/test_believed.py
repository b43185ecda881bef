"""From beliefs to soups: what is most probable within bounds, and when a belief is used."""

import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.types import Belief
from palate.serve.believed import mode_within


def test_the_mode_within_is_what_a_general_optimiser_finds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        root = generator.normal(size=(4, 4))
        covariance = root @ root.T + 0.1 * np.eye(4)
        belief = Belief(generator.normal(size=4), covariance)
        precision = np.linalg.inv(covariance)

        def away(m: np.ndarray, p: np.ndarray = precision, mean: np.ndarray = belief.mean) -> float:
            return float((m - mean) @ p @ (m - mean))

        start = np.clip(belief.mean, 0.1, 1.4)
        found = minimize(away, start, bounds=[(0, 1.5)] * 4, tol=1e-12)
        assert away(mode_within(belief, least=0.0, most=1.5)) <= found.fun + 1e-8
        within = mode_within(belief, least=0.0, most=1.5)
        assert np.all((within >= 0) & (within <= 1.5))


def test_a_belief_within_the_bounds_is_its_own_mode() -> None:
    belief = Belief(np.array([0.5, 1.2]), np.array([[1.0, 0.3], [0.3, 0.5]]))
    assert mode_within(belief, least=0.0, most=1.5) == pytest.approx(belief.mean)


def test_giving_up_a_negative_coefficient_moves_what_goes_with_it() -> None:
    # by hand: with correlation 0.9, cutting the second at 0 moves the first by 0.9 * 1 = 0.9
    belief = Belief(np.array([0.5, -1.0]), np.array([[1.0, 0.9], [0.9, 1.0]]))
    assert mode_within(belief, least=0.0, most=1.5) == pytest.approx([1.4, 0.0])
