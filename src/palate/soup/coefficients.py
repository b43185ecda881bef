"""Coefficients without feedback: from a known preference.

Source: MOD, arXiv 2406.18853, and PAD, arXiv 2410.04070, for preference entries as coefficients.
Optimal values are not linear in the reward, so fitted coefficients beat these (Spectral Souping,
arXiv 2605.20408, S2).
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.soup.states import ByExpert


def reward_space_coefficients(
    preference: Float[ndarray, " objectives"], *, anchors: Float[ndarray, "experts objectives"]
) -> ByExpert:
    """The smallest coefficients with `sum_k lambda_k anchor_k = preference`.

    With one expert per objective these are the preference's own entries. Where the anchors do not
    span the preference, the closest combination in least squares.

    Raises:
        InvalidInputError: lengths differ, or a number is not finite.
    """
    wanted, matrix = require_target(preference, anchors.T)
    return np.linalg.lstsq(matrix, wanted, rcond=None)[0]


def require_target(
    target: Float[ndarray, " rows"], basis: Float[ndarray, "rows experts"]
) -> tuple[Float[ndarray, " rows"], Float[ndarray, "rows experts"]]:
    """Target and basis as arrays; InvalidInputError where they do not fit or are not finite."""
    wanted, matrix = np.asarray(target, dtype=np.float64), np.asarray(basis, dtype=np.float64)
    if matrix.ndim != 2 or wanted.shape != matrix.shape[:1] or not matrix.size:
        raise InvalidInputError(
            f"A target of shape {wanted.shape} does not fit a basis of shape {matrix.shape}; "
            "give one row of the basis per entry."
        )
    if not (np.all(np.isfinite(wanted)) and np.all(np.isfinite(matrix))):
        raise InvalidInputError("The target or the basis holds a number that is not finite.")
    return wanted, matrix
