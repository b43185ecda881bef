"""Selection: which members of a table serve a list of users best.

A loss table holds the loss of each listed user (row) with each policy (column). A portfolio costs a
user the smallest loss among its members; over users, the worst case, the mean, or a blend
`mean + share * worst` counts.

The mean over users is, up to a constant, monotone and submodular, so greedy is within `1 - 1/e` of
the best gain; swaps improve on it. The worst case is solved exactly by bisection over smallest
covers where the table is small enough.

Source:
    palm.md 3.3 (swap search) and P12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.portfolio.cover import MAX_EXACT_POLICIES, exact_cover, greedy_cover
from palate.portfolio.shapes import UserLosses

Aim = Literal["worst", "mean", "blend"]
IMPROVEMENT = 1e-12  # a swap must gain more than rounding


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How the losses of a list of users become one number."""

    aim: Aim = "worst"  # `blend` is `mean + share * worst`
    share: float = 0.5  # of the worst case in a blend, in [0, 1]

    def __post_init__(self) -> None:
        """Refuse what is unknown or out of range."""
        if self.aim not in get_args(Aim):
            known = ", ".join(get_args(Aim))
            raise InvalidInputError(f"The aim {self.aim!r} is unknown; use {known}.")
        if not 0.0 <= self.share <= 1.0:
            raise InvalidInputError(f"The blend's share {self.share} is out of range; use [0, 1].")

    def of(self, losses: Float[ndarray, "users *options"]) -> Float[ndarray, "*options"]:
        """The cost of each option's losses; the first axis is users."""
        if self.aim == "worst":
            return losses.max(axis=0)
        if self.aim == "mean":
            return losses.mean(axis=0)
        return losses.mean(axis=0) + self.share * losses.max(axis=0)


WORST = Cost()


def require_size(size: int, *, n_policies: int) -> None:
    """Refuse a size below one or above the number of policies with InvalidInputError."""
    if size < 1:
        raise InvalidInputError(f"The size {size} is too small; use one member or more.")
    if size > n_policies:
        raise InvalidInputError(
            f"The size {size} is larger than the {n_policies} policies to choose from; "
            f"use at most {n_policies}."
        )


def greedy_members(losses: UserLosses, *, size: int, cost: Cost = WORST) -> list[int]:
    """Members added one by one, each the one that lowers the cost most; ties to the lowest index.

    The worst case has many ties; they are broken by the mean.
    """
    require_size(size, n_policies=losses.shape[1])
    members: list[int] = []
    best = np.full(len(losses), np.inf)
    for _ in range(size):
        options = np.minimum(best[:, None], losses)
        costs = _tie_broken(options, cost=cost)
        costs[members] = np.inf
        members.append(int(np.argmin(costs)))
        best = np.minimum(best, losses[:, members[-1]])
    return members


def swapped_members(losses: UserLosses, *, members: Sequence[int], cost: Cost = WORST) -> list[int]:
    """Members after replacing one by another policy while that lowers the cost; ascending.

    Every replacement is tried and the best one made, until none helps: a local minimum.
    """
    members = list(members)
    current = float(_tie_broken(losses[:, members].min(axis=1), cost=cost))
    while True:
        trials = [
            _best_replacement(losses, members, position, cost) for position in range(len(members))
        ]
        value, position, policy = min(trials)
        if value >= current - IMPROVEMENT:
            return sorted(members)
        members[position], current = policy, value


def exact_members(losses: UserLosses, *, size: int, least: float = -np.inf) -> list[int]:
    """Members with the smallest worst loss, by bisection over smallest covers.

    Spare places go to the policies that lower the mean most. `least` is a cost known to be out of
    reach; it shortens the bisection.

    Raises:
        InvalidInputError: the size is out of range.
        NotConvergedError: HiGHS did not prove a minimum.
    """
    start = swapped_members(losses, members=greedy_members(losses, size=size))
    known = float(losses[:, start].min(axis=1).max())
    bound = max(least, float(losses.min(axis=1).max()))
    levels = np.unique(losses[(losses >= bound) & (losses < known)])
    best = start
    low, high = 0, len(levels)  # levels[high:] are reachable, levels[:low] are not
    while low < high:
        middle = (low + high) // 2
        is_covered = losses <= levels[middle]
        members = greedy_cover(is_covered)
        if len(members) > size:
            members = exact_cover(is_covered)
        if len(members) <= size:
            best, high = members, middle
        else:
            low = middle + 1
    return _filled(losses, members=best, size=size)


def best_listed(
    losses: UserLosses, *, size: int, cost: Cost = WORST, least: float = -np.inf
) -> tuple[list[int], bool]:
    """The best members for these users, and whether they are proven to be the best.

    Exact for the worst case with up to 200 policies; otherwise greedy followed by swaps.
    """
    require_size(size, n_policies=losses.shape[1])
    if cost.aim == "worst" and losses.shape[1] <= MAX_EXACT_POLICIES:
        return exact_members(losses, size=size, least=least), True
    start = greedy_members(losses, size=size, cost=cost)
    return swapped_members(losses, members=start, cost=cost), size in (1, losses.shape[1])


def _best_replacement(
    losses: UserLosses, members: list[int], position: int, cost: Cost
) -> tuple[float, int, int]:
    others = members[:position] + members[position + 1 :]
    rest = losses[:, others].min(axis=1, initial=np.inf)
    costs = _tie_broken(np.minimum(rest[:, None], losses), cost=cost)
    costs[others] = np.inf
    policy = int(np.argmin(costs))
    return float(costs[policy]), position, policy


def _tie_broken(losses: Float[ndarray, "users *options"], *, cost: Cost) -> Float[ndarray, "*o"]:
    return cost.of(losses) + 1e-9 * losses.mean(axis=0)


def _filled(losses: UserLosses, *, members: Sequence[int], size: int) -> list[int]:
    members = list(members)
    while len(members) < size:
        best = losses[:, members].min(axis=1)
        means = np.minimum(best[:, None], losses).mean(axis=0)
        means[members] = np.inf
        members.append(int(np.argmin(means)))
    return sorted(members)
