"""Payoffs: one table that prices every policy for every user.

A policy is worth `V_i = R_i - beta KL` on objective `i`, and `w @ V` to a user with preference
`w`. All policies are measured on the same prompts, so what a prompt does to all of them alike
cancels in every comparison. The standard errors kept here are of that paired kind: of a policy's
value minus the average policy's. What they leave out, the error of the average itself, is the
level error; it shifts everybody alike, moves no additive gap, and is counted in multiplicative
gaps only.

A reward that was not measured is NaN: an interval over its whole range, never a zero.

Deviation from palm.md, P14: widths come from the spread over prompts instead of the range of the
rewards (Hoeffding), because KL has no range; `palate.portfolio.bounds` has both.

Source:
    PALM, arXiv 2604.04144; palm.md C1, P10, P14 and section 14.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable

KL_TOLERANCE = 1e-6  # an estimate below minus this is no rounding


@dataclass(frozen=True, eq=False)
class Payoffs:
    """A payoff table and what else is known of its values.

    Attributes:
        table: Values with paired standard errors; a NaN value was not measured.
        level_errors: `[objectives]`, standard error of what all policies have in common.
        optimum_preferences: `[optima, objectives]`, where an upper bound on every policy is known.
        optimum_values: `[optima]`, these bounds, in reward units.
        reward_range: Smallest and largest reward, needed where one was not measured.
        slacks: `[policies]`, how far from optimal, at most, each policy is for the preference it
            was made for, in reward units; NaN where unknown, `None` where none is known.
        slack_confidence: Probability that all of these hold; one when they are taken as given.
    """

    table: PayoffTable
    level_errors: Float[ndarray, " objectives"]
    optimum_preferences: Float[ndarray, "optima objectives"]
    optimum_values: Float[ndarray, " optima"]
    reward_range: tuple[float, float] | None = None
    slacks: Float[ndarray, " policies"] | None = None
    slack_confidence: float = 1.0

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
    """What was measured of every policy on every prompt.

    Attributes:
        objectives: Names.
        policies: Names, all different.
        rewards: `[policies, prompts, objectives]`; NaN where an objective is not defined.
        kl: `[policies, prompts]`, nats per answer to the reference.
        beta: Price of one nat, in reward units.
        preferences: `[policies, objectives]`, what each was trained for; NaN rows where unknown.
        reward_range: Smallest and largest reward on the common scale.
    """

    objectives: tuple[str, ...]
    policies: tuple[str, ...]
    rewards: Float[ndarray, "policies prompts objectives"]
    kl: Float[ndarray, "policies prompts"]
    beta: float
    preferences: Float[ndarray, "policies objectives"] = field(
        default_factory=lambda: np.zeros((0, 0))
    )
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
    at all, never over a set of prompts that depends on the policy. The standard error of a policy
    is that of its value minus the average over policies, prompt by prompt.

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
        preferences=_preferences_or_nan(measurements),
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


def exact_payoffs(table: PayoffTable) -> Payoffs:
    """A table without level error, known optima or missing values."""
    n_objectives = len(table.objectives)
    payoffs = Payoffs(table, np.zeros(n_objectives), np.zeros((0, n_objectives)), np.zeros(0))
    require_payoffs(payoffs)
    return payoffs


def halves(
    measurements: Measurements, *, generator: np.random.Generator
) -> tuple[Measurements, Measurements]:
    """The prompts split at random: one half to select on, the other to report on."""
    n_prompts = measurements.kl.shape[1]
    order = generator.permutation(n_prompts)
    parts = (np.sort(order[: n_prompts // 2]), np.sort(order[n_prompts // 2 :]))
    first, second = (
        replace(measurements, rewards=measurements.rewards[:, part], kl=measurements.kl[:, part])
        for part in parts
    )
    return first, second


def subset(payoffs: Payoffs, policies: Sequence[int]) -> Payoffs:
    """The same knowledge of some of the policies, in the given order."""
    kept = list(policies)
    table = payoffs.table
    return replace(
        payoffs,
        table=replace(
            table,
            policies=tuple(table.policies[k] for k in kept),
            values=table.values[kept],
            standard_errors=table.standard_errors[kept],
            kl=table.kl[kept],
            preferences=table.preferences[kept],
        ),
        slacks=None if payoffs.slacks is None else payoffs.slacks[kept],
    )


def shifted(payoffs: Payoffs, offset: float) -> Payoffs:
    """Every value and optimum plus `offset`: moves multiplicative gaps only (palm.md P10)."""
    table = replace(payoffs.table, values=payoffs.table.values + offset)
    low_high = payoffs.reward_range and (
        payoffs.reward_range[0] + offset,
        payoffs.reward_range[1] + offset,
    )
    return replace(
        payoffs,
        table=table,
        optimum_values=payoffs.optimum_values + offset,
        reward_range=low_high,
    )


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


def _is_non_negative(numbers: Float[ndarray, "..."]) -> bool:
    return bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0.0))


def _require_different(names: Sequence[str], *, what: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidInputError(
                f"The {what} name {name!r} occurs twice; give every {what} its own name."
            )


def _mean_and_influence(
    rewards: Float[ndarray, "policies prompts"], *, objective: str
) -> tuple[Float[ndarray, " policies"], Float[ndarray, "policies prompts"]]:
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
    influence: Float[ndarray, "policies prompts"],
) -> Float[ndarray, " policies"]:
    return influence.std(axis=1, ddof=1) / np.sqrt(influence.shape[1])


def _preferences_or_nan(measurements: Measurements) -> Float[ndarray, "policies objectives"]:
    if measurements.preferences.size:
        return measurements.preferences
    return np.full((len(measurements.policies), len(measurements.objectives)), np.nan)
