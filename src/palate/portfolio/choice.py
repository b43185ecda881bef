"""Choice: from a payoff table and a wish to a certified portfolio.

Members are chosen by what they are worth at least, against what users could have at most or, when
only the table is compared, against the table's estimates. The certificate may be computed on
another table of the same policies, measured on other prompts; then the choice could not profit from
the noise that the certificate is about.

Source:
    palm.md sections 3.3, 8 (winner's curse) and 14.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.portfolio.certificate import certify, certify_compared
from palate.portfolio.curve import Candidates, Judge, best_of_size
from palate.portfolio.everybody import Chosen, Criterion, best_members, fewest_members
from palate.portfolio.gap import least_best_value
from palate.portfolio.payoffs import Payoffs, require_payoffs, shifted
from palate.portfolio.record import Record
from palate.portfolio.selection import Cost, require_size
from palate.portfolio.terms import Terms, admissible, compare

BELOW_ZERO = (
    "The best policy may be worth less than nothing to some user, so the share epsilon counts from "
    "the lowest such value ({:.4g}) instead of from zero."
)
BY_AMOUNT = (
    "Members were chosen by the additive gap, because the best member may be worth less than "
    "nothing to some user, which leaves the multiplicative gap undefined."
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What kind of portfolio is wanted: of a size, or for a tolerance.

    Attributes:
        size: Exactly so many members; `None` takes as few as the tolerance needs.
        epsilon: Multiplicative tolerance, in [0, 1).
        delta: Additive tolerance, in reward units.
        cost: Whose loss counts when the size is given.
        users: `[users, objectives]`, who a mean is over; `None` takes a lattice.
    """

    size: int | None = None
    epsilon: float = 0.0
    delta: float = 0.0
    cost: Cost = field(default_factory=Cost)
    users: Float[ndarray, "users objectives"] | None = None

    def __post_init__(self) -> None:
        """Refuse a wish for nothing or for both."""
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


def choose(payoffs: Payoffs, *, wish: Wish, terms: Terms, report: Payoffs | None = None) -> Record:
    """The portfolio that a table and a wish lead to, certified.

    Where shares of the best value are not defined, members are chosen by the additive gap, and the
    selection says so. For the worst case, a portfolio is never certified worse, by the gap it was
    chosen by, than the smaller portfolios that `choose` gives for the same table and terms.

    Args:
        payoffs: What members are chosen on.
        wish: What is wanted.
        terms: What is assumed.
        report: What the certificate is computed on; `None` takes `payoffs`.

    Raises:
        InvalidInputError: the table is not usable, more members are wanted than there are, or the
            tables' policies differ.
        NotCertifiedError: no policy keeps the floor, or the table does not reach the tolerance.
    """
    require_payoffs(payoffs)
    moved = shifted(payoffs, terms.offset)
    comparison = compare(moved, terms)
    kept = admissible(
        payoffs, lower=comparison.lower - comparison.level - terms.offset, terms=terms
    )
    if wish.size is not None:
        require_size(wish.size, n_policies=len(kept))
    target = payoffs if report is None else _matching(report, payoffs=payoffs)
    judge = _judge(target, names=[payoffs.table.policies[k] for k in kept], terms=terms)
    candidates = Candidates(comparison, tuple(kept), judge)
    chosen, criterion, notes = _chosen(candidates, wish=wish, terms=terms)
    names = [payoffs.table.policies[kept[member]] for member in chosen.members]
    indices = [target.table.policies.index(name) for name in names]
    selection = {
        **_selection(wish, chosen=chosen, is_split=report is not None),
        "criterion": criterion,
        "notes": list(notes),
    }
    return Record(
        payoffs=target,
        members=tuple(names),
        refused=tuple(
            name for index, name in enumerate(payoffs.table.policies) if index not in kept
        ),
        terms=terms,
        selection=selection,
        certified=certify(target, members=indices, terms=terms),
    )


def _chosen(
    candidates: Candidates, *, wish: Wish, terms: Terms
) -> tuple[Chosen, Criterion, tuple[str, ...]]:
    """Members, the gap they were chosen by, and what has to be said of that."""
    if wish.size is None:
        stakes = candidates.stakes("additive")
        lowest = min(0.0, least_best_value(stakes.rows)) if wish.epsilon > 0.0 else 0.0
        delta = wish.delta - wish.epsilon * lowest
        notes = (BELOW_ZERO.format(lowest),) if lowest < 0.0 else ()
        return fewest_members(stakes, epsilon=wish.epsilon, delta=delta), terms.criterion, notes
    if terms.criterion == "additive":
        return _of_size(candidates, wish=wish, criterion="additive"), "additive", ()
    try:
        found = _of_size(candidates, wish=wish, criterion="multiplicative")
    except NotCertifiedError:
        return _of_size(candidates, wish=wish, criterion="additive"), "additive", (BY_AMOUNT,)
    return found, "multiplicative", ()


def _of_size(candidates: Candidates, *, wish: Wish, criterion: Criterion) -> Chosen:
    size = wish.size or 1
    if wish.cost.aim == "worst":
        return best_of_size(candidates, size=size, criterion=criterion)
    stakes = candidates.stakes(criterion)
    return best_members(stakes, size=size, cost=wish.cost, users=wish.users)


def _judge(target: Payoffs, *, names: Sequence[str], terms: Terms) -> Judge:
    """Certified loss on the target table of members that are counted among these names."""
    moved = shifted(target, terms.offset)
    comparison = compare(moved, terms)
    rows = [target.table.policies.index(name) for name in names]

    def loss(members: tuple[int, ...], criterion: Criterion) -> tuple[float, ...]:
        certificate = certify_compared(
            moved, members=[rows[member] for member in members], comparison=comparison
        ).certificate
        amount = np.inf if certificate.additive_gap is None else certificate.additive_gap
        if criterion == "additive":
            return (amount,)
        share = certificate.multiplicative_gap
        return (np.inf if share is None else share, amount)

    return loss


def _selection(wish: Wish, *, chosen: Chosen, is_split: bool) -> dict[str, Any]:
    is_least_known = wish.size is not None and np.isfinite(chosen.least_gap)
    return {
        "size": wish.size,
        "epsilon": wish.epsilon,
        "delta": wish.delta,
        "aim": wish.cost.aim,
        "blend_share": wish.cost.share if wish.cost.aim == "blend" else None,
        "gap_when_chosen": chosen.gap,
        "least_gap_of_this_size": chosen.least_gap if is_least_known else None,
        "chosen_on_other_prompts": is_split,
    }


def _matching(report: Payoffs, *, payoffs: Payoffs) -> Payoffs:
    """The report table, if it is about the same policies."""
    _require_same(report.table.objectives, payoffs.table.objectives, what="objectives")
    _require_same(sorted(report.table.policies), sorted(payoffs.table.policies), what="policies")
    if report.table.beta != payoffs.table.beta:
        raise InvalidInputError(
            f"The two tables have different beta ({payoffs.table.beta:g} and "
            f"{report.table.beta:g}); measure both with the same."
        )
    return report


def _require_same(found: Sequence[str], expected: Sequence[str], *, what: str) -> None:
    if list(found) != list(expected):
        raise InvalidInputError(
            f"The report table's {what} {list(found)} differ from the selection table's "
            f"{list(expected)}; measure the same ones."
        )
