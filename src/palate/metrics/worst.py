"""How the worst off users fare."""

import math

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError


def worst_share_mean(values: Float[np.ndarray, " users"], *, share: float = 0.1) -> float:
    """Mean of the lowest values that make up this share of the users (at least one user).

    A description of the users listed, not an estimate for others: the worst tenth of a sample
    looks worse the more its values are noise.

    Raises:
        InvalidInputError: no values, a value is not finite, or `share` outside (0, 1].
    """
    users = np.sort(np.asarray(values, dtype=np.float64))
    if users.ndim != 1 or not users.size or not np.all(np.isfinite(users)):
        raise InvalidInputError(
            f"The values of shape {users.shape} are not finite numbers of at least one user."
        )
    if not 0 < share <= 1:
        raise InvalidInputError(f"The share {share} is out of range; use a number in (0, 1].")
    # 0.1 * 30 is 3.0000000000000004: rounding must not add a user
    return float(users[: max(1, math.ceil(share * len(users) - 1e-9))].mean())
