"""Slack: how far a policy is from the best there could be for its own preference, from its answers.

With several answers to each prompt, let `a = w @ r - beta log(pi / pi_0)`. An optimal policy has
the same `a` for every answer to a prompt, and

    J* - J(pi) = E_x { beta log E_y exp(a / beta) - E_y a } = E_x Var_y(a) / (2 beta) + ...

The variance form is estimated here, with the unbiased sample variance of each prompt's answers: the
mean of exponentials in the exact form is biased low when sampled (by half with two answers), the
variance form is exact where `a` is normal. The upper bound is the sum of

    1. a one-sided bound on the mean over prompts (prompts are the clusters), corrected for the
       skewness of squared differences, which a normal interval ignores; and
    2. the estimate once more, for higher orders: the bound is at least twice the estimate.

What no sample shows: answers that the policy hardly ever gives although they are worth much. For
policies far from optimal the bound therefore needs some hundred prompts.

Source:
    methods/README.md C9 and palm.md section 7 (twice the estimate, at least 1e-4); the correction
    for skewness: Johnson 1978, "Modified t tests and confidence intervals for asymmetrical
    populations".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import require_confidence
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.shapes import ByObjective

LEAST_SLACK = 1e-4  # reward units; palm.md section 7
TABLE_CONFIDENCE = 0.975  # of a table's slacks: half of what a certificate of 95 % may fail


@dataclass(frozen=True)
class SlackEstimate:
    """How far a policy is from optimal for one preference, in reward units."""

    estimate: float  # second-order estimate of `J* - J`
    standard_error: float  # over prompts
    upper: float  # confidence bound on `J* - J`; the module's text says what it cannot see


@dataclass(frozen=True, eq=False)
class Answers:
    """A policy's own answers: rewards, and how much likelier it gives them than the base."""

    rewards: Float[np.ndarray, "prompts answers objectives"]
    log_ratios: Float[np.ndarray, "prompts answers"]  # natural logarithm of `pi / pi_0`


def estimate_slack(
    answers: Answers, *, preference: ByObjective, beta: float, confidence: float = 0.95
) -> SlackEstimate:
    """How far the policy that gave these answers is from optimal for a preference.

    Answers are sampled at temperature one, independent for each prompt; `beta` is in reward units
    per nat; the confidence is that of the one-sided upper bound.

    Raises:
        InvalidInputError: fewer than two prompts or answers to each, shapes that do not fit, beta
            not positive, or a number that is not finite.
    """
    require_confidence(confidence)
    _require_answers(answers, n_objectives=len(preference), beta=beta)
    worth = answers.rewards @ preference - beta * answers.log_ratios  # [prompts, answers]
    if not np.all(np.isfinite(worth)):
        raise InvalidInputError("A reward or log-ratio of an answer is not finite; measure again.")
    slacks = worth.var(axis=1, ddof=1) / (2.0 * beta)
    estimate = float(slacks.mean())
    n_prompts, spread = len(slacks), float(slacks.std(ddof=1))
    quantile = float(student.ppf(confidence, n_prompts - 1))
    error = spread / np.sqrt(n_prompts)
    third = float(np.mean((slacks - estimate) ** 3))
    bend = third / spread**2 * (1.0 + 2.0 * quantile**2) / (6.0 * n_prompts) if spread else 0.0
    upper = 2.0 * estimate + quantile * error + max(0.0, bend)
    return SlackEstimate(estimate, float(error), float(max(upper, LEAST_SLACK)))


def with_slacks(
    payoffs: Payoffs, answers: Sequence[Answers | None], *, confidence: float = TABLE_CONFIDENCE
) -> Payoffs:
    """The table with an upper bound on the slack of every policy that has a preference and answers.

    Answers are `None` for policies that were not measured one by one. All bounds hold together with
    the confidence (a union bound).
    """
    require_confidence(confidence)
    table = payoffs.table
    known = {
        index: given
        for index, given in enumerate(answers)
        if given is not None and not np.any(np.isnan(table.preferences[index]))
    }
    if not known:
        return payoffs
    each = 1.0 - (1.0 - confidence) / len(known)
    slacks = np.full(payoffs.n_policies, np.nan)
    for index, given in known.items():
        preference = table.preferences[index]
        slacks[index] = estimate_slack(
            given, preference=preference, beta=table.beta, confidence=each
        ).upper
    return replace(payoffs, slacks=slacks, slack_confidence=confidence)


def _require_answers(answers: Answers, *, n_objectives: int, beta: float) -> None:
    shape = answers.log_ratios.shape
    if answers.rewards.shape != (*shape, n_objectives) or len(shape) != 2:
        raise InvalidInputError(
            f"The answers' rewards have shape {answers.rewards.shape} and their log-ratios "
            f"{shape}, for {n_objectives} objectives; give [prompts, answers, objectives] and "
            "[prompts, answers]."
        )
    if min(shape) < 2 or not beta > 0.0:
        raise InvalidInputError(
            f"{shape[0]} prompts with {shape[1]} answers each and beta={beta} give no slack; use "
            "two or more of both, and a beta above zero."
        )
