"""Utility loss: what users lose by having only a portfolio, and how the worst off fare."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex


def utilities(
    *,
    values: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "users objectives"],
) -> Float[ndarray, "users policies"]:
    """What every policy is worth to every user: `preferences @ values.T`.

    Raises:
        InvalidInputError: an input is empty or not finite, lengths differ, or a preference is off
            the simplex.
    """
    table = np.asarray(values, dtype=np.float64)
    users = np.asarray(preferences, dtype=np.float64)
    if table.ndim != 2 or users.ndim != 2 or 0 in (*table.shape, *users.shape):
        raise InvalidInputError(
            f"Values of shape {table.shape} and preferences of shape {users.shape} are not two "
            "tables with at least one row each."
        )
    if table.shape[1] != users.shape[1] or not np.all(np.isfinite(table)):
        raise InvalidInputError(
            f"The values speak of {table.shape[1]} objectives and the preferences of "
            f"{users.shape[1]}, and values must be finite; give both for the same objectives."
        )
    return np.stack([require_simplex(user) for user in users]) @ table.T


def utility_losses(
    *,
    portfolio: Float[ndarray, "members objectives"],
    reference: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "users objectives"],
) -> Float[ndarray, " users"]:
    """Each listed user's best value in the reference minus the best in the portfolio.

    Args:
        portfolio: `[members, objectives]`, values in reward units; higher is better.
        reference: `[policies, objectives]`, on the same scale.
        preferences: `[users, objectives]`, each row on the simplex.

    Raises:
        InvalidInputError: as in `utilities`.
    """
    best = utilities(values=reference, preferences=preferences).max(axis=1)
    return best - utilities(values=portfolio, preferences=preferences).max(axis=1)


def maximum_utility_loss(
    *,
    portfolio: Float[ndarray, "members objectives"],
    reference: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "users objectives"],
) -> float:
    """Largest loss any listed user suffers by having only the portfolio.

    A user with preference `w` values a policy at `w @ values`. It says nothing about users who
    are not listed: for a bound over the whole simplex see `palate.portfolio.certificate`.

    Args:
        portfolio: `[members, objectives]`, values in reward units; higher is better.
        reference: `[policies, objectives]`, on the same scale.
        preferences: `[users, objectives]`, each row on the simplex.

    Returns:
        The loss, in reward units; negative only if `portfolio` beats `reference`.

    Raises:
        InvalidInputError: an input is empty, or a preference is off the simplex.

    Source:
        Zintgraf et al. 2015, "Quality Assessment of MORL Algorithms".
    """
    losses = utility_losses(portfolio=portfolio, reference=reference, preferences=preferences)
    return float(losses.max())


def worst_share_mean(values: Float[ndarray, " users"], *, share: float = 0.1) -> float:
    """Mean of the lowest values that make up this share of the users (at least one user).

    A description of the users listed, not an estimate for others: the worst tenth of a sample
    looks worse the more its values are noise. `share` near zero gives the worst user.

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
