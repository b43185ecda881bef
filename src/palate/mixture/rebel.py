"""REBEL: regression of log-ratio differences on reward differences.

    loss = mean over pairs ( [log pi(y)/pi_old(y) - log pi(y')/pi_old(y')] - eta (R(y) - R(y')) )^2

At zero loss the new policy is `pi_old exp(eta R)`, normalised: one step of mirror descent.

Source:
    REBEL (Gao et al. 2024, arXiv 2404.16767), public code ZhaolinGao/REBEL; methods mope 5.2, M11.

Deviations from the paper:
    1. The published formula divides the log-ratio by eta; that loss is this one divided by eta^2.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rebel_loss(
    log_ratios: Float[Tensor, "pairs two"], rewards: Float[Tensor, "pairs two"], *, eta: float
) -> Float[Tensor, ""]:
    """Mean squared residual of the pairs; it does not change when the sides are swapped.

    Args:
        log_ratios: `[pairs, 2]`, `log pi(y) - log pi_old(y)` summed over tokens, in nats.
        rewards: `[pairs, 2]`; higher is better.
        eta: Nats of log-ratio per unit of reward.
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

    Args:
        rewards: Of whole answers.
        log_prob_old: Of the answers under the policy that wrote them.
        log_prob_uniform: Of the answers under the uniform mixture of the same experts.
        price: Reward units per nat; zero or more.

    Source:
        methods mope 5.2: the fixed point is `pi_uniform exp(R / price)`, reached for
        `0 < eta * price < 2` (M11).
    """
    return rewards - price * (log_prob_old - log_prob_uniform)
