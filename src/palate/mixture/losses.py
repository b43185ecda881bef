"""REBEL and PPO on the log-probabilities of sampled answers.

    REBEL = mean over pairs ( [log pi(y)/pi_old(y) - log pi(y')/pi_old(y')] - eta (R(y) - R(y')) )^2
    PPO   = -mean over tokens min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A)

At zero loss REBEL's policy is `pi_old exp(eta R)`, normalised: one step of mirror descent.

Source:
    REBEL: Gao et al. 2024, arXiv 2404.16767, and the public code ZhaolinGao/REBEL. PPO: Schulman et
    al. 2017, arXiv 1707.06347, equations 7 and 11, with advantages from arXiv 1506.02438. MoPE,
    arXiv 2407.04181, trains with either; mope.md 5.2 and M11.

Deviations from the papers:
    1. REBEL's published formula divides the log-ratio by eta; that loss is this one over eta^2.
    2. In PPO the reward comes with the last token of the answer; earlier tokens earn nothing but,
       if a price is set, the KL term.
    3. PPO's advantages are standardised over the tokens of an update, and not discounted.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PerToken = Float[Tensor, "answers tokens"]  # padded on the right
IsToken = Bool[Tensor, "answers tokens"]  # false for padding


def rebel_loss(
    log_ratios: Float[Tensor, "pairs two"], rewards: Float[Tensor, "pairs two"], *, eta: float
) -> Float[Tensor, ""]:
    """Mean squared residual of the pairs; it does not change when the sides are swapped.

    Log-ratios are `log pi(y) - log pi_old(y)` summed over tokens, in nats; `eta` is nats per unit
    of reward.
    """
    ratio_gap = log_ratios[:, 0] - log_ratios[:, 1]
    reward_gap = rewards[:, 0] - rewards[:, 1]
    return torch.mean((ratio_gap - eta * reward_gap) ** 2)


def regularised_reward(
    rewards: Float[Tensor, "..."],
    *,
    log_prob_old: Float[Tensor, "..."],
    log_prob_uniform: Float[Tensor, "..."],
    price: float,
) -> Float[Tensor, "..."]:
    """`R - price * (log pi_old - log pi_uniform)`: KL to the uniform mixture has a price.

    The fixed point is `pi_uniform exp(R / price)`, reached for `0 < eta * price < 2` (M11).

    Log-probabilities are those of whole answers under the policy that wrote them and under the
    uniform mixture of the same experts; the price is reward units per nat, zero or more.
    """
    return rewards - price * (log_prob_old - log_prob_uniform)


def advantages(
    token_rewards: PerToken, values: PerToken, mask: IsToken, *, smoothing: float
) -> PerToken:
    """Generalised advantages `sum_l smoothing^l delta_(t+l)`; zero where masked.

    `delta_t = r_t + V_(t+1) - V_t`, the value after the last token being zero.

    Values are the expected sum of rewards from before the token on; padding follows the tokens.
    `smoothing` is the paper's lambda: 1 is Monte Carlo, 0 one step.
    """
    result = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    running = torch.zeros_like(following)
    for place in range(values.shape[1] - 1, -1, -1):
        is_token = mask[:, place]
        delta = token_rewards[:, place] + following - values[:, place]
        running = torch.where(is_token, delta + smoothing * running, 0.0)
        result[:, place] = running
        following = torch.where(is_token, values[:, place], 0.0)
    return result


def standardised(values: PerToken, mask: IsToken) -> PerToken:
    """Mean zero and variance one over the tokens that count; zero elsewhere."""
    counted = values[mask]
    spread = counted.std(unbiased=False).clamp(min=1e-8)
    return torch.where(mask, (values - counted.mean()) / spread, 0.0)


def clipped_loss(
    log_ratios: PerToken, gains: PerToken, mask: IsToken, *, clip: float
) -> Float[Tensor, ""]:
    """PPO's clipped surrogate, averaged over the tokens that count.

    `log_ratios` are `log pi - log pi_old` in nats, `gains` the advantages A, `clip` is epsilon.
    """
    ratios = torch.where(mask, log_ratios, 0.0).exp()
    bounded = ratios.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratios * gains, bounded * gains)[mask].mean()


def value_loss(values: PerToken, returns: PerToken, mask: IsToken) -> Float[Tensor, ""]:
    """Half the mean squared error of the values over the tokens that count."""
    return 0.5 * ((values - returns) ** 2)[mask].mean()
