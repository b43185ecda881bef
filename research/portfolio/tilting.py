"""Tilting: what another preference's best policy would be worth, from one policy's answers.

The best policy for `w` is the best policy for `w0` with every answer's probability multiplied by
`exp((w - w0) @ r / beta)` and normalised per prompt. So answers drawn from one trained policy, with
their rewards, predict its neighbours without training them.

Sampled predictions of `J*` are biased low: they propose anchors, and never stand in a certificate.
They can be trusted while the effective sample size stays above some 30 %.

Source:
    palm.md P13.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import logsumexp

from palate.core.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Tilted:
    """A prediction for another preference.

    Attributes:
        best_value: Predicted `J*`, in reward units.
        reward: `[objectives]`, predicted mean reward of its best policy.
        effective_share: Mean over prompts of the effective number of answers over their number.
    """

    best_value: float
    reward: Float[ndarray, " objectives"]
    effective_share: float


def tilted(
    rewards: Float[ndarray, "prompts answers objectives"],
    *,
    probabilities: Float[ndarray, "prompts answers"],
    best_value: float,
    step: Float[ndarray, " objectives"],
    beta: float,
) -> Tilted:
    """The prediction for the preference `step` away.

    Args:
        rewards: `[prompts, answers, objectives]`, of answers of the policy for `w0`; prompts count
            alike.
        probabilities: `[prompts, answers]`, rows sum to one: `1 / n` each for draws, or the
            policy's own where all answers are listed.
        best_value: `J*` at `w0`, in reward units.
        step: `[objectives]`, `w - w0`; sums to zero.
        beta: Price of one nat of KL, positive.

    Raises:
        InvalidInputError: beta is not positive, or the step does not sum to zero.
    """
    if not beta > 0.0 or abs(float(step.sum())) > 1e-9:
        raise InvalidInputError(
            f"Tilting needs beta > 0 and a step that sums to zero, not {beta} and {step.tolist()}."
        )
    gain = rewards @ step / beta
    partition = np.asarray(logsumexp(gain, b=probabilities, axis=1))
    tilt = probabilities * np.exp(gain - partition[:, None])
    ratio = tilt / np.where(probabilities > 0.0, probabilities, 1.0)
    effective = 1.0 / np.sum(tilt * ratio, axis=1)
    return Tilted(
        best_value=best_value + beta * float(partition.mean()),
        reward=np.einsum("xy,xyi->i", tilt, rewards) / len(rewards),
        effective_share=float(effective.mean()),
    )
