"""Terms: under which assumptions, and against what, a portfolio is certified.

*Worst-case*: against the best of all policies, whose value lies below a ceiling because optimum
values are listed, or because policies are assumed or were measured to be within a slack of optimal
for their own preferences. *Candidate-relative*: against the policies in the table only; a policy
outside the table may be better.

Source: palm.md section 2 (the two kinds), P4 (ceiling), P10 (offset), P14 (sampling), 14.4 (floor).
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError, NotCertifiedError, NotConvergedError
from palate.metrics.intervals import require_confidence
from palate.portfolio.ceiling import ceiling_rows, unit_row
from palate.portfolio.envelope import facet_bound
from palate.portfolio.everybody import Criterion
from palate.portfolio.payoffs import Bounds, Payoffs, value_bounds
from palate.portfolio.shapes import ByObjective, Heights, PolicyValues, RowValues, Visited

MAX_CEILING_FACETS = 300_000  # pieces of the upper bound; beyond, the unit vectors alone bound it
CONTRADICTION = 1e-9  # by which a policy may exceed a listed optimum before it is refused

Kind = Literal["worst-case", "candidate-relative"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is assumed and requested."""

    confidence: float = 0.95  # of the bounds on sampled values, in (0, 1)
    slack: float | Literal["listed"] | None = None
    """How far from optimal, at most, each policy is for the preference it was made for, in reward
    units; `listed` takes the table's own slacks where it has them, `None` assumes nothing."""
    offset: float = 0.0  # added to every reward before multiplicative gaps; moves no additive gap
    criterion: Criterion = "multiplicative"  # the gap that members are chosen by
    floor: tuple[str, float] | None = None  # an objective and a member's least value on it

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        require_confidence(self.confidence)
        if self.criterion not in get_args(Criterion):
            raise InvalidInputError(
                f"The gap {self.criterion!r} is unknown; use {' or '.join(get_args(Criterion))}."
            )
        if isinstance(self.slack, int):
            object.__setattr__(self, "slack", float(self.slack))
        if isinstance(self.slack, str) and self.slack != "listed":
            raise InvalidInputError(f"The slack {self.slack!r} is unknown; use a number or listed.")
        if isinstance(self.slack, float) and not 0.0 <= self.slack < np.inf:
            raise InvalidInputError(f"The slack {self.slack} is out of range; use zero or more.")
        if not np.isfinite(self.offset):
            raise InvalidInputError(f"The offset {self.offset} is not finite.")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What every policy is worth at least and what users could have instead at most."""

    kind: Kind
    bounds: Bounds
    lower: PolicyValues  # reward units, on the scale of the ceiling
    ceiling: RowValues | None  # on all policies; `None`: relative
    level: ByObjective  # absolute values lie lower by as much as this
    confidence: float  # probability that all of it holds
    caveats: tuple[str, ...]  # sentences on what the comparison rests on


def compare(payoffs: Payoffs, terms: Terms) -> Comparison:
    """Bounds and, where the data carry it, a ceiling on all policies.

    All numbers are on the scale of the table, up to the shift that all policies have in common. A
    height known in absolute units (a listed optimum, the range of rewards) lies on that scale only
    to within the shift's half-width, which is added to it.

    Raises:
        InvalidInputError: a listed optimum is below what a policy is worth there.
        NotCertifiedError: a slack is given but some objective alone has no policy.
    """
    slacks = _assumed_slacks(payoffs, terms)
    bounds = value_bounds(payoffs, confidence=terms.confidence + (1.0 - slacks.confidence))
    if len(payoffs.optimum_values):
        _require_consistent(payoffs, lower=bounds.lower - bounds.level)
    preferences, heights, caveats = _visited(payoffs, bounds=bounds, slacks=slacks)
    if not _spans(preferences) and not isinstance(terms.slack, float):
        if not np.all(np.isnan(slacks.values)):  # listed slacks that bound nothing everywhere
            return compare(payoffs, replace(terms, slack=None))
        confidence, rows = bounds.confidence, None
        relative = (
            f"Losses are relative to the {payoffs.n_policies} listed policies; "
            "a policy outside the list may be better."
        )
        caveats = (relative, *caveats)
    else:
        rows, simplified = _ceiling(preferences, heights)
        confidence = terms.confidence if bounds.n_intervals else slacks.confidence
        caveats += simplified
    return Comparison(
        kind="candidate-relative" if rows is None else "worst-case",
        bounds=bounds,
        lower=bounds.lower,
        ceiling=rows,
        level=bounds.level,
        confidence=confidence,
        caveats=caveats,
    )


def admissible(payoffs: Payoffs, *, lower: PolicyValues, terms: Terms) -> list[int]:
    """Policies that keep the floor even at the lower end of their interval.

    Raises:
        InvalidInputError: the floor's objective is unknown.
        NotCertifiedError: no policy keeps it.
    """
    if terms.floor is None:
        return list(range(payoffs.n_policies))
    name, least = terms.floor
    if name not in payoffs.table.objectives:
        raise InvalidInputError(
            f"The floor names the unknown objective {name!r}; known are "
            f"{', '.join(payoffs.table.objectives)}."
        )
    worth = lower[:, payoffs.table.objectives.index(name)]
    policies = [int(policy) for policy in np.flatnonzero(worth >= least)]
    if not policies:
        raise NotCertifiedError(
            f"No policy keeps {name} at {least} or above (the best is sure of {worth.max():.6g}); "
            "lower the floor or add policies."
        )
    return policies


@dataclass(frozen=True, eq=False)
class _Slacks:
    """How far from optimal policies are for their own preferences, and how sure that is."""

    values: Float[np.ndarray, " policies"]  # NaN where unknown
    confidence: float = 1.0
    caveats: tuple[str, ...] = ()


def _assumed_slacks(payoffs: Payoffs, terms: Terms) -> _Slacks:
    """The slack of every policy by the terms: assumed of all, listed in the table, or unknown."""
    unknown = np.full(payoffs.n_policies, np.nan)
    if terms.slack is None:
        return _Slacks(unknown)
    if isinstance(terms.slack, float):
        sentence = (
            f"Every policy is within {terms.slack:g} of the best possible for the preference it "
            "was made for."
        )
        return _Slacks(np.full(payoffs.n_policies, terms.slack), 1.0, (sentence,))
    if payoffs.slacks is None or np.all(np.isnan(payoffs.slacks)):
        return _Slacks(unknown)
    if payoffs.slack_confidence < 1.0 and payoffs.slack_confidence <= terms.confidence:
        sentence = (
            f"The table's slacks hold with confidence {payoffs.slack_confidence:g} only, so they "
            f"are not used at confidence {terms.confidence:g}."
        )
        return _Slacks(unknown, 1.0, (sentence,))
    sentence = (
        f"Policies are within the table's slacks (at most {np.nanmax(payoffs.slacks):.4g}) of the "
        "best possible for the preference they were made for; the slacks hold together with "
        f"probability {payoffs.slack_confidence:g}."
    )
    return _Slacks(payoffs.slacks, payoffs.slack_confidence, (sentence,))


def _visited(
    payoffs: Payoffs, *, bounds: Bounds, slacks: _Slacks
) -> tuple[Visited, Heights, tuple[str, ...]]:
    """Preferences with a bound on every policy, these bounds, and what they rest on."""
    preferences = payoffs.optimum_preferences
    heights = payoffs.optimum_values + preferences @ bounds.level
    caveats: tuple[str, ...] = ()
    if len(heights):
        caveats = ("No policy at all is worth more than the listed optima at their preferences.",)
    own = payoffs.table.preferences
    if not own.size:  # a table may leave out what its policies were made for
        own = np.full_like(payoffs.table.values, np.nan)
    known = ~np.any(np.isnan(own), axis=1) & ~np.isnan(slacks.values)
    bound = np.sum(own[known] * bounds.upper[known], axis=1) + slacks.values[known]
    preferences = np.vstack([preferences, own[known]])
    heights = np.concatenate([heights, bound])
    caveats += slacks.caveats
    if len(heights) and payoffs.reward_range is not None and not _spans(preferences):
        units = np.eye(payoffs.n_objectives)
        preferences = np.vstack([preferences, units])
        heights = np.concatenate([heights, payoffs.reward_range[1] + bounds.level])
        caveats += (f"No reward exceeds {payoffs.reward_range[1]:g}.",)
    return preferences, heights, caveats


def _spans(preferences: Visited) -> bool:
    return len(preferences) > 0 and bool(np.all(preferences.max(axis=0) > 1.0 - 1e-9))


def _ceiling(preferences: Visited, heights: Heights) -> tuple[RowValues, tuple[str, ...]]:
    n_objectives = preferences.shape[1]
    try:
        if facet_bound(n_members=len(heights), n_objectives=n_objectives) <= MAX_CEILING_FACETS:
            return ceiling_rows(preferences=preferences, upper_values=heights), ()
        reason = "its pieces are too many to list"
    except NotConvergedError as error:
        reason = str(error)
    row = unit_row(preferences=preferences, upper_values=heights)
    return row[None, :], (f"The ceiling uses the objectives alone, because {reason}",)


def _require_consistent(payoffs: Payoffs, *, lower: PolicyValues) -> None:
    worth = payoffs.optimum_preferences @ lower.T
    excess = worth.max(axis=1) - payoffs.optimum_values
    worst = int(np.argmax(excess))
    if excess[worst] > CONTRADICTION:
        policy = payoffs.table.policies[int(np.argmax(worth[worst]))]
        raise InvalidInputError(
            f"The listed optimum {payoffs.optimum_values[worst]:.6g} at preference "
            f"{payoffs.optimum_preferences[worst].tolist()} is below what policy {policy!r} is "
            f"worth there ({worth[worst].max():.6g}); an optimum bounds every policy from above."
        )
