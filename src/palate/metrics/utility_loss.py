"""Utility loss: what people lose by having only a portfolio, and how the worst off fare."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex


def utilities(
    *,
    values: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "people objectives"],
) -> Float[ndarray, "people policies"]:
    """What every policy is worth to every person: `preferences @ values.T`.

    Raises:
        InvalidInputError: an input is empty or not finite, lengths differ, or a preference is off
            the simplex.
    """
    table = np.asarray(values, dtype=np.float64)
    people = np.asarray(preferences, dtype=np.float64)
    if table.ndim != 2 or people.ndim != 2 or 0 in (*table.shape, *people.shape):
        raise InvalidInputError(
            f"Values of shape {table.shape} and preferences of shape {people.shape} are not two "
            "tables with at least one row each."
        )
    if table.shape[1] != people.shape[1] or not np.all(np.isfinite(table)):
        raise InvalidInputError(
            f"The values speak of {table.shape[1]} objectives and the preferences of "
            f"{people.shape[1]}, and values must be finite; give both for the same objectives."
        )
    return np.stack([require_simplex(person) for person in people]) @ table.T


def utility_losses(
    *,
    portfolio: Float[ndarray, "members objectives"],
    reference: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "people objectives"],
) -> Float[ndarray, " people"]:
    """Each listed person's best value in the reference minus the best in the portfolio.

    Args:
        portfolio: `[members, objectives]`, values in reward units; higher is better.
        reference: `[policies, objectives]`, on the same scale.
        preferences: `[people, objectives]`, each row on the simplex.

    Raises:
        InvalidInputError: as in `utilities`.
    """
    best = utilities(values=reference, preferences=preferences).max(axis=1)
    return best - utilities(values=portfolio, preferences=preferences).max(axis=1)


def maximum_utility_loss(
    *,
    portfolio: Float[ndarray, "members objectives"],
    reference: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "people objectives"],
) -> float:
    """Largest loss any listed person suffers by having only the portfolio.

    A person with preference `w` values a policy at `w @ values`. It says nothing about people who
    are not listed: for a bound over the whole simplex see `palate.portfolio.certificate`.

    Args:
        portfolio: `[members, objectives]`, values in reward units; higher is better.
        reference: `[policies, objectives]`, on the same scale.
        preferences: `[people, objectives]`, each row on the simplex.

    Returns:
        The loss, in reward units; negative only if `portfolio` beats `reference`.

    Raises:
        InvalidInputError: an input is empty, or a preference is off the simplex.

    Source:
        Zintgraf et al. 2015, "Quality Assessment of MORL Algorithms".
    """
    losses = utility_losses(portfolio=portfolio, reference=reference, preferences=preferences)
    return float(losses.max())


def worst_share_mean(values: Float[ndarray, " people"], *, share: float = 0.1) -> float:
    """Mean of the lowest values that make up this share of the people (at least one person).

    A description of the people listed, not an estimate for others: the worst tenth of a sample
    looks worse the more its values are noise. `share` near zero gives the worst person.

    Raises:
        InvalidInputError: no values, a value is not finite, or `share` outside (0, 1].
    """
    people = np.sort(np.asarray(values, dtype=np.float64))
    if people.ndim != 1 or not people.size or not np.all(np.isfinite(people)):
        raise InvalidInputError(
            f"The values of shape {people.shape} are not finite numbers of at least one person."
        )
    if not 0 < share <= 1:
        raise InvalidInputError(f"The share {share} is out of range; use a number in (0, 1].")
    # 0.1 * 30 is 3.0000000000000004: rounding must not add a person
    return float(people[: max(1, math.ceil(share * len(people) - 1e-9))].mean())
