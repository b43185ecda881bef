"""Baselines: anchors placed without looking, and an oracle that only has a fixed pool.

Source:
    palm.md section 10 (uniform and random preferences are also the paper's baselines).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice, sample_simplex
from palate.portfolio.payoffs import Payoffs

FINE = 12  # denominator of the lattice that further uniform anchors come from


def uniform_anchors(*, n_objectives: int, size: int) -> Float[ndarray, "anchors objectives"]:
    """Evenly spread preferences.

    With two objectives the lattice of this size. Otherwise unit vectors, edge midpoints, the
    centre, then whatever lattice preference is farthest (L1) from those before. One anchor alone is
    the centre.

    Raises:
        InvalidInputError: fewer than one anchor, or more than the lattice has.
    """
    centre = np.full((1, n_objectives), 1.0 / n_objectives)
    if size < 1:
        raise InvalidInputError(f"{size} anchors are too few; use one or more.")
    if size == 1 or n_objectives == 1:
        return centre
    if n_objectives == 2:
        return lattice(n_objectives=2, denominator=size - 1)
    halves = lattice(n_objectives=n_objectives, denominator=2)
    is_unit = halves.max(axis=1) == 1.0
    anchors = np.vstack([halves[is_unit], halves[~is_unit], centre])
    pool = lattice(n_objectives=n_objectives, denominator=FINE)
    while len(anchors) < size:
        distance = np.abs(pool[:, None, :] - anchors[None, :, :]).sum(axis=2).min(axis=1)
        if distance.max() <= 0.0:
            raise InvalidInputError(f"{size} uniform anchors are more than the lattice has.")
        anchors = np.vstack([anchors, pool[int(np.argmax(distance))]])
    return anchors[:size]


def random_anchors(
    *, n_objectives: int, size: int, generator: np.random.Generator
) -> Float[ndarray, "anchors objectives"]:
    """Preferences drawn uniformly from the simplex."""
    return sample_simplex(n_points=size, n_objectives=n_objectives, generator=generator)


def inward(
    anchors: Float[ndarray, "anchors objectives"], *, share: float = 0.1
) -> Float[ndarray, "anchors objectives"]:
    """Anchors with the unit vectors moved towards the centre by this share."""
    is_unit = (anchors.max(axis=1) > 1.0 - 1e-12)[:, None]
    return np.where(is_unit, (1.0 - share) * anchors + share / anchors.shape[1], anchors)


def subset(payoffs: Payoffs, policies: Sequence[int]) -> Payoffs:
    """The same knowledge of some of the policies, in the given order."""
    rows = list(policies)
    table = payoffs.table
    return replace(
        payoffs,
        table=replace(
            table,
            policies=tuple(table.policies[k] for k in rows),
            values=table.values[rows],
            standard_errors=table.standard_errors[rows],
            kl=table.kl[rows],
            preferences=table.preferences[rows],
        ),
        slacks=None if payoffs.slacks is None else payoffs.slacks[rows],
    )


@dataclass(frozen=True, eq=False)
class PoolOracle:
    """An oracle that makes nothing: it answers with the policy of a pool made nearest.

    Attributes:
        payoffs_of_pool: Every policy with its preference.
    """

    payoffs_of_pool: Payoffs

    def __post_init__(self) -> None:
        """Refuse a pool whose preferences are unknown."""
        if np.any(np.isnan(self.payoffs_of_pool.table.preferences)):
            raise InvalidInputError(
                "A pool needs the preference that each policy was made for; fill them in."
            )

    @property
    def objectives(self) -> tuple[str, ...]:
        """The pool's objectives."""
        return self.payoffs_of_pool.table.objectives

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """The policy whose preference is nearest (L1), the first of equals."""
        table = self.payoffs_of_pool.table
        distance = np.abs(table.preferences - preference).sum(axis=1)
        return table.policies[int(np.argmin(distance))]

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """These policies' part of the pool's table."""
        names = self.payoffs_of_pool.table.policies
        return subset(self.payoffs_of_pool, [names.index(name) for name in policies])
