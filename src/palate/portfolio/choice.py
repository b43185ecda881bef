"""Choice: from a payoff table and a wish to a certified portfolio.

Members are chosen by what they are worth at least, against what people could have at most or, when
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

from palate.core.errors import InvalidInputError
from palate.portfolio.certificate import certify
from palate.portfolio.everybody import Chosen, Stakes, best_members, fewest_members
from palate.portfolio.payoffs import Payoffs, require_payoffs, shifted
from palate.portfolio.record import Record
from palate.portfolio.selection import Cost, require_size
from palate.portfolio.terms import Terms, admissible, compare, require_non_negative


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What kind of portfolio is wanted: of a size, or for a tolerance.

    Attributes:
        size: Exactly so many members; `None` takes as few as the tolerance needs.
        epsilon: Multiplicative tolerance, in [0, 1).
        delta: Additive tolerance, in reward units.
        cost: Whose loss counts when the size is given.
        people: `[people, objectives]`, who a mean is over; `None` takes a lattice.
    """

    size: int | None = None
    epsilon: float = 0.0
    delta: float = 0.0
    cost: Cost = field(default_factory=Cost)
    people: Float[ndarray, "people objectives"] | None = None

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

    Args:
        payoffs: What members are chosen on.
        wish: What is wanted.
        terms: What is assumed.
        report: What the certificate is computed on; `None` takes `payoffs`.

    Raises:
        InvalidInputError: the table is not usable, more members are wanted than there are, a value
            is negative where a multiplicative gap is wanted, or the tables' policies differ.
        NotCertifiedError: no policy keeps the floor, or the table does not reach the tolerance.
    """
    require_payoffs(payoffs)
    moved = shifted(payoffs, terms.offset)
    if terms.criterion == "multiplicative" or wish.epsilon > 0.0:
        require_non_negative(moved)
    comparison = compare(moved, terms)
    kept = admissible(payoffs, lower=comparison.lower - terms.offset, terms=terms)
    if wish.size is not None:
        require_size(wish.size, n_policies=len(kept))
    estimates = (comparison.bounds.lower + comparison.bounds.upper) / 2.0
    stakes = Stakes(
        values=comparison.lower[kept],
        rows=estimates if comparison.ceiling is None else comparison.ceiling,
        criterion=terms.criterion,
    )
    chosen = _chosen(stakes, wish=wish)
    names = [payoffs.table.policies[kept[member]] for member in chosen.members]
    target = payoffs if report is None else _matching(report, payoffs=payoffs)
    indices = [target.table.policies.index(name) for name in names]
    return Record(
        payoffs=target,
        members=tuple(names),
        refused=tuple(
            name for index, name in enumerate(payoffs.table.policies) if index not in kept
        ),
        terms=terms,
        selection=_selection(wish, chosen=chosen, is_split=report is not None),
        certified=certify(target, members=indices, terms=terms),
    )


def _chosen(stakes: Stakes, *, wish: Wish) -> Chosen:
    if wish.size is None:
        return fewest_members(stakes, epsilon=wish.epsilon, delta=wish.delta)
    return best_members(stakes, size=wish.size, cost=wish.cost, people=wish.people)


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
