"""Losses on the log-ratio gap of two answers to one prompt.

The gap is `log pi(y)/pi_0(y) - log pi(y')/pi_0(y')`, summed over tokens including the end token, in
nats. `beta` is the price of one nat of KL in reward units, the same for every expert of a library.

Source:
    DPO: arXiv 2305.18290, equation 7. REBEL: arXiv 2404.16767, algorithm 1, as in MoPE, arXiv
    2407.04181.

Deviations:
    1. REBEL writes `((1/eta) gap - (r - r'))^2` and moves `pi_0` along with the policy; ours has
       `beta = 1/eta` and keeps `pi_0` at the frozen base, so that its optimum is
       `pi_0 exp(r / beta)` and not a step on the way.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def dpo_loss(log_ratio_gaps: Float[Tensor, " pairs"], *, beta: float) -> Float[Tensor, ""]:
    """Mean of `-log sigmoid(beta * gap)`, the gap being chosen minus rejected.

    It is log 2 for the untrained adapter. Its optimum is where `beta * gap` are the log-odds with
    which the first answer was labelled as chosen.
    """
    return -functional.logsigmoid(beta * log_ratio_gaps).mean()


def rebel_loss(
    log_ratio_gaps: Float[Tensor, " pairs"],
    reward_gaps: Float[Tensor, " pairs"],
    *,
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of `(beta * gap - reward gap)^2`, in squared reward units.

    It is zero for the untrained adapter when rewards tie, and does not change when the two answers
    are swapped.

    Args:
        log_ratio_gaps: `[pairs]`, nats, first answer minus second.
        reward_gaps: `[pairs]`, reward units, first answer minus second.
        beta: Reward units per nat.
    """
    return (beta * log_ratio_gaps - reward_gaps).square().mean()
