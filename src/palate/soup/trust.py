"""The trust region: a soup may leave the reference only so far.

With few comparisons a fit can point anywhere; shrinking it along its ray until the mean KL per
token is within a budget protects the users whose fit is worst. Along `t -> t lambda` the KL of a
state grows with `d KL / dt = t Var_t(tilt_lambda) >= 0` (S8), so bisection finds the scale.

With a safety floor one expert's coefficient is fixed, the rest is shrunk, and KL is measured to the
reference tilted by the safety expert alone; to the reference itself it need not be monotone there.

Source: ours, an extension of Spectral Souping, arXiv 2605.20408.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import lsq_linear

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.soup.states import (
    ByExpert,
    Coefficients,
    States,
    kl_divergence,
    log_softmax,
    require_coefficients,
)

BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Trusted:
    """Coefficients inside the trust region."""

    coefficients: ByExpert  # `[experts]`, scaled
    scale: float  # in [0, largest allowed]; the largest when the region was not reached
    kl: float  # mean KL per token in nats, at the scaled coefficients
    kl_before: float  # at the coefficients given


def trust_region(
    coefficients: Coefficients,
    states: States,
    *,
    budget: float,
    state_shares: Float[np.ndarray, " states"] | None = None,
    floor: tuple[int, float] | None = None,
    largest_scale: float = 1.0,
) -> Trusted:
    """The coefficients, scaled along their ray until the mean KL per token is within the budget.

    With `largest_scale` above one they are also enlarged, up to that, while the budget lasts: a
    mode of few comparisons is short because it is unsure of the direction, and of all policies
    within the budget the one along the believed direction has the largest believed reward. The mean
    is over the states given, such as the last few hundred of the conversation; other states may
    have more.

    The budget is in nats per token; states count equally by default. `floor` is index and
    coefficient of a safety expert that feedback cannot lower: its coefficient becomes at least
    this, what is above is shrunk like the rest.

    Returns:
        With `kl <= budget`.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert, or the floor names none.
        InvalidInputError: the budget or the largest scale is not positive, or there are no states.
    """
    n_experts = states.tilts.shape[2]
    wanted = require_coefficients(coefficients, n_experts=n_experts)
    if not (budget > 0 and largest_scale > 0) or not len(states.reference):
        raise InvalidInputError(
            f"A budget of {budget} nats and a largest scale of {largest_scale} over "
            f"{len(states.reference)} states are no trust region; use numbers above 0 and at "
            "least one state."
        )
    fixed = _fixed_part(floor, n_experts=n_experts)
    if floor is not None:
        wanted = np.where(np.arange(n_experts) == floor[0], np.maximum(wanted, fixed), wanted)
    free = wanted - fixed
    base = log_softmax(states.reference + states.tilts @ fixed)
    tilt = states.tilts @ free
    n_states = len(states.reference)
    shares = np.full(n_states, 1 / n_states) if state_shares is None else state_shares

    def kl(scale: float) -> float:
        return float(shares @ kl_divergence(log_softmax(base + scale * tilt), base))

    kl_before = kl(1.0)
    is_within = kl(largest_scale) <= budget
    scale = largest_scale if is_within else _bisect(kl, budget=budget, high=largest_scale)
    return Trusted(fixed + scale * free, scale, kl(scale), kl_before)


def mode_within(belief: Belief, least: float | None, most: float | None) -> ByExpert:
    """The most probable coefficients between two bounds, by bounded least squares.

    With precision `R'R` the density falls with `|R (m - mean)|`. `None` is no bound.
    """
    low, high = -np.inf if least is None else least, np.inf if most is None else most
    if np.all((belief.mean >= low) & (belief.mean <= high)):
        return belief.mean
    root = np.linalg.inv(np.linalg.cholesky(belief.covariance))
    mode = lsq_linear(root, root @ belief.mean, bounds=(low, high), method="bvls", tol=1e-12)
    return np.clip(mode.x, low, high)  # the solver oversteps by rounding


def headroom(coefficients: ByExpert, least: float | None, most: float | None) -> float:
    """How many times the coefficients may be enlarged before one leaves the bounds."""
    bounds = np.where(coefficients > 0, np.inf if most is None else most, np.inf)
    bounds = np.where(coefficients < 0, -np.inf if least is None else least, bounds)
    inside = coefficients != 0
    return float(np.min(bounds[inside] / coefficients[inside], initial=np.inf))


def expert_kls(states: States) -> ByExpert:
    """Mean KL per token of each expert itself, nats: how far from the reference experts go."""
    experts = range(states.tilts.shape[2])
    kls = [
        kl_divergence(log_softmax(states.reference + states.tilts[:, :, k]), states.reference)
        for k in experts
    ]
    return np.mean(kls, axis=1)


def _bisect(kl: Callable[[float], float], *, budget: float, high: float) -> float:
    low = 0.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kl(middle) <= budget else (low, middle)
    return low


def _fixed_part(floor: tuple[int, float] | None, *, n_experts: int) -> ByExpert:
    fixed = np.zeros(n_experts)
    if floor is None:
        return fixed
    index, coefficient = floor
    if not 0 <= index < n_experts or not np.isfinite(coefficient):
        raise InvalidCoefficientsError(
            f"The floor of {coefficient} on expert {index} does not fit; name one of the experts 0 "
            f"to {n_experts - 1} and a finite coefficient."
        )
    fixed[index] = coefficient
    return fixed
