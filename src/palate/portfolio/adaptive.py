"""Adaptive search: which policy to make next, and when everybody is served.

Every policy made raises the lower envelope of what is available and lowers the ceiling on what
could be. The next policy is made for the preference where the two are furthest apart, which is a
corner preference; the distance there bounds what anybody can lose, and it never grows.

Choices beyond the specification:
    1. The distance can be measured as a share of the ceiling, when a multiplicative tolerance is
       asked for.
    2. With a tolerance, the next policy is made beside the corner where that is foreseen to need
       fewer policies in all; see `palate.portfolio.division`. With tolerance zero the corner
       preference itself is next.

Source:
    palm.md 3.2 and P4; selection rule: optimistic linear support, Roijers et al. 2015.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.portfolio.bounds import Bounds, value_bounds
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.division import even_cut, lattice_anchor, lattice_denominator_for
from palate.portfolio.everybody import Criterion, Stakes
from palate.portfolio.oracle import Ledger, Oracle
from palate.portfolio.payoffs import Payoffs

LAST_PLAN = 64  # policies; beyond, the lattice foreseen so far is kept
VISITED_DISTANCE = 1e-6  # L1; nearer than this is the same preference

StopReason = Literal["tolerance", "calls", "visited", "noise"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """When to stop, and how a loss is measured.

    Attributes:
        tolerance: Stop when nobody can lose more, by the criterion.
        max_calls: Most policies to make; at least one per objective.
        slack: How far from optimal a policy may be for its own preference, in reward units.
        confidence: With which sampled values are bounded.
        criterion: Losses in reward units, or as a share of the best value.
    """

    tolerance: float = 0.02
    max_calls: int = 14
    slack: float = 0.0
    confidence: float = 0.95
    criterion: Criterion = "additive"


@dataclass(frozen=True, eq=False)
class Proposal:
    """What the search knows after its last policy.

    Attributes:
        payoffs: Of every policy made so far, in the order made.
        gap: Proven bound on what anybody loses with all of them, by the criterion.
        preference: `[objectives]`, whom to make a policy for next: where the bound is attained, or
            a better cut beside it.
        noise: Largest width of a bounded value; below twice this, more policies prove nothing.
        stop: Why no further policy is worth making, or `None`.
    """

    payoffs: Payoffs
    gap: float
    preference: Float[ndarray, " objectives"]
    noise: float
    stop: StopReason | None


def search(oracle: Oracle, settings: SearchSettings) -> Proposal:
    """The last state of `steps`."""
    states = steps(oracle, settings)
    state = next(states)
    for later in states:
        state = later
    return state


def steps(oracle: Oracle, settings: SearchSettings) -> Iterator[Proposal]:
    """Make policies one by one; yields after the unit vectors and after every further policy.

    Raises:
        InvalidInputError: a setting out of range.
    """
    n_objectives = len(oracle.objectives)
    _require_settings(settings, n_objectives=n_objectives)
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
    """What a table of policies, each with its preference, says to do next.

    Args:
        payoffs: The table, every unit vector among the preferences.
        settings: When to stop.
        denominator: Of the lattice that the search keeps to, or `None`.
    """
    bounds = value_bounds(payoffs, confidence=settings.confidence)
    stakes = search_stakes(payoffs, bounds=bounds, settings=settings)
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


def search_stakes(payoffs: Payoffs, *, bounds: Bounds, settings: SearchSettings) -> Stakes:
    """Lower bounds of all policies against the ceiling that their preferences give.

    Raises:
        NotCertifiedError: no policy was made for some unit vector.
    """
    visited = payoffs.table.preferences
    upper = np.sum(visited * bounds.upper, axis=1) + settings.slack
    return Stakes(
        values=bounds.lower,
        rows=ceiling_rows(preferences=visited, upper_values=upper),
        criterion=settings.criterion,
    )


def _stop_reason(
    payoffs: Payoffs,
    *,
    gap: float,
    at: Float[ndarray, " objectives"],
    noise: float,
    settings: SearchSettings,
) -> StopReason | None:
    distances = np.abs(payoffs.table.preferences - at).sum(axis=1)
    reasons: dict[StopReason, bool] = {
        "tolerance": gap <= settings.tolerance,
        "calls": payoffs.n_policies >= settings.max_calls,
        "visited": bool(distances.min() <= VISITED_DISTANCE),
        "noise": noise > 0.0 and gap < 2.0 * noise,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _require_settings(settings: SearchSettings, *, n_objectives: int) -> None:
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
