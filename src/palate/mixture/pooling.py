"""From scores to shares, and from shares to the probability of a token.

    alpha_i   = softmax of the scores over the active experts; with a floor f for expert s
                (1 - f) * softmax + f * e_s
    pi(v)     = sum_i alpha_i p_i(v)
    gradient  = d log pi(v) / d score_i = alpha_i p_i(v) / pi(v) - alpha_i          (M1)

Everything is differentiable, in float32 or better. An expert that is not active has share zero
exactly, and its probabilities do not matter. The floor's expert need not be active.

Source: MoPE, arXiv 2407.04181 (probabilities are pooled, not logits); mope.md 4, M1, M7 and M10.

Deviations from the paper:
    1. The map from controller outputs to shares is unknown; ours is a masked softmax.
    2. The floor and the log-linear pool are ours.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palate.core.errors import InvalidInputError

ByExpert = Float[Tensor, "... experts"]
LOWEST_LOG_PROB = -50.0  # log-probabilities of experts are cut here, so that -inf never spreads


@dataclass(frozen=True)
class Floor:
    """A least share of one expert: `pi(v) >= share * p_expert(v)`; not a veto."""

    expert: int  # its place among the experts
    share: float  # in (0, 1)

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to one side."""
        if not 0.0 < self.share < 1.0 or self.expert < 0:
            raise InvalidInputError(
                f"The floor of {self.share} for expert {self.expert} is out of range; give a share "
                "strictly between 0 and 1."
            )


def log_softmax_over(scores: ByExpert, active: Bool[Tensor, "... experts"]) -> ByExpert:
    """Logarithms of the softmax over the active experts; minus infinity for the others.

    Raises:
        InvalidInputError: a row has no active expert, or a score is not finite.
    """
    if not bool(active.any(dim=-1).all()):
        raise InvalidInputError("No expert is active, so nothing can be mixed; request one.")
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if not bool(torch.isfinite(wide).all()):
        raise InvalidInputError("The controller's scores hold a value that is not finite.")
    return torch.log_softmax(wide.masked_fill(~active, -math.inf), dim=-1)


def shares_of(
    scores: ByExpert, active: Bool[Tensor, "... experts"], *, floor: Floor | None = None
) -> ByExpert:
    """`[..., experts]` on the simplex; zero for inactive experts but the floor's."""
    shares = log_softmax_over(scores, active).exp()
    if floor is None:
        return shares
    lifted = shares * (1.0 - floor.share)
    lifted[..., floor.expert] += floor.share
    return lifted


def token_log_probs(
    scores: ByExpert, expert_log_probs: ByExpert, active: Bool[Tensor, "... experts"]
) -> Float[Tensor, "..."]:
    """Log-probability of given tokens under the mixture, from one number per expert and token.

    `log pi(y_t) = logsumexp_i(log alpha_i + log p_i(y_t))`: the experts enter only through
    `p_i(y_t)`, so training keeps these and never runs the experts again (M7).

    Log-probabilities of inactive experts do not matter, others below `LOWEST_LOG_PROB` are lifted
    to it.
    """
    cut = expert_log_probs.clamp(min=LOWEST_LOG_PROB)
    return torch.logsumexp(log_softmax_over(scores, active) + cut, dim=-1)


def log_linear_log_probs(
    shares: ByExpert, token_log_probs: ByExpert, log_probs: Float[Tensor, "... experts vocab"]
) -> Float[Tensor, "..."]:
    """Log-probability of given tokens under the log-linear pool.

    `sum_i alpha_i log p_i(y_t) - log sum_v exp(sum_i alpha_i log p_i(v))`: the normaliser needs the
    whole distributions, so one number per expert and token is not enough here (M7).

    Shares are on the simplex.
    """
    pooled = torch.einsum("...n,...nv->...v", shares, log_probs)
    return (shares * token_log_probs).sum(dim=-1) - torch.logsumexp(pooled, dim=-1)
