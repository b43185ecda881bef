"""Pooling under control: scores to shares, shares and experts to one distribution, and back.

    share_i   = softmax of the scores over the active experts; with a floor f for expert s
                (1 - f) * softmax + f * e_s
    pi(v)     = sum_i share_i p_i(v)
    rho_i     = share_i p_i(v) / pi(v)                          who wrote token v
    gradient  = d log pi(v) / d score_i = rho_i - share_i       (M1; zero for masked experts)

Everything is differentiable, in float32 or better. An expert that is not active has share zero
exactly, and nothing about its probabilities is read. The floor's expert need not be active.

Source:
    MoPE, arXiv 2407.04181 (probabilities are pooled, not logits); methods mope 4 and M1, M10.

Deviations from the paper:
    1. The map from controller outputs to shares is unknown; ours is a masked softmax.
    2. The floor is ours.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palate.core.errors import InvalidInputError

LOWEST_LOG_PROB = -50.0  # log-probabilities of experts are cut here, so that -inf never spreads


@dataclass(frozen=True)
class Floor:
    """An expert that always has a say: `pi(v) >= share * p_expert(v)`; not a veto.

    Attributes:
        expert: Its place among the experts.
        share: Least share, in (0, 1).
    """

    expert: int
    share: float

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to one side."""
        if not 0.0 < self.share < 1.0 or self.expert < 0:
            raise InvalidInputError(
                f"The floor of {self.share} for expert {self.expert} is out of range; give a share "
                "strictly between 0 and 1."
            )


def log_softmax_over(
    scores: Float[Tensor, "... experts"], active: Bool[Tensor, "... experts"]
) -> Float[Tensor, "... experts"]:
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
    scores: Float[Tensor, "... experts"],
    active: Bool[Tensor, "... experts"],
    *,
    floor: Floor | None = None,
) -> Float[Tensor, "... experts"]:
    """`[..., experts]` on the simplex; zero for inactive experts but the floor's."""
    shares = log_softmax_over(scores, active).exp()
    if floor is None:
        return shares
    lifted = shares * (1.0 - floor.share)
    lifted[..., floor.expert] += floor.share
    return lifted


def token_log_probs(
    scores: Float[Tensor, "... experts"],
    expert_log_probs: Float[Tensor, "... experts"],
    active: Bool[Tensor, "... experts"],
    *,
    floor: Floor | None = None,
) -> Float[Tensor, "..."]:
    """Log-probability of given tokens under the mixture, from one number per expert and token.

    `log pi(y_t) = logsumexp_i(log share_i + log p_i(y_t))`: the experts enter only through
    `p_i(y_t)`, so training can keep these and never run the experts again (M7).

    Args:
        scores: `[..., experts]`, the controller's.
        expert_log_probs: `[..., experts]`, `log p_i(y_t)`; entries of inactive experts are not
            read, and entries below `LOWEST_LOG_PROB` are lifted to it.
        active: `[..., experts]`.
        floor: A least share of one expert.

    Source:
        methods mope 5.2, M7, M10.
    """
    cut = expert_log_probs.clamp(min=LOWEST_LOG_PROB)
    mixed = torch.logsumexp(log_softmax_over(scores, active) + cut, dim=-1)
    if floor is None:
        return mixed
    lifted = cut[..., floor.expert] + math.log(floor.share)
    return torch.logaddexp(mixed + math.log1p(-floor.share), lifted)


def log_linear_log_probs(
    shares: Float[Tensor, "... experts"],
    token_log_probs: Float[Tensor, "... experts"],
    log_probs: Float[Tensor, "... experts vocab"],
) -> Float[Tensor, "..."]:
    """Log-probability of given tokens under the log-linear pool.

    `sum_i share_i log p_i(y_t) - log sum_v exp(sum_i share_i log p_i(v))`: the normaliser needs the
    whole distributions, so one number per expert and token is not enough here (M7).

    Args:
        shares: `[..., experts]`, on the simplex.
        token_log_probs: `[..., experts]`, `log p_i(y_t)`.
        log_probs: `[..., experts, vocab]`.
    """
    pooled = torch.einsum("...n,...nv->...v", shares, log_probs)
    return (shares * token_log_probs).sum(dim=-1) - torch.logsumexp(pooled, dim=-1)


def mixture(
    shares: Float[Tensor, "... experts"], probs: Float[Tensor, "... experts vocab"]
) -> Float[Tensor, "... vocab"]:
    """`sum_i share_i p_i(v)`; experts of share zero do not count even where they are not finite."""
    used = torch.where((shares > 0).unsqueeze(-1), probs, 0.0)
    return torch.einsum("...n,...nv->...v", shares, used)


def responsibilities(
    shares: Float[Tensor, "... experts"], token_probs: Float[Tensor, "... experts"]
) -> Float[Tensor, "... experts"]:
    """Posterior probability of each expert having written the token: `share_i p_i / pi`.

    Args:
        shares: `[..., experts]`, on the simplex.
        token_probs: `[..., experts]`, `p_i` of the token that was drawn.

    Raises:
        InvalidInputError: a token has probability zero under the mixture.
    """
    joint = torch.where(shares > 0, shares * token_probs, 0.0)
    total = joint.sum(dim=-1, keepdim=True)
    if bool((total <= 0).any()):
        raise InvalidInputError(
            "A token has probability zero under the mixture, so nobody can have written it."
        )
    return joint / total


def score_gradient(
    scores: Float[Tensor, "... experts"],
    token_probs: Float[Tensor, "... experts"],
    active: Bool[Tensor, "... experts"],
    *,
    floor: Floor | None = None,
) -> Float[Tensor, "... experts"]:
    """`d log pi(y_t) / d score` in closed form.

    Without a floor `rho - share`; with one `(1 - f) a_j (p_j - m) / pi`, where `a` is the softmax
    and `m` the mixture without the floor.

    Source:
        methods mope M1.
    """
    soft = shares_of(scores, active)
    probs = torch.where(active, token_probs, 0.0)
    plain = (soft * probs).sum(dim=-1, keepdim=True)
    if floor is None:
        return soft * (probs - plain) / plain
    total = (1.0 - floor.share) * plain + floor.share * token_probs[..., [floor.expert]]
    return (1.0 - floor.share) * soft * (probs - plain) / total


def entropy(shares: Float[Tensor, "... experts"]) -> Float[Tensor, "..."]:
    """Entropy in nats of points of the simplex; zero shares contribute nothing."""
    return torch.special.entr(shares).sum(dim=-1)
