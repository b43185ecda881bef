"""The divergence of futures: exactly what pooling token by token leaves out.

Pooling whole answers would be optimal; pooling tokens ignores that experts disagree about what
comes after. With `R_lambda = sum_k lambda_k R_k` and experts optimal for `R_k` (S3),

    D(s) = sum_k lambda_k V_k(s) - V_{R_lambda}(s)
         = -beta log sum_y reference(y | s)^(1 - sum lambda) prod_k expert_k(y | s)^lambda_k,

and the optimum for `R_lambda` is the explicit soup with every logit lowered by `D(s + a) / beta`.
For coefficients on the simplex `D >= 0`: the plain soup is optimistic about tokens where the
experts' futures disagree.

Source: ours; a consequence of soft optimality in the setting of Spectral Souping, arXiv 2605.20408.
Exact only on token trees; for language models the corrected soup needs a learned value of states.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import logsumexp

from palate.core.errors import InvalidInputError
from palate.soup.states import Coefficients, log_softmax, require_coefficients
from research.soup.trees import Policy, Values, soup_policy


def divergence_from_values(
    expert_values: Sequence[Values], pooled_values: Values, coefficients: Coefficients
) -> Values:
    """`D(s) = sum_k lambda_k V_k(s) - V_{R_lambda}(s)` for every state.

    Args:
        expert_values: Soft values of each expert's own returns.
        pooled_values: Soft values of the pooled returns `sum_k lambda_k R_k`.
        coefficients: `[experts]`.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
    """
    weighted = require_coefficients(coefficients, n_experts=len(expert_values))
    return tuple(
        np.tensordot(weighted, np.stack([values[depth] for values in expert_values]), axes=1) - own
        for depth, own in enumerate(pooled_values)
    )


def divergence_from_policies(
    reference: Policy, experts: Sequence[Policy], coefficients: Coefficients, *, beta: float
) -> Values:
    """`D(s) = -beta log Z(s)`, `Z` the total of the pooled answers below `s`, unnormalised.

    Needs only the policies, not their returns; equal to `divergence_from_values` when the experts
    are optimal.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
        InvalidInputError: beta is not positive.
    """
    weighted = require_coefficients(coefficients, n_experts=len(experts))
    if not 0 < beta < np.inf:
        raise InvalidInputError(f"The KL price beta={beta} is out of range; use a number above 0.")
    totals = [np.zeros(reference[-1].size)]
    for depth in range(len(reference) - 1, -1, -1):
        scores = (1.0 - weighted.sum()) * reference[depth]
        for coefficient, expert in zip(weighted, experts, strict=True):
            scores = scores + coefficient * expert[depth]
        scores = scores + totals[-1].reshape(scores.shape)
        totals.append(np.asarray(logsumexp(scores, axis=1)))
    return tuple(-beta * total for total in reversed(totals))


def corrected_soup(
    reference: Policy,
    experts: Sequence[Policy],
    coefficients: Coefficients,
    *,
    divergence: Values,
    beta: float,
) -> Policy:
    """The explicit soup with every logit lowered by the divergence of its future: exact (S3).

    Args:
        reference: The policy KL is measured to.
        experts: Policies, optimal for their own returns.
        coefficients: `[experts]`, any real numbers.
        divergence: `D` of every state.
        beta: Price of one nat of KL.
    """
    plain = soup_policy(
        reference, experts, require_coefficients(coefficients, n_experts=len(experts))
    )
    return tuple(
        log_softmax(table - after.reshape(table.shape) / beta)
        for table, after in zip(plain, divergence[1:], strict=True)
    )


def satisfy_any_policy(
    experts: Sequence[Policy],
    shares: Coefficients,
    *,
    values: Sequence[Values],
    beta: float,
) -> Policy:
    """Optimum for the return `beta log sum_k c_k exp(R_k / beta)`: a linear pool (S9).

    Log-linear pooling means "satisfy all, in proportion"; this means "satisfy at least one". The
    shares of a state are `c_k exp(V_k(s) / beta)`, normalised.

    Args:
        experts: Policies, optimal for returns `R_k`.
        shares: `[experts]`, the `c_k`, non-negative, not all zero.
        values: Soft values of every expert's returns.
        beta: Price of one nat of KL.

    Raises:
        InvalidInputError: a share is negative, or all are zero.

    Source:
        Known: `exp(V / beta)` is linear in `exp(R / beta)`.
    """
    c = require_coefficients(shares, n_experts=len(experts))
    if c.min() < 0 or c.sum() == 0:
        raise InvalidInputError(
            f"The shares {c.tolist()} must be non-negative and not all zero for a linear pool."
        )
    kept = np.flatnonzero(c).tolist()
    pooled: list[Float[ndarray, "states vocab"]] = []
    for depth in range(len(experts[0])):
        scores = np.stack([np.log(c[k]) + values[k][depth] / beta for k in kept])
        rows = np.stack([experts[k][depth] for k in kept])
        posterior = scores - logsumexp(scores, axis=0)
        pooled.append(np.asarray(logsumexp(posterior[:, :, None] + rows, axis=0)))
    return tuple(pooled)
