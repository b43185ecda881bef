"""Curve: portfolios of growing size, none certified worse than a smaller one.

Members of every size are chosen by estimates, but certified by bounds, in which a noisy policy
counts for less as a member and for more as an alternative. The choice for a size can therefore be
certified worse than a smaller one, although adding any policy to a portfolio only lowers its
certified loss: the members are worth no less, and there is one alternative less. So each size also
tries the portfolio of one member less plus one policy, and the certificate decides between the
two. Its bounds hold for all policies together, so it may be looked at before choosing.

Source:
    Ours; candidate-relative bounds: palm.md P4 and P14.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import NotCertifiedError
from palate.portfolio.everybody import Chosen, Criterion, Stakes, best_members, starting_users
from palate.portfolio.terms import Comparison

Judge = Callable[[tuple[int, ...], Criterion], tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """What members are chosen from, and by what.

    Attributes:
        comparison: Of the whole table.
        kept: Rows of the table that may be members; members are counted among these.
        judge: Certified loss of members by a criterion, and what breaks ties; lower is better.
    """

    comparison: Comparison
    kept: tuple[int, ...]
    judge: Judge

    def stakes(self, criterion: Criterion) -> Stakes:
        """What members are worth at least, and what could be had instead by the estimates."""
        bounds, ceiling = self.comparison.bounds, self.comparison.ceiling
        return Stakes(
            values=self.comparison.lower[list(self.kept)],
            rows=(bounds.lower + bounds.upper) / 2.0 if ceiling is None else ceiling,
            criterion=criterion,
        )


def best_of_size(candidates: Candidates, *, size: int, criterion: Criterion) -> Chosen:
    """Members for the worst case over all users, certified no worse than those of smaller sizes.

    Raises:
        NotCertifiedError: the criterion is multiplicative and shares are not defined for any
            portfolio of this size.
    """
    stakes = candidates.stakes(criterion)
    best: Chosen | None = None
    for n_members in range(1, size + 1):
        found = _chosen_or_none(stakes, size=n_members)
        if best is not None:
            found = _better(candidates, stakes, found=found, smaller=best)
        best = found
    return best if best is not None else best_members(stakes, size=size)


def _chosen_or_none(stakes: Stakes, *, size: int) -> Chosen | None:
    try:
        return best_members(stakes, size=size)
    except NotCertifiedError:
        return None


def _better(
    candidates: Candidates, stakes: Stakes, *, found: Chosen | None, smaller: Chosen
) -> Chosen:
    """The choice of its own, or the smaller portfolio plus one policy if that certifies better."""
    criterion = stakes.criterion
    members = _with_one_more(candidates, criterion=criterion, members=smaller.members)
    if found is not None and found.members != members:
        grown, own = (
            candidates.judge(members, criterion),
            candidates.judge(found.members, criterion),
        )
        if own <= grown:
            return found
    least = -np.inf if found is None else found.least_gap
    return Chosen(members, stakes.gap(members).value, least)


def _with_one_more(
    candidates: Candidates, *, criterion: Criterion, members: tuple[int, ...]
) -> tuple[int, ...]:
    """The members and the policy that lowers the worst loss over a list of users most."""
    comparison, kept = candidates.comparison, np.array(candidates.kept)
    users = starting_users(comparison.lower.shape[1])
    worth = users @ comparison.lower[kept].T  # [users, kept]
    worth = np.maximum(worth[:, list(members)].max(axis=1)[:, None], worth)
    instead = _best_instead(comparison, kept=kept, members=kept[list(members)], users=users)
    losses = instead - worth
    if criterion == "multiplicative":
        losses = losses / np.maximum(instead, 1e-300)
    costs = losses.max(axis=0)
    costs[list(members)] = np.inf
    return tuple(sorted((*members, int(np.argmin(costs)))))


def _best_instead(
    comparison: Comparison,
    *,
    kept: ndarray,
    members: ndarray,
    users: Float[ndarray, "users objectives"],
) -> Float[ndarray, "users kept"]:
    """What each user could have instead at most, once each of the kept policies is a member."""
    if comparison.ceiling is not None:
        best = (users @ comparison.ceiling.T).max(axis=1)
        return np.repeat(best[:, None], len(kept), axis=1)
    offered = users @ comparison.bounds.upper.T  # [users, policies]
    offered[:, members] = -np.inf
    first = offered.argmax(axis=1)
    best = offered[np.arange(len(users)), first]
    offered[np.arange(len(users)), first] = -np.inf
    second = offered.max(axis=1)
    return np.where(first[:, None] == kept[None, :], second[:, None], best[:, None])
