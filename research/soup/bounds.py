"""What a soup can lose: the exact gap and bounds on it, on token trees.

S4 is an equality; S5 and S6 bound the loss of the plain soup by how far action values are from the
pooled ones; S7 bounds the divergence of futures by the ranges of the returns alone. All but S4 are
loose, S7 by an order of magnitude or more: use them for reasons, not for numbers.

Source: S4 is the performance-difference identity with KL costs; S5 to S7 are ours, of the shape of
the bound of Spectral Souping, arXiv 2605.20408 (main term, reward approximation, negative
coefficients), whose exact statement they do not claim to be.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.soup.states import Coefficients, kl_divergence, require_coefficients
from research.soup.trees import Policy, Values, state_log_probs

Ranges = Sequence[Float[ndarray, " states"]]
"""Range of the remaining return at every state, per depth."""


def exact_gap(policy: Policy, *, best: Policy, beta: float) -> float:
    """`beta E_policy sum_t KL(policy || best)`: what the policy loses, in reward units (S4).

    Args:
        policy: Any policy with support inside the reference's.
        best: The optimal policy.
        beta: Price of one nat of KL.
    """
    reached = state_log_probs(policy)
    return float(
        beta
        * sum(
            np.exp(reached[depth]) @ kl_divergence(own, best[depth])
            for depth, own in enumerate(policy)
        )
    )


def fit_bound(
    soup: Policy,
    *,
    best_values: Values,
    expert_values: Sequence[Values],
    coefficients: Coefficients,
    beta: float,
) -> float:
    """`E_soup sum_t min(osc^2 / (8 beta), osc)` with `osc` the spread of unexplained values (S5).

    An upper bound on what the soup loses against the optimum, in reward units. The unexplained
    value of an action is `Q - sum_k lambda_k Q_k`; only its spread over the actions matters.

    Args:
        soup: The plain soup with these coefficients.
        best_values: Soft values of the user's returns.
        expert_values: Soft values of every expert's returns.
        coefficients: `[experts]`.
        beta: Price of one nat of KL.
    """
    weighted = require_coefficients(coefficients, n_experts=len(expert_values))
    unexplained = [
        best_values[depth]
        - np.tensordot(weighted, np.stack([values[depth] for values in expert_values]), axes=1)
        for depth in range(len(best_values))
    ]
    return _expected_loss(soup, unexplained, beta=beta, with_linear=True)


def three_term_bound(
    soup: Policy, *, divergence: Values, reward_error: float, beta: float
) -> float:
    """`2 e + E_soup sum_t osc(D)^2 / (8 beta)`: reward error and divergence of futures (S6).

    Args:
        soup: The plain soup.
        divergence: `D` of every state for the soup's coefficients.
        reward_error: `e`, largest distance of the user's returns from the pooled ones, up to a
            constant; at least zero.
        beta: Price of one nat of KL.

    Raises:
        InvalidInputError: the reward error is negative.
    """
    if not reward_error >= 0:
        raise InvalidInputError(f"The reward error {reward_error} must be zero or more.")
    return 2 * reward_error + _expected_loss(soup, divergence, beta=beta, with_linear=False)


def remaining_range(policy: Policy, returns: Float[ndarray, " answers"]) -> list[ndarray]:
    """Largest minus smallest return among the answers below every state, per depth."""
    vocab = policy[0].shape[1]
    high, low = [np.asarray(returns)], [np.asarray(returns)]
    for _ in policy:
        high.append(high[-1].reshape(-1, vocab).max(axis=1))
        low.append(low[-1].reshape(-1, vocab).min(axis=1))
    return [top - bottom for top, bottom in zip(reversed(high), reversed(low), strict=True)]


def divergence_spread_bound(
    coefficients: Coefficients, *, ranges: Float[ndarray, " experts"], beta: float
) -> float:
    """Bound on how far `D` of states whose remaining returns have these ranges can differ (S7).

    `[sum |lambda| B^2 + (sum |lambda| B)^2] / (8 beta)` always; when `sum |lambda| <= 1` also
    `sum_{lambda > 0} lambda B^2 / (8 beta) + sum_{lambda < 0} |lambda| B^2 / (4 beta)`, which shows
    that negative coefficients cost twice. The smaller of the two is returned.

    Args:
        coefficients: `[experts]`.
        ranges: `[experts]`, largest range `B_k` of the remaining return over the states compared.
        beta: Price of one nat of KL.
    """
    weighted = require_coefficients(coefficients, n_experts=len(ranges))
    size = np.abs(weighted)
    general = (size @ ranges**2 + (size @ ranges) ** 2) / (8 * beta)
    if size.sum() > 1:
        return float(general)
    positive, negative = np.maximum(weighted, 0), np.maximum(-weighted, 0)
    split = positive @ ranges**2 / (8 * beta) + negative @ ranges**2 / (4 * beta)
    return float(min(general, split))


def divergence_upper_bound(
    expert_values: Sequence[Values],
    means: Sequence[Values],
    coefficients: Coefficients,
) -> Values:
    """`D(s) <= sum_{lambda > 0} lambda_k (V_k(s) - E[R_k | s])`, for every lambda (S7).

    Args:
        expert_values: Soft values of every expert's returns.
        means: Mean returns under the reference below every state.
        coefficients: `[experts]`.
    """
    weighted = np.maximum(require_coefficients(coefficients, n_experts=len(expert_values)), 0)
    return tuple(
        sum(
            (
                coefficient * (values[depth] - mean[depth])
                for coefficient, values, mean in zip(weighted, expert_values, means, strict=True)
            ),
            start=np.zeros_like(expert_values[0][depth]),
        )
        for depth in range(len(expert_values[0]))
    )


def divergence_lower_bound(
    expert_values: Sequence[Values],
    opposite_values: Sequence[Values],
    coefficients: Coefficients,
) -> Values:
    """`D(s) >= -sum_{lambda < 0} |lambda_k| (V(R_k) + V(-R_k))`, for `sum |lambda| <= 1` (S7).

    Args:
        expert_values: Soft values of every expert's returns.
        opposite_values: Soft values of the negated returns.
        coefficients: `[experts]`.

    Raises:
        InvalidInputError: the absolute coefficients sum to more than one.
    """
    weighted = require_coefficients(coefficients, n_experts=len(expert_values))
    if np.abs(weighted).sum() > 1 + 1e-12:
        raise InvalidInputError(
            f"The absolute coefficients sum to {np.abs(weighted).sum():.6g}; this bound needs one "
            "or less."
        )
    size = np.maximum(-weighted, 0)
    return tuple(
        -sum(
            (
                coefficient * (own[depth] + other[depth])
                for coefficient, own, other in zip(
                    size, expert_values, opposite_values, strict=True
                )
            ),
            start=np.zeros_like(expert_values[0][depth]),
        )
        for depth in range(len(expert_values[0]))
    )


def mean_returns(policy: Policy, returns: Float[ndarray, " answers"]) -> Values:
    """`E[return | s]` under the policy, for every state."""
    means = [np.asarray(returns, dtype=np.float64)]
    for table in reversed(policy):
        means.append(np.sum(np.exp(table) * means[-1].reshape(table.shape), axis=1))
    return tuple(reversed(means))


def dropping_bound(dropped: Float[ndarray, "*states vocab"]) -> Float[ndarray, "*states"]:
    """`tanh(osc / 4)`: largest total variation, per state, from leaving experts out of a soup.

    Args:
        dropped: `[..., vocab]`, `sum over the dropped experts of lambda_k tilt_k`, finite.
    """
    spread = dropped.max(axis=-1) - dropped.min(axis=-1)
    return np.asarray(np.tanh(spread / 4))


def _expected_loss(
    soup: Policy, values: Sequence[Float[ndarray, " states"]], *, beta: float, with_linear: bool
) -> float:
    reached = state_log_probs(soup)
    total = 0.0
    for depth, table in enumerate(soup):
        after = values[depth + 1].reshape(table.shape)
        spread = after.max(axis=1) - after.min(axis=1)
        loss = spread**2 / (8 * beta)
        if with_linear:
            loss = np.minimum(loss, spread)
        total += float(np.exp(reached[depth]) @ loss)
    return total
