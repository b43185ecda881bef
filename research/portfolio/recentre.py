"""Re-centring: each member moved to the middle of the users it serves.

A member made for one preference serves a cell of others. Its centre is the anchor whose policy
loses least to the worst placed user of the cell, or on average over its users. A policy is made
there and kept if the measured gap falls.

Deviations from palm.md 3.4:
    1. Losses are foreseen by a surrogate through the whole table instead of tilting one policy's
       answers, so no answers have to be kept; exact foresight can be passed instead.
    2. Whether a move helps is judged against the foreseen best value (or a made policy, where that
       is worth more), not against the proven ceiling: the ceiling is loose between policies, and
       hides what a move gains there.
    3. A move also helps when the worst placed user loses as much as before and the next worst
       loses less: the members around the worst cell may have to make room first.

Source:
    palm.md 3.4, P12 (for the average: Bregman k-means, Banerjee et al. 2005).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.simplex import lattice
from palate.portfolio.adaptive import Ledger, Oracle
from palate.portfolio.division import fit_surrogate
from palate.portfolio.envelope import best_values, corner_preferences
from palate.portfolio.everybody import Criterion
from palate.portfolio.payoffs import Payoffs
from research.portfolio.planned import DENOMINATORS

IMPROVEMENT = 1e-10  # losses nearer than this are equal, in reward units
TIE = 1e-9  # a corner belongs to every member within this of the best


class Foresight(Protocol):
    """Predicts value vectors of policies not made; `w @ values` is the best value `J*`."""

    def values(
        self, preferences: Float[ndarray, "anchors objectives"]
    ) -> Float[ndarray, "anchors objectives"]:
        """Value vectors of policies made for each preference."""
        ...


@dataclass(frozen=True, eq=False)
class Recentred:
    """Members after re-centring.

    Attributes:
        payoffs: Of every policy made, the old ones first.
        members: Indices of the members.
        gaps: The foreseen gap before and after every sweep, all by the last foresight.
    """

    payoffs: Payoffs
    members: tuple[int, ...]
    gaps: tuple[float, ...]


def recentred(
    oracle: Oracle,
    *,
    policies: Sequence[str],
    members: Sequence[int],
    n_sweeps: int = 2,
    criterion: Criterion = "additive",
    foresight: Foresight | None = None,
) -> Recentred:
    """Sweep over the members, moving each to the centre of its cell where that helps.

    Args:
        oracle: Makes and prices policies.
        policies: Every policy made so far, one for each unit vector among them.
        members: Indices of the members in `policies`.
        n_sweeps: Over all members; each costs up to one oracle call per member.
        criterion: How the gap is measured.
        foresight: Exact predictions; `None` fits a surrogate before every move.
    """
    ledger = Ledger(oracle, names=list(policies))
    ledger.calls = [
        tuple(np.round(row, 12).tolist()) for row in oracle.payoffs(policies).table.preferences
    ]
    chosen = list(members)
    history = [tuple(chosen)]
    for _ in range(n_sweeps):
        for position in range(len(chosen)):
            payoffs = ledger.payoffs()
            model = foresight if foresight is not None else fit_surrogate(payoffs.table)
            name = ledger.policy(centre(payoffs, members=chosen, position=position, model=model))
            moved = [*chosen[:position], ledger.names.index(name), *chosen[position + 1 :]]
            payoffs = ledger.payoffs()
            model = foresight if foresight is not None else fit_surrogate(payoffs.table)
            before, after = (
                foreseen_losses(payoffs, members=option, model=model, criterion=criterion)
                for option in (chosen, moved)
            )
            if _is_better(after, than=before):
                chosen = moved
        history.append(tuple(chosen))
    payoffs = ledger.payoffs()
    model = foresight if foresight is not None else fit_surrogate(payoffs.table)
    gaps = tuple(
        float(foreseen_losses(payoffs, members=portfolio, model=model, criterion=criterion)[0])
        for portfolio in history
    )
    return Recentred(payoffs, tuple(chosen), gaps)


def centre(
    payoffs: Payoffs, *, members: Sequence[int], position: int, model: Foresight
) -> Float[ndarray, " objectives"]:
    """The anchor that loses least, as foreseen, to the worst placed user of a member's cell."""
    values = payoffs.table.values[list(members)]
    corners = corner_preferences(values)
    ground = best_values(preferences=corners, values=values)
    cell = corners[corners @ values[position] >= ground - TIE]
    own = payoffs.table.preferences[members[position]]
    if not len(cell):
        return own
    n_objectives = values.shape[1]
    anchors = lattice(n_objectives=n_objectives, denominator=DENOMINATORS.get(n_objectives, 5))
    losses = _heights(model, cell)[:, None] - cell @ model.values(anchors).T
    return anchors[int(np.argmin(losses.max(axis=0)))]


def foreseen_losses(
    payoffs: Payoffs, *, members: Sequence[int], model: Foresight, criterion: Criterion
) -> Float[ndarray, " corners"]:
    """What users at the corner preferences lose as foreseen, most first; nothing is proven by it.

    The first entry is the foreseen gap.
    """
    values = payoffs.table.values
    corners = corner_preferences(values[list(members)])
    worth = corners @ values.T
    best = np.maximum(_heights(model, corners), worth.max(axis=1))
    losses = best - worth[:, list(members)].max(axis=1)
    if criterion == "multiplicative":
        losses = losses / np.maximum(best, 1e-300)
    return np.sort(losses)[::-1]


def _is_better(losses: Float[ndarray, " left"], *, than: Float[ndarray, " right"]) -> bool:
    """Whether the largest loss is smaller or, where those are equal, the next, and so on."""
    shared = min(len(losses), len(than))
    change = losses[:shared] - than[:shared]
    differs = np.flatnonzero(np.abs(change) > IMPROVEMENT)
    return bool(len(differs)) and bool(change[differs[0]] < 0.0)


def mean_centres(
    users: Float[ndarray, "users objectives"],
    *,
    values: Float[ndarray, "members objectives"],
    anchors: Float[ndarray, "members objectives"],
) -> Float[ndarray, "members objectives"]:
    """Each member's users' mean preference; a member nobody prefers keeps its anchor.

    The policy made there is the best single one for those users: value is linear in the
    preference, so their mean value of any policy is its value at their mean.

    Source:
        palm.md P12.
    """
    best = np.argmax(users @ values.T, axis=1)
    means = [
        users[best == member].mean(axis=0) if np.any(best == member) else anchors[member]
        for member in range(len(values))
    ]
    return np.array(means)


def _heights(
    model: Foresight, preferences: Float[ndarray, "users objectives"]
) -> Float[ndarray, " users"]:
    return np.sum(model.values(preferences) * preferences, axis=1)
