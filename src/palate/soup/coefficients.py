"""Coefficients without feedback: from a known preference, or from a known policy.

Three ways from what is wanted to coefficients over experts, ordered by what must be known:

- reward space: the anchors' combination that equals the preference; needs only the preference;
- Q space: the combination of tilts closest to a user's optimal tilts; needs that policy, so it is
  a ceiling for learning, not a method;
- either one, kept on the simplex.

Source: Spectral Souping, arXiv 2605.20408 (optimal values are not linear in the reward, so fitted
coefficients beat preference entries); MOD, arXiv 2406.18853, and PAD, arXiv 2410.04070, for
preference entries as coefficients.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import lsq_linear, nnls

from palate.core.errors import InvalidInputError

SUM_TO_ONE = 1e4  # how much more the sum counts than the largest entry of the problem


def reward_space_coefficients(
    preference: Float[ndarray, " objectives"], *, anchors: Float[ndarray, "experts objectives"]
) -> Float[ndarray, " experts"]:
    """The smallest coefficients with `sum_k lambda_k anchor_k = preference`.

    With one expert per objective these are the preference's own entries. Where the anchors do not
    span the preference, the closest combination in least squares.

    Args:
        preference: `[objectives]`, signed or on the simplex.
        anchors: `[experts, objectives]`, what each expert was trained for.

    Raises:
        InvalidInputError: lengths differ, or a number is not finite.
    """
    wanted, matrix = _require_target(preference, anchors.T)
    return np.linalg.lstsq(matrix, wanted, rcond=None)[0]


def tilt_coefficients(
    target: Float[ndarray, " pairs"], *, basis: Float[ndarray, "pairs experts"], ridge: float = 0.0
) -> Float[ndarray, " experts"]:
    """The combination of the experts' tilts closest to a target tilt, in least squares.

    Both are columns of a tilt matrix (`palate.soup.basis`) over the same states.

    Args:
        target: `[pairs]`, of the policy to be imitated.
        basis: `[pairs, experts]`.
        ridge: Penalty on the squared coefficients; with zero the smallest solution is taken.

    Raises:
        InvalidInputError: lengths differ, a number is not finite, or the ridge is negative.
    """
    wanted, matrix = _require_target(target, basis)
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
    wanted, matrix = _require_target(target, basis)
    heavy = SUM_TO_ONE * max(1.0, float(np.abs(matrix).max()))
    rows = np.vstack([matrix, np.full((1, matrix.shape[1]), heavy)])
    found, _ = nnls(rows, np.append(wanted, heavy))
    return found / found.sum()


def box_coefficients(
    target: Float[ndarray, " rows"],
    *,
    basis: Float[ndarray, "rows experts"],
    lower: Float[ndarray, " experts"],
    upper: Float[ndarray, " experts"],
) -> Float[ndarray, " experts"]:
    """The closest combination with every coefficient between its bounds.

    A safety floor is a lower bound on one expert's coefficient.

    Args:
        target: `[rows]`.
        basis: `[rows, experts]`.
        lower: `[experts]`, minus infinity where free.
        upper: `[experts]`, above `lower`.

    Raises:
        InvalidInputError: lengths differ, a number is not finite, or bounds cross.
    """
    wanted, matrix = _require_target(target, basis)
    if lower.shape != upper.shape or len(lower) != matrix.shape[1] or not np.all(lower < upper):
        raise InvalidInputError(
            f"The bounds {lower.tolist()} and {upper.tolist()} do not enclose one coefficient for "
            f"each of the {matrix.shape[1]} experts."
        )
    return np.asarray(lsq_linear(matrix, wanted, bounds=(lower, upper), tol=1e-14).x)


def _require_target(
    target: Float[ndarray, " rows"], basis: Float[ndarray, "rows experts"]
) -> tuple[Float[ndarray, " rows"], Float[ndarray, "rows experts"]]:
    wanted, matrix = np.asarray(target, dtype=np.float64), np.asarray(basis, dtype=np.float64)
    if matrix.ndim != 2 or wanted.shape != matrix.shape[:1] or not matrix.size:
        raise InvalidInputError(
            f"A target of shape {wanted.shape} does not fit a basis of shape {matrix.shape}; "
            "give one row of the basis per entry."
        )
    if not (np.all(np.isfinite(wanted)) and np.all(np.isfinite(matrix))):
        raise InvalidInputError("The target or the basis holds a number that is not finite.")
    return wanted, matrix
