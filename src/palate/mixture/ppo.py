"""PPO on the mixture policy: clipped ratios per token, generalised advantages, a value head.

Source:
    Schulman et al. 2017, arXiv 1707.06347, equation 7 (clipped surrogate) and 11 (generalised
    advantages, from arXiv 1506.02438). MoPE (arXiv 2407.04181) names PPO as the alternative to
    REBEL.

Deviations from the paper:
    1. The reward comes with the last token of the answer; earlier tokens earn nothing but, if a
       price is set, the KL term.
    2. Advantages are standardised over the tokens of an update.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def advantages(
    token_rewards: Float[Tensor, "answers tokens"],
    values: Float[Tensor, "answers tokens"],
    mask: Bool[Tensor, "answers tokens"],
    *,
    discount: float = 1.0,
    smoothing: float = 0.95,
) -> Float[Tensor, "answers tokens"]:
    """Generalised advantages: `sum_l (discount * smoothing)^l delta_(t+l)`; zero where masked.

    `delta_t = r_t + discount * V_(t+1) - V_t`, the value after the last token being zero.

    Args:
        token_rewards: `[answers, tokens]`, earned by writing the token.
        values: `[answers, tokens]`, expected sum from before the token on.
        mask: `[answers, tokens]`, true for the answer's tokens; padding follows them.
        discount: Per token.
        smoothing: 1 is Monte Carlo, 0 one step; lambda in the paper.
    """
    found = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    running = torch.zeros_like(following)
    for place in range(values.shape[1] - 1, -1, -1):
        is_token = mask[:, place]
        delta = token_rewards[:, place] + discount * following - values[:, place]
        running = torch.where(is_token, delta + discount * smoothing * running, 0.0)
        found[:, place] = running
        following = torch.where(is_token, values[:, place], 0.0)
    return found


def standardised(
    values: Float[Tensor, "answers tokens"], mask: Bool[Tensor, "answers tokens"]
) -> Float[Tensor, "answers tokens"]:
    """Mean zero and variance one over the tokens that count; zero elsewhere."""
    counted = values[mask]
    spread = counted.std(unbiased=False).clamp(min=1e-8)
    return torch.where(mask, (values - counted.mean()) / spread, 0.0)


def clipped_loss(
    log_ratios: Float[Tensor, "answers tokens"],
    gains: Float[Tensor, "answers tokens"],
    mask: Bool[Tensor, "answers tokens"],
    *,
    clip: float,
) -> Float[Tensor, ""]:
    """`-mean_t min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)` over the tokens that count.

    Args:
        log_ratios: `[answers, tokens]`, `log pi - log pi_old` of each token.
        gains: `[answers, tokens]`, advantages, A in the paper.
        mask: Which tokens count.
        clip: Epsilon in the paper.
    """
    ratios = torch.where(mask, log_ratios, 0.0).exp()
    bounded = ratios.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratios * gains, bounded * gains)[mask].mean()


def value_loss(
    values: Float[Tensor, "answers tokens"],
    returns: Float[Tensor, "answers tokens"],
    mask: Bool[Tensor, "answers tokens"],
) -> Float[Tensor, ""]:
    """Half the mean squared error of the values over the tokens that count."""
    return 0.5 * ((values - returns) ** 2)[mask].mean()
