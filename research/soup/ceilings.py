"""Coefficients from a known policy: ceilings for learning, not methods.

The combination of tilts closest to a user's optimal tilts (Q space), free or on the simplex.

Source: Spectral Souping, arXiv 2605.20408 (optimal values are not linear in the reward).
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import nnls

from palate.core.errors import InvalidInputError
from palate.soup.plans import require_target

SUM_TO_ONE = 1e4  # how much more the sum counts than the largest entry of the problem


def tilt_coefficients(
    target: Float[ndarray, " pairs"], *, basis: Float[ndarray, "pairs experts"], ridge: float = 0.0
) -> Float[ndarray, " experts"]:
    """The combination of the experts' tilts closest to a target tilt, in least squares.

    Both are columns of a tilt matrix (`palate.soup.basis`) over the same states.

    Args:
        target: `[pairs]`, tilt of the policy to be imitated.
        basis: `[pairs, experts]`.
        ridge: Penalty on the squared coefficients; with zero the smallest solution is taken.

    Raises:
        InvalidInputError: lengths differ, a number is not finite, or the ridge is negative.
    """
    wanted, matrix = require_target(target, basis)
    if not ridge >= 0:
        raise InvalidInputError(f"The ridge {ridge} is negative; use zero or more.")
    if ridge > 0:
        n_experts = matrix.shape[1]
        matrix = np.vstack([matrix, np.sqrt(ridge) * np.eye(n_experts)])
        wanted = np.concatenate([wanted, np.zeros(n_experts)])
    return np.linalg.lstsq(matrix, wanted, rcond=None)[0]


def simplex_coefficients(
    target: Float[ndarray, " rows"], *, basis: Float[ndarray, "rows experts"]
) -> Float[ndarray, " experts"]:
    """The closest combination with non-negative coefficients that sum to one.

    For tilts `basis` is a tilt matrix; for preferences it is `anchors.T`. This is what endpoints
    that cannot subtract an expert, and mixtures, are limited to.

    Args:
        target: `[rows]`.
        basis: `[rows, experts]`.

    Raises:
        InvalidInputError: lengths differ, or a number is not finite.

    Source:
        Lawson and Hanson 1974, "Solving Least Squares Problems": the sum as a heavy row of a
        non-negative problem, then exactly by normalising.
    """
    wanted, matrix = require_target(target, basis)
    heavy = SUM_TO_ONE * max(1.0, float(np.abs(matrix).max()))
    rows = np.vstack([matrix, np.full((1, matrix.shape[1]), heavy)])
    closest, _ = nnls(rows, np.append(wanted, heavy))
    return closest / closest.sum()
