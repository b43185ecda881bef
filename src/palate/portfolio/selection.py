"""Selection: which members of a table serve a list of users best, or cover all listed points.

A loss table holds the loss of each listed user (row) with each policy (column). A portfolio costs a
user the smallest loss among its members; over users, the worst case, the mean, or a blend
`mean + share * worst` counts.

The mean over users is, up to a constant, monotone and submodular, so greedy is within `1 - 1/e` of
the best gain; swaps improve on it. The worst case is solved exactly by bisection over smallest
covers where the table is small enough.

A cover is the fewest policies such that each point has one that covers it: greedy is within the
harmonic number of points of the minimum, which an integer program or, for intervals on a line, one
sweep finds.

Source:
    palm.md 3.3 (swap search, pruning stage of PALM, arXiv 2604.04144) and P12; greedy covers:
    Chvatal 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import Bounds as VariableBounds
from scipy.optimize import LinearConstraint, milp

from palate.core.errors import InvalidInputError, NotCertifiedError, NotConvergedError
from palate.portfolio.shapes import UserLosses

Coverage = Bool[np.ndarray, "points policies"]
MAX_EXACT_POLICIES = 200  # beyond, greedy


def greedy_cover(is_covered: Coverage) -> list[int]:
    """Policies in greedy order: most uncovered points first, ties to the lowest index.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    is_open = np.ones(len(is_covered), dtype=bool)
    policies: list[int] = []
    while np.any(is_open):
        counts = np.count_nonzero(is_covered[is_open], axis=0)
        policies.append(int(np.argmax(counts)))
        is_open &= ~is_covered[:, policies[-1]]
    return policies


def exact_cover(is_covered: Coverage) -> list[int]:
    """A smallest cover, ascending, by integer programming (HiGHS) on what domination leaves.

    Raises:
        NotCertifiedError: some point is covered by no policy.
        NotConvergedError: HiGHS did not prove a minimum.
    """
    require_coverable(is_covered)
    points, policies = undominated(is_covered)
    table = is_covered[np.ix_(points, policies)].astype(float)
    solution = milp(
        np.ones(len(policies)),
        constraints=LinearConstraint(table, lb=1.0),
        integrality=np.ones(len(policies)),
        bounds=VariableBounds(0.0, 1.0),
    )
    if solution.status != 0:
        raise NotConvergedError(f"HiGHS did not find a smallest cover: {solution.message}")
    return [int(policy) for policy in policies[solution.x > 0.5]]


def undominated(
    is_covered: Coverage,
) -> tuple[Int[np.ndarray, " points"], Int[np.ndarray, " policies"]]:
    """Indices of the points and policies that a smallest cover depends on.

    A policy goes if another one covers all of its points; a point goes if it is covered whenever
    another one is. Repeated until nothing goes.
    """
    points, policies = np.arange(is_covered.shape[0]), np.arange(is_covered.shape[1])
    while True:
        is_needed = ~_is_within_another(is_covered[np.ix_(points, policies)].T)
        policies = policies[is_needed]
        is_binding = ~_is_within_another(~is_covered[np.ix_(points, policies)])
        points = points[is_binding]
        if np.all(is_needed) and np.all(is_binding):
            return points, policies


def _is_within_another(sets: Bool[np.ndarray, "sets items"]) -> Bool[np.ndarray, " sets"]:
    """Which set lies within another one; of equal sets all but the first."""
    counts = sets.astype(np.float64)
    shared = counts @ counts.T
    sizes = np.diag(shared)
    is_within = shared >= sizes[:, None]
    is_first = np.tri(len(sets), k=-1, dtype=bool)  # the other one comes before
    return np.any(is_within & ((sizes[None, :] > sizes[:, None]) | is_first), axis=1)


def smallest_cover(is_covered: Coverage) -> list[int]:
    """A smallest cover where policies are few enough for that, otherwise greedy's; ascending."""
    if is_covered.shape[1] <= MAX_EXACT_POLICIES:
        return exact_cover(is_covered)
    return sorted(greedy_cover(is_covered))


def interval_cover(
    *, starts: Float[np.ndarray, " policies"], ends: Float[np.ndarray, " policies"]
) -> list[int]:
    """The fewest intervals that cover `[0, 1]`, from left to right, by one sweep.

    An interval that ends before it starts covers nothing.

    Raises:
        NotCertifiedError: some place is in no interval.
    """
    policies: list[int] = []
    reached = 0.0
    while not policies or reached < 1.0:
        is_next = (starts <= reached) & (ends >= reached)
        best = int(np.argmax(np.where(is_next, ends, -np.inf)))
        if not is_next[best] or (policies and ends[best] <= reached):
            raise NotCertifiedError(
                f"No policy covers what lies just beyond {reached:.6g}; "
                "widen the tolerance or add a policy there."
            )
        policies.append(best)
        reached = float(ends[best])
    return policies


def sweep_cover(is_covered: Coverage) -> list[int]:
    """The fewest policies that cover points in order, each policy a run of neighbours.

    With two objectives, coverage sets are intervals of preferences; this is then the minimum.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    policies: list[int] = []
    reached = 0
    while reached < len(is_covered):
        ahead = np.vstack([is_covered[reached:], np.zeros_like(is_covered[:1])])
        runs = np.argmin(ahead, axis=0)  # how many points from here on each policy covers
        policies.append(int(np.argmax(runs)))
        reached += int(runs.max())
    return policies


def require_coverable(is_covered: Coverage) -> None:
    """Refuse a table with points that no policy covers with NotCertifiedError."""
    alone = np.flatnonzero(~np.any(is_covered, axis=1))
    if alone.size:
        raise NotCertifiedError(
            f"No policy is good enough at {alone.size} of {len(is_covered)} places (first: "
            f"{alone[:5].tolist()}); widen the tolerance or add policies there."
        )


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

    def of(self, losses: Float[np.ndarray, "users *options"]) -> Float[np.ndarray, "*options"]:
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


def greedy_members(
    losses: UserLosses, *, size: int, cost: Cost = WORST, members: Sequence[int] = ()
) -> list[int]:
    """Members added one by one, each the one that lowers the cost most; ties to the lowest index.

    The first members may be given. The worst case has many ties; they are broken by the mean.
    """
    require_size(size, n_policies=losses.shape[1])
    members = list(members)
    best = losses[:, members].min(axis=1, initial=np.inf)
    for _ in range(size - len(members)):
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
    return sorted(greedy_members(losses, size=size, cost=Cost(aim="mean"), members=best))


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


def _tie_broken(
    losses: Float[np.ndarray, "users *options"], *, cost: Cost
) -> Float[np.ndarray, "*o"]:
    return cost.of(losses) + 1e-9 * losses.mean(axis=0)
