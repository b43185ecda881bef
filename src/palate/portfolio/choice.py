"""Choice: from a payoff table and a request to a certified portfolio.

Members are selected by what they are worth at least, against what users could have at most or, when
only the table is compared, against the table's estimates. The certificate may be computed on
another table of the same policies, measured on other prompts: the selection could not profit there
from the noise that the certificate is about.

Members of every size are selected by estimates but certified by bounds, in which a noisy policy
counts for less as a member and for more as an alternative, so a larger selection can be certified
worse than a smaller one. Adding a policy to a portfolio only lowers its certified loss. Each size
therefore also tries the portfolio of one member less plus one policy, and the certificate, whose
bounds hold for all policies together, decides between the two.

Source: palm.md sections 3.3, 8 (winner's curse) and 14; candidate-relative bounds: P4 and P14.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.portfolio.certificate import certify, certify_compared
from palate.portfolio.everybody import (
    Choice,
    Criterion,
    Stakes,
    best_members,
    fewest_members,
    starting_users,
)
from palate.portfolio.gap import least_best_value
from palate.portfolio.payoffs import Payoffs, require_payoffs, shifted
from palate.portfolio.record import Record
from palate.portfolio.selection import Cost, require_size
from palate.portfolio.shapes import Users
from palate.portfolio.terms import Comparison, Terms, admissible, compare

BELOW_ZERO = (
    "The best policy may be worth less than nothing to some user, so the share epsilon counts from "
    "the lowest such value ({:.4g}) instead of from zero."
)
BY_AMOUNT = (
    "Members were chosen by the additive gap, because the best member may be worth less than "
    "nothing to some user, which leaves the multiplicative gap undefined."
)


@dataclass(frozen=True, kw_only=True)
class PortfolioRequest:
    """Which kind of portfolio: of a size, or for a tolerance."""

    size: int | None = None  # `None` takes as few members as the tolerance needs
    epsilon: float = 0.0  # multiplicative tolerance, in [0, 1)
    delta: float = 0.0  # additive tolerance, in reward units
    cost: Cost = field(default_factory=Cost)  # whose loss counts when the size is given
    users: Users | None = None  # of a mean; `None` takes a lattice

    def __post_init__(self) -> None:
        """Refuse a request for nothing or for both."""
        has_tolerance = self.epsilon != 0.0 or self.delta != 0.0
        if (self.size is not None) == has_tolerance:
            raise InvalidInputError(
                "Ask either for a size or for a tolerance (epsilon, delta or both), not for "
                f"{'both' if has_tolerance else 'neither'}."
            )
        if not (0.0 <= self.epsilon < 1.0 and 0.0 <= self.delta < np.inf):
            raise InvalidInputError(
                f"The tolerances epsilon={self.epsilon} and delta={self.delta} are infeasible; use "
                "epsilon in [0, 1) and delta of zero or more."
            )


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Policies that may be members, on the table that selects and on the one that certifies."""

    comparison: Comparison
    rows: Sequence[int]  # of the first table; members are counted among these
    target: Payoffs  # offset included
    target_comparison: Comparison
    target_rows: Sequence[int]

    def stakes(self, criterion: Criterion) -> Stakes:
        """What members are worth at least, and the estimates or the ceiling instead."""
        bounds, ceiling = self.comparison.bounds, self.comparison.ceiling
        return Stakes(
            values=self.comparison.lower[list(self.rows)],
            rows=(bounds.lower + bounds.upper) / 2.0 if ceiling is None else ceiling,
            criterion=criterion,
        )

    def certified_loss(self, members: Sequence[int], criterion: Criterion) -> tuple[float, ...]:
        """The certified gap by the criterion and what breaks ties; lower is better."""
        certificate = certify_compared(
            self.target,
            members=[self.target_rows[member] for member in members],
            comparison=self.target_comparison,
        ).certificate
        amount = np.inf if certificate.additive_gap is None else certificate.additive_gap
        if criterion == "additive":
            return (amount,)
        share = certificate.multiplicative_gap
        return (np.inf if share is None else share, amount)


def choose(
    payoffs: Payoffs, *, request: PortfolioRequest, terms: Terms, report: Payoffs | None = None
) -> Record:
    """The certified portfolio that a table and a request lead to.

    Where shares of the best value are not defined, members are chosen by the additive gap, and the
    selection says so. For the worst case, a portfolio is never certified worse, by the gap it was
    chosen by, than the smaller portfolios for the same table and terms. The certificate is computed
    on `report`; without one on `payoffs`, on which members are chosen.

    Raises:
        InvalidInputError: the table is not usable, more members are requested than there are, or
            the tables' policies differ.
        NotCertifiedError: no policy keeps the floor, or the table does not reach the tolerance.
    """
    require_payoffs(payoffs)
    policies = payoffs.table.policies
    comparison = compare(shifted(payoffs, terms.offset), terms)
    rows = admissible(
        payoffs, lower=comparison.lower - comparison.level - terms.offset, terms=terms
    )
    if request.size is not None:
        require_size(request.size, n_policies=len(rows))
    target = payoffs if report is None else _matching(report, payoffs=payoffs)
    moved = shifted(target, terms.offset)
    target_rows = [target.table.policies.index(policies[row]) for row in rows]
    candidates = _Candidates(comparison, rows, moved, compare(moved, terms), target_rows)
    choice, criterion, notes = _chosen(candidates, request=request, terms=terms)
    is_least_known = request.size is not None and np.isfinite(choice.least_gap)
    selection: dict[str, Any] = {
        "size": request.size,
        "epsilon": request.epsilon,
        "delta": request.delta,
        "aim": request.cost.aim,
        "blend_share": request.cost.share if request.cost.aim == "blend" else None,
        "gap_when_chosen": choice.gap,
        "least_gap_of_this_size": choice.least_gap if is_least_known else None,
        "chosen_on_other_prompts": report is not None,
        "criterion": criterion,
        "notes": notes,
    }
    return Record(
        payoffs=target,
        members=tuple(policies[rows[member]] for member in choice.members),
        refused=tuple(name for index, name in enumerate(policies) if index not in rows),
        terms=terms,
        selection=selection,
        certified=certify(
            target, members=[target_rows[member] for member in choice.members], terms=terms
        ),
    )


def _chosen(
    candidates: _Candidates, *, request: PortfolioRequest, terms: Terms
) -> tuple[Choice, Criterion, list[str]]:
    """Members, the gap they were chosen by, and notes on that."""
    if request.size is None:
        stakes = candidates.stakes("additive")
        lowest = min(0.0, least_best_value(stakes.rows)) if request.epsilon > 0.0 else 0.0
        delta = request.delta - request.epsilon * lowest
        notes = [BELOW_ZERO.format(lowest)] if lowest < 0.0 else []
        return fewest_members(stakes, epsilon=request.epsilon, delta=delta), terms.criterion, notes
    if terms.criterion == "additive":
        return _of_size(candidates, request.size, request, "additive"), "additive", []
    try:
        return _of_size(candidates, request.size, request, "multiplicative"), "multiplicative", []
    except NotCertifiedError:
        choice = _of_size(candidates, request.size, request, "additive")
        return choice, "additive", [BY_AMOUNT]


def _of_size(
    candidates: _Candidates, size: int, request: PortfolioRequest, criterion: Criterion
) -> Choice:
    """Members for the request; for the worst case certified no worse than smaller ones."""
    stakes = candidates.stakes(criterion)
    if request.cost.aim != "worst":
        return best_members(stakes, size=size, cost=request.cost, users=request.users)
    best: Choice | None = None
    for n_members in range(1, size + 1):
        try:
            own = best_members(stakes, size=n_members)
        except NotCertifiedError:
            own = None
        best = own if best is None else _better(candidates, stakes, own=own, smaller=best)
    return best or best_members(stakes, size=size)  # which says why there is none


def _better(
    candidates: _Candidates, stakes: Stakes, *, own: Choice | None, smaller: Choice
) -> Choice:
    """A size's own choice, or the smaller portfolio plus one policy if that certifies better."""
    criterion = stakes.criterion
    members = _with_one_more(candidates, criterion=criterion, members=smaller.members)
    if own is not None and own.members != members:
        grown = candidates.certified_loss(members, criterion)
        if candidates.certified_loss(own.members, criterion) <= grown:
            return own
    least = -np.inf if own is None else own.least_gap
    return Choice(members, stakes.gap(members).value, least)


def _with_one_more(
    candidates: _Candidates, *, criterion: Criterion, members: tuple[int, ...]
) -> tuple[int, ...]:
    """The members and the policy that lowers the worst loss over a list of users most."""
    comparison, rows = candidates.comparison, np.array(candidates.rows)
    users = starting_users(comparison.lower.shape[1])
    worth = users @ comparison.lower[rows].T  # [users, candidates]
    worth = np.maximum(worth[:, list(members)].max(axis=1)[:, None], worth)
    instead = _best_instead(comparison, rows=rows, members=rows[list(members)], users=users)
    losses = instead - worth
    if criterion == "multiplicative":
        losses = losses / np.maximum(instead, 1e-300)
    costs = losses.max(axis=0)
    costs[list(members)] = np.inf
    return tuple(sorted((*members, int(np.argmin(costs)))))


def _best_instead(
    comparison: Comparison, *, rows: np.ndarray, members: np.ndarray, users: Users
) -> Float[np.ndarray, "users candidates"]:
    """What each user could have instead at most, once each candidate is a member."""
    if comparison.ceiling is not None:
        best = (users @ comparison.ceiling.T).max(axis=1)
        return np.repeat(best[:, None], len(rows), axis=1)
    offered = users @ comparison.bounds.upper.T  # [users, policies]
    offered[:, members] = -np.inf
    order = np.argsort(-offered, axis=1, kind="stable")
    best = np.take_along_axis(offered, order, axis=1)
    return np.where(order[:, :1] == rows[None, :], best[:, 1:2], best[:, :1])


def _matching(report: Payoffs, *, payoffs: Payoffs) -> Payoffs:
    """The report table, if it is about the same policies."""
    ours, theirs = payoffs.table, report.table
    _require_same(theirs.objectives, ours.objectives, what="objectives")
    _require_same(sorted(theirs.policies), sorted(ours.policies), what="policies")
    if theirs.beta != ours.beta:
        raise InvalidInputError(
            f"The two tables have different beta ({ours.beta:g} and {theirs.beta:g}); measure "
            "both with the same."
        )
    return report


def _require_same(names: Sequence[str], expected: Sequence[str], *, what: str) -> None:
    if list(names) != list(expected):
        raise InvalidInputError(
            f"The report table's {what} {list(names)} differ from the selection table's "
            f"{list(expected)}; measure the same ones."
        )
