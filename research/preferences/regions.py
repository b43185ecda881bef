"""Credible regions: where a user's vector is, with stated probability.

Source: for normal beliefs the ellipsoid of the chi-square quantile; for preferences the part of it
on the simplex, its size found from draws of the belief cut off at the edges.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import chi2

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from research.preferences.simplex_draws import preference_draws


@dataclass(frozen=True, eq=False)
class Region:
    """All vectors within a squared distance of the mean, measured by the precision.

    Attributes:
        mean: `[features]`.
        precision: `[features, features]`; zero along directions that cannot move.
        radius_squared: Largest squared distance inside.
        is_preference: Only points of the simplex are inside.
    """

    mean: Float[ndarray, " features"]
    precision: Float[ndarray, "features features"]
    radius_squared: float
    is_preference: bool

    def contains(self, vector: Float[ndarray, " features"]) -> bool:
        """Whether the vector lies inside."""
        away = np.asarray(vector) - self.mean
        if self.is_preference and (abs(float(np.sum(vector)) - 1.0) > 1e-6 or min(vector) < -1e-9):
            return False
        return bool(away @ self.precision @ away <= self.radius_squared)


def credible_region(
    belief: Belief, *, level: float = 0.9, is_preference: bool = False, seed: int = 0
) -> Region:
    """The region that holds the user's vector with this probability, under the belief.

    Args:
        belief: Normal; on the plane of sum one for a preference.
        level: Between 0 and 1.
        is_preference: The vector lies on the simplex.
        seed: Of the draws that size a preference's region.

    Raises:
        InvalidInputError: the level lies outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"The level {level} is out of range; use a number in (0, 1).")
    precision = np.linalg.pinv(belief.covariance, hermitian=True)
    if not is_preference:
        return Region(
            belief.mean, precision, float(chi2.ppf(level, len(belief.mean))), is_preference=False
        )
    away = preference_draws(belief, seed=seed) - belief.mean
    squares = np.einsum("nd,de,ne->n", away, precision, away)
    return Region(belief.mean, precision, float(np.quantile(squares, level)), is_preference=True)
