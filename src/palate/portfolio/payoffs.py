"""Payoffs: what every policy is worth on every objective, and how sure that is.

A policy is worth `V_i = R_i - beta KL` on objective `i`, and `w @ V` to a user with preference `w`.
All policies are measured on the same prompts, so standard errors are paired: of a policy's value
minus the average policy's. The error of that average is the level error. It shifts all policies
alike, moves no additive gap, and counts in multiplicative gaps and absolute heights only.

A selection picks the largest of many numbers, so bounds are widened until all of them hold together
(Bonferroni). A reward that was not measured is NaN: an interval over its whole range, never a zero.

Deviation from palm.md, P14: widths come from the spread over prompts and the normal quantile (which
needs some hundred prompts) instead of the rewards' range (Hoeffding), because KL has no range.

Source: PALM, arXiv 2604.04144; palm.md C1, P10, P14 and section 14.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.metrics.intervals import require_confidence
from palate.portfolio.shapes import ByObjective, PolicyValues

KL_TOLERANCE = 1e-6  # an estimate below minus this is no rounding


@dataclass(frozen=True, eq=False)
class Payoffs:
    """A payoff table and what else is known of its values, in reward units."""

    table: PayoffTable  # paired standard errors; a NaN value was not measured
    level_errors: ByObjective  # standard errors of what all policies share
    optimum_preferences: Float[np.ndarray, "optima objectives"]
    optimum_values: Float[np.ndarray, " optima"]  # upper bounds on every policy's value there
    reward_range: tuple[float, float] | None = None  # needed where a reward was not measured
    slacks: Float[np.ndarray, " policies"] | None = None
    """How far from optimal, at most, each policy is for its own preference; NaN where unknown."""
    slack_confidence: float = 1.0  # probability that all slacks hold; 1 takes them as given

    @property
    def n_policies(self) -> int:
        """How many policies the table holds."""
        return len(self.table.policies)

    @property
    def n_objectives(self) -> int:
        """How many objectives the table holds."""
        return len(self.table.objectives)


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of every policy on every prompt."""

    objectives: tuple[str, ...]
    policies: tuple[str, ...]  # all different
    rewards: Float[np.ndarray, "policies prompts objectives"]  # NaN where not defined
    kl: Float[np.ndarray, "policies prompts"]  # nats per answer to the reference
    beta: float  # reward units per nat
    preferences: PolicyValues = field(
        default_factory=lambda: np.zeros((0, 0))
    )  # that each was made for; NaN rows where unknown
    reward_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shape = (len(self.policies), self.kl.shape[-1], len(self.objectives))
        if self.rewards.shape != shape or self.kl.shape != shape[:2]:
            raise InvalidInputError(
                f"The rewards have shape {self.rewards.shape} and the KL {self.kl.shape}, but "
                f"{shape} and {shape[:2]} are needed; measure all policies on the same prompts."
            )
        if not np.all(np.isfinite(self.kl)) or np.any(np.isinf(self.rewards)):
            raise InvalidInputError("A measured KL or reward is not finite; measure it again.")
        low, high = self.reward_range
        if np.nanmin(self.rewards, initial=low) < low - KL_TOLERANCE or (
            np.nanmax(self.rewards, initial=high) > high + KL_TOLERANCE
        ):
            raise InvalidInputError(
                f"A reward lies outside {list(self.reward_range)}; calibrate rewards before "
                "policies are compared."
            )


def payoffs_from_measurements(measurements: Measurements) -> Payoffs:
    """The payoff table of what was measured, with paired standard errors.

    An objective is averaged over the prompts on which it is defined for every policy that has it
    at all, never over a set of prompts that depends on the policy.

    Raises:
        InvalidInputError: fewer than two prompts, or an objective no policy shares a prompt on.
    """
    n_policies, n_prompts, n_objectives = measurements.rewards.shape
    if n_prompts < 2:
        raise InvalidInputError(f"{n_prompts} prompts give no standard error; use two or more.")
    kl = measurements.kl.mean(axis=1)
    values = np.full((n_policies, n_objectives), np.nan)
    errors = np.zeros_like(values)
    levels = np.zeros(n_objectives)
    for objective in range(n_objectives):
        rewards = measurements.rewards[:, :, objective]
        is_measured = ~np.all(np.isnan(rewards), axis=1)
        if not np.any(is_measured):
            continue
        mean, influence = _mean_and_influence(
            rewards[is_measured], objective=measurements.objectives[objective]
        )
        drift = measurements.kl[is_measured] - kl[is_measured, None]
        influence = influence - measurements.beta * drift
        common = influence.mean(axis=0)
        values[is_measured, objective] = mean - measurements.beta * kl[is_measured]
        errors[is_measured, objective] = _standard_error(influence - common)
        levels[objective] = float(_standard_error(common[None, :])[0])
    table = PayoffTable(
        objectives=measurements.objectives,
        policies=measurements.policies,
        values=values,
        standard_errors=errors,
        beta=measurements.beta,
        kl=kl,
        preferences=measurements.preferences
        if measurements.preferences.size
        else np.full((n_policies, n_objectives), np.nan),
    )
    payoffs = Payoffs(
        table=table,
        level_errors=levels,
        optimum_preferences=np.zeros((0, n_objectives)),
        optimum_values=np.zeros(0),
        reward_range=measurements.reward_range,
    )
    require_payoffs(payoffs)
    return payoffs


def shifted(payoffs: Payoffs, offset: float) -> Payoffs:
    """Every value and optimum plus `offset`: moves multiplicative gaps only (palm.md P10)."""
    low_high = payoffs.reward_range
    return replace(
        payoffs,
        table=replace(payoffs.table, values=payoffs.table.values + offset),
        optimum_values=payoffs.optimum_values + offset,
        reward_range=low_high and (low_high[0] + offset, low_high[1] + offset),
    )


@dataclass(frozen=True, eq=False)
class Bounds:
    """Simultaneous bounds on the values of a table, up to a common shift of all policies."""

    lower: PolicyValues  # reward units
    upper: PolicyValues
    level: ByObjective  # half-width of the common shift
    confidence: float  # probability that all of them hold; one when nothing was sampled
    n_intervals: int  # sampled numbers that share the allowed failure probability


def value_bounds(payoffs: Payoffs, *, confidence: float) -> Bounds:
    """Bounds that hold together with this probability, in (0, 1).

    Raises:
        InvalidInputError: the confidence is out of range.
    """
    require_confidence(confidence)
    table = payoffs.table
    is_missing = np.isnan(table.values)
    errors = np.where(is_missing, 0.0, table.standard_errors)
    n_intervals = int(np.count_nonzero(errors) + np.count_nonzero(payoffs.level_errors))
    quantile = normal_quantile(confidence=confidence, n_intervals=n_intervals)
    level = quantile * payoffs.level_errors
    lower = table.values - quantile * errors
    upper = table.values + quantile * errors
    if np.any(is_missing):
        low, high = payoffs.reward_range or (0.0, 0.0)
        price = table.beta * table.kl[:, None]
        lower = np.where(is_missing, low - price - level, lower)
        upper = np.where(is_missing, high - price + level, upper)
    sure = confidence if n_intervals else 1.0
    return Bounds(lower, upper, level, sure, n_intervals)


def normal_quantile(*, confidence: float, n_intervals: int) -> float:
    """Half-width in standard errors at which so many two-sided intervals hold together."""
    return float(norm.isf((1.0 - confidence) / (2.0 * n_intervals))) if n_intervals else 0.0


def require_payoffs(payoffs: Payoffs) -> None:
    """Refuse a table that no decision can rest on.

    Raises:
        InvalidInputError: an empty table, duplicate names, a shape that does not fit, a number
            that is not finite or is negative where it cannot be, or a missing reward without
            range.
    """
    table = payoffs.table
    if not table.policies or not table.objectives:
        raise InvalidInputError(
            f"The payoff table is empty ({len(table.policies)} policies, {len(table.objectives)} "
            "objectives); give at least one of each."
        )
    _require_different(table.policies, what="policy")
    _require_different(table.objectives, what="objective")
    shape = (len(table.policies), len(table.objectives))
    if table.values.shape != shape or table.standard_errors.shape != shape:
        raise InvalidInputError(
            f"The values have shape {table.values.shape}, but {shape[0]} policies and {shape[1]} "
            "objectives need one value each."
        )
    _require_numbers(payoffs)
    is_missing = np.isnan(table.values)
    if np.any(is_missing) and (payoffs.reward_range is None or np.any(np.isnan(table.kl))):
        policy, objective = (int(index) for index in np.argwhere(is_missing)[0])
        raise InvalidInputError(
            f"The value of policy {table.policies[policy]!r} on {table.objectives[objective]!r} is "
            "missing; measure it, or give the range of rewards and every policy's KL so that it "
            "can stand as an interval."
        )


def _require_numbers(payoffs: Payoffs) -> None:
    table = payoffs.table
    slacks = np.zeros(payoffs.n_policies) if payoffs.slacks is None else payoffs.slacks
    rules = {
        "a value is not finite": not np.any(np.isinf(table.values)),
        "a standard error is negative or not finite": _is_non_negative(table.standard_errors),
        "a level error is negative or not finite": _is_non_negative(payoffs.level_errors),
        "beta is negative or not finite": _is_non_negative(np.array([table.beta])),
        "a KL is negative or not finite": not np.any(np.isinf(table.kl))
        and bool(np.all(table.kl[~np.isnan(table.kl)] >= -KL_TOLERANCE)),
        "an optimum is not finite": bool(np.all(np.isfinite(payoffs.optimum_values))),
        "the slacks are not one number of zero or more for each policy": slacks.shape
        == (payoffs.n_policies,)
        and _is_non_negative(slacks[~np.isnan(slacks)]),
        "the confidence of the slacks is not above 0 and at most 1": 0.0
        < payoffs.slack_confidence
        <= 1.0,
    }
    for problem, holds in rules.items():
        if not holds:
            raise InvalidInputError(f"In the payoff table {problem}; correct it or measure again.")


def _is_non_negative(numbers: Float[np.ndarray, "..."]) -> bool:
    return bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0.0))


def _require_different(names: Sequence[str], *, what: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidInputError(
                f"The {what} name {name!r} occurs twice; give every {what} its own name."
            )


def _mean_and_influence(
    rewards: Float[np.ndarray, "policies prompts"], *, objective: str
) -> tuple[Float[np.ndarray, " policies"], Float[np.ndarray, "policies prompts"]]:
    """Mean over the common prompts, and each prompt's pull on it (zero where not defined)."""
    is_common = ~np.any(np.isnan(rewards), axis=0)
    if not np.any(is_common):
        raise InvalidInputError(
            f"The policies share no prompt on which {objective!r} is defined; "
            "score all policies on the same prompts."
        )
    mean = rewards[:, is_common].mean(axis=1)
    influence = np.zeros_like(rewards)
    influence[:, is_common] = (rewards[:, is_common] - mean[:, None]) / is_common.mean()
    return mean, influence


def _standard_error(
    influence: Float[np.ndarray, "policies prompts"],
) -> Float[np.ndarray, " policies"]:
    return influence.std(axis=1, ddof=1) / np.sqrt(influence.shape[1])
