"""Members for every user of the simplex, not for a list of users.

Users are added where they are needed: select members for a list of preferences, find who in the
whole simplex loses most with them (exactly, see `palate.portfolio.gap`), add that user to the
list, select again. The optimum over the list is a lower bound of the optimum over the simplex, and
the two meet, so a selection that is exact on the list is exact for every user in the end. With two
objectives no list is needed: each policy's coverage is an interval, and one sweep gives the
smallest portfolio.

Source: Ours; cutting planes in the sense of Kelley 1960. Convex coverage: palm.md P7.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from palate.core.errors import NotCertifiedError
from palate.core.simplex import lattice
from palate.portfolio.gap import Gap, additive_gap, multiplicative_gap, program_gap
from palate.portfolio.selection import (
    WORST,
    Cost,
    best_listed,
    interval_cover,
    require_size,
    smallest_cover,
)
from palate.portfolio.shapes import PolicyValues, RowValues, UserLosses, Users

Criterion = Literal["additive", "multiplicative"]
MAX_ROUNDS = 200
NO_SHARE = (
    "The best member is worth less than nothing to some user, so a multiplicative gap says "
    "nothing; ask for the additive gap or add an offset to all rewards."
)
SETTLED = 1e-9  # rounds end when list and simplex agree to this, in value units scaled to one


@dataclass(frozen=True)
class Choice:
    """Members and how good they are."""

    members: tuple[int, ...]  # policy indices, ascending
    gap: float  # largest loss of any user, by the criterion
    least_gap: float  # no choice of as many members has a smaller gap than this


@dataclass(frozen=True, eq=False)
class Stakes:
    """What policies are worth at least, and what users could have instead at most."""

    values: PolicyValues  # at least, of each candidate member
    rows: RowValues  # at most, instead
    criterion: Criterion = "additive"  # a loss in reward units, or as a share of the best value

    def losses(self, preferences: Users) -> UserLosses:
        """The loss of each user with each policy alone."""
        best = (preferences @ self.rows.T).max(axis=1)[:, None]
        worth = preferences @ self.values.T
        if self.criterion == "additive":
            return best - worth
        return 1.0 - worth / np.maximum(best, 1e-300)

    def gap(self, members: list[int] | tuple[int, ...]) -> Gap:
        """The largest loss of any user with these members.

        Raises:
            NotCertifiedError: a multiplicative loss of a user to whom no member is worth anything.
        """
        gap = self.gap_or_infinity(members)
        if np.isinf(gap.value):
            raise NotCertifiedError(NO_SHARE)
        return gap

    def gap_or_infinity(self, members: list[int] | tuple[int, ...]) -> Gap:
        """As `gap`, infinite at the user to whom the best member is worth less than nothing."""
        values = self.values[list(members)]
        if self.criterion == "additive":
            return additive_gap(members=values, rows=self.rows)
        gap = multiplicative_gap(members=values, rows=self.rows)
        if gap is None:
            poorest = program_gap(members=values, row=np.zeros(values.shape[1]))
            return replace(poorest, value=np.inf)
        return gap


def best_members(
    stakes: Stakes, *, size: int, cost: Cost = WORST, users: Users | None = None
) -> Choice:
    """The best portfolio of exactly `size` members.

    For the worst case with up to 200 policies they are the best there are, and `least_gap` equals
    `gap`; for a mean or a blend they are the best that swaps reach.

    A mean or blend is over `users`, by default over a fine lattice.

    Raises:
        InvalidInputError: the size is out of range.
        NotCertifiedError: the loss is multiplicative, and with the members selected (for the worst
            case: with any tried) the best member is worth less than nothing to some user.
    """
    require_size(size, n_policies=len(stakes.values))
    if cost.aim != "worst":
        crowd = users if users is not None else starting_users(stakes.values.shape[1])
        members, _ = best_listed(stakes.losses(crowd), size=size, cost=cost)
        return Choice(tuple(members), stakes.gap(members).value, -np.inf)
    preferences = starting_users(stakes.values.shape[1])
    best, least = Choice((), np.inf, -np.inf), float("-inf")
    for _ in range(MAX_ROUNDS):
        losses = stakes.losses(preferences)
        members, is_exact = best_listed(losses, size=size, least=least)
        listed = float(losses[:, members].min(axis=1).max())
        least = listed if is_exact else least
        gap = stakes.gap_or_infinity(members)
        if gap.value < best.gap:
            best = Choice(tuple(members), gap.value, least)
        if gap.value <= listed + SETTLED or best.gap <= least + SETTLED:
            break
        if np.isinf(gap.value) and np.any(np.all(preferences == gap.preference, axis=1)):
            break  # whoever has no share is listed already and served no better
        preferences = np.vstack([preferences, gap.preference])
    if not best.members:
        raise NotCertifiedError(NO_SHARE)
    return Choice(best.members, best.gap, least)


def fewest_members(stakes: Stakes, *, epsilon: float, delta: float) -> Choice:
    """The smallest portfolio with `max_member w @ V >= (1 - epsilon) best(w) - delta` for all `w`.

    The smallest there is with two objectives or with up to 200 policies.

    Raises:
        NotCertifiedError: not even all policies together reach the tolerance somewhere.
    """
    shrunk = Stakes(values=stakes.values, rows=(1.0 - epsilon) * stakes.rows)
    all_policies = list(range(len(stakes.values)))
    lacking = shrunk.gap(all_policies)
    if lacking.value > delta + SETTLED:
        raise NotCertifiedError(
            f"Even all {len(all_policies)} policies together miss epsilon={epsilon} by a delta of "
            f"{lacking.value:.6g} at the preference {np.round(lacking.preference, 6).tolist()}, "
            f"more than {delta}; widen the tolerance or add a policy there."
        )
    if stakes.values.shape[1] == 2:
        spans = [_interval(shrunk.rows - value, delta=delta + SETTLED) for value in shrunk.values]
        starts, ends = np.array(spans).T  # of the first share
        members = interval_cover(starts=starts, ends=ends)
        return Choice(tuple(sorted(members)), shrunk.gap(members).value, -np.inf)
    preferences = starting_users(shrunk.values.shape[1])
    for _ in range(MAX_ROUNDS):
        members = smallest_cover(shrunk.losses(preferences) <= delta + SETTLED)
        gap = shrunk.gap(members)
        if gap.value <= delta + 2.0 * SETTLED:
            return Choice(tuple(members), gap.value, -np.inf)
        preferences = np.vstack([preferences, gap.preference])
    raise NotCertifiedError(
        f"After {MAX_ROUNDS} rounds some user still loses more than {delta}; widen the tolerance."
    )


def starting_users(n_objectives: int) -> Users:
    """A lattice of some hundred preferences, unit vectors included."""
    denominators = {1: 1, 2: 40, 3: 12, 4: 6, 5: 5, 6: 4}
    return lattice(n_objectives=n_objectives, denominator=denominators.get(n_objectives, 2))


def _interval(excess: Float[np.ndarray, "rows two"], *, delta: float) -> tuple[float, float]:
    """First shares `s` with `excess @ (s, 1 - s) <= delta` for every row; (1, 0) where none."""
    slope = excess[:, 0] - excess[:, 1]
    spare = delta - excess[:, 1]
    rising, falling = slope > 0.0, slope < 0.0
    if np.any(spare[slope == 0.0] < 0.0):
        return 1.0, 0.0
    end = min(1.0, float(np.min(spare[rising] / slope[rising], initial=np.inf)))
    start = max(0.0, float(np.max(spare[falling] / slope[falling], initial=-np.inf)))
    return (start, end) if start <= end else (1.0, 0.0)
