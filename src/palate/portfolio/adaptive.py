"""Adaptive search: which policy to make next, and when every user is served.

Every policy raises the lower envelope `L(w) = max_k w @ V_k` and lowers the ceiling `U(w)` on the
best value. The next policy is made for the preference where `U - L` is largest, a corner
preference; the distance there bounds what any user can lose, and it never grows.

An oracle may train an adapter, pool several experts log-linearly, average parameters, or solve a
small problem exactly. All policies of a table are measured on the same prompts, so their errors are
paired. An oracle that has the policy already returns its name at once, which is how an interrupted
search resumes.

Choices beyond the specification:
    1. The distance can be measured as a share of the ceiling, for a multiplicative tolerance.
    2. With a tolerance, the next policy is made beside the corner where that is predicted to need
       fewer policies in all; see `palate.portfolio.division`. With tolerance zero the corner
       preference itself is next.

Source: palm.md 3.2 and P4; selection rule: optimistic linear support, Roijers et al. 2015.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from palate.core.errors import InvalidInputError
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.division import even_cut, lattice_anchor, lattice_denominator_for
from palate.portfolio.everybody import Criterion, Stakes
from palate.portfolio.payoffs import Payoffs, value_bounds
from palate.portfolio.shapes import ByObjective


class Oracle(Protocol):
    """Makes policies and prices them."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the order of a preference's shares."""
        ...

    def policy(self, preference: ByObjective) -> str:
        """Name of the policy for this preference; the same preference gives the same name."""
        ...

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """What these policies are worth, measured together; preferences filled in."""
        ...


@dataclass
class Ledger:
    """An oracle with a record of its calls; a repeated preference is no new call."""

    oracle: Oracle
    calls: list[tuple[float, ...]] = field(default_factory=list)  # preferences, each once
    names: list[str] = field(default_factory=list)  # their policies

    @property
    def objectives(self) -> tuple[str, ...]:
        """The oracle's objectives."""
        return self.oracle.objectives

    def policy(self, preference: ByObjective) -> str:
        """The oracle's policy for a preference."""
        key = tuple(float(share) for share in np.round(preference, 12))
        if key in self.calls:
            return self.names[self.calls.index(key)]
        name = self.oracle.policy(preference)
        self.calls.append(key)
        self.names.append(name)
        return name

    def payoffs(self, policies: Sequence[str] | None = None) -> Payoffs:
        """The oracle's payoffs for these policies, or for all recorded ones."""
        return self.oracle.payoffs(self.names if policies is None else policies)


LAST_PLAN = 64  # policies; beyond, the lattice predicted so far stays
VISITED_DISTANCE = 1e-6  # L1; nearer than this is the same preference

StopReason = Literal["tolerance", "calls", "visited", "noise"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """When to stop, and how a loss is measured."""

    tolerance: float = 0.02  # stop when no user can lose more, by the criterion
    max_calls: int = 14  # most policies; at least one per objective
    slack: float = 0.0  # how far from optimal a policy may be for its own preference, reward units
    confidence: float = 0.95  # of the bounds on sampled values
    criterion: Criterion = "additive"  # or a share of the best value


@dataclass(frozen=True, eq=False)
class Proposal:
    """What the search knows after its last policy."""

    payoffs: Payoffs  # of every policy so far, in order
    gap: float  # proven bound on every user's loss with all of them, by the criterion
    preference: ByObjective  # of the next policy
    noise: float  # largest half-width of a value; below twice this, more policies prove nothing
    stop: StopReason | None  # why no further policy is worth making


def steps(oracle: Oracle, settings: SearchSettings) -> Iterator[Proposal]:
    """Make policies one by one; yields after the unit vectors and after every further policy.

    Raises:
        InvalidInputError: a setting out of range.
    """
    n_objectives = len(oracle.objectives)
    if settings.tolerance < 0.0 or settings.slack < 0.0:
        raise InvalidInputError(
            f"The tolerance {settings.tolerance} and the slack {settings.slack} must be zero or "
            "more."
        )
    if settings.max_calls < n_objectives:
        raise InvalidInputError(
            f"max_calls={settings.max_calls} is below the {n_objectives} objectives; every "
            "objective alone needs a policy before anything can be certified."
        )
    ledger = Ledger(oracle)
    for unit in np.eye(n_objectives):
        ledger.policy(unit)
    denominator: int | None = None
    next_plan = n_objectives + 1
    while True:
        payoffs = ledger.payoffs()
        if n_objectives > 2 and settings.tolerance > 0.0 and payoffs.n_policies >= next_plan:
            denominator = lattice_denominator_for(
                payoffs.table,
                tolerance=settings.tolerance,
                criterion=settings.criterion,
                max_policies=settings.max_calls,
            )
            next_plan = 2 * payoffs.n_policies if payoffs.n_policies < LAST_PLAN else np.inf
        state = proposal(payoffs, settings, denominator=denominator)
        yield state
        if state.stop is not None:
            return
        ledger.policy(state.preference)


def proposal(
    payoffs: Payoffs, settings: SearchSettings, *, denominator: int | None = None
) -> Proposal:
    """The search's next step for a table of policies, each with its preference.

    Every unit vector is among the preferences. With a denominator, next ones are of that lattice.

    Raises:
        NotCertifiedError: no policy was made for some unit vector.
    """
    bounds = value_bounds(payoffs, confidence=settings.confidence)
    visited = payoffs.table.preferences
    upper = np.sum(visited * bounds.upper, axis=1) + settings.slack
    rows = ceiling_rows(preferences=visited, upper_values=upper)
    stakes = Stakes(values=bounds.lower, rows=rows, criterion=settings.criterion)
    gap = stakes.gap(list(range(payoffs.n_policies)))
    noise = float(np.max(bounds.upper - bounds.lower)) / 2.0
    at = gap.preference
    if 0.0 < settings.tolerance < gap.value:
        if payoffs.n_objectives == 2:
            at = even_cut(payoffs.table, at=at, gap=gap.value, tolerance=settings.tolerance)
        elif denominator is not None:
            at = lattice_anchor(payoffs.table, at=at, denominator=denominator)
    return Proposal(
        payoffs=payoffs,
        gap=gap.value,
        preference=at,
        noise=noise,
        stop=_stop_reason(payoffs, gap=gap.value, at=at, noise=noise, settings=settings),
    )


def _stop_reason(
    payoffs: Payoffs, *, gap: float, at: ByObjective, noise: float, settings: SearchSettings
) -> StopReason | None:
    distances = np.abs(payoffs.table.preferences - at).sum(axis=1)
    reasons: dict[StopReason, bool] = {
        "tolerance": gap <= settings.tolerance,
        "calls": payoffs.n_policies >= settings.max_calls,
        "visited": bool(distances.min() <= VISITED_DISTANCE),
        "noise": noise > 0.0 and gap < 2.0 * noise,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
