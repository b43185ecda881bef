"""Posterior coefficients: the mixture over whole responses, told token by token.

Drawing one expert per response with probabilities `a` has next-token law
`sum_k share_k(s) p_k(v | s)` with `share_k(s)` proportional to `a_k prod_u p_k(y_u)`: Bayes' rule.
It needs no training and is the history-dependent baseline that a controller has to beat.

Source:
    methods mope M8, README C6 and C7.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import softmax

from palate.core.errors import InvalidInputError


def posterior_shares(
    prior: Float[ndarray, " experts"], prefix_log_probs: Float[ndarray, "experts tokens"]
) -> Float[ndarray, " experts"]:
    """Shares for the next token after a prefix.

    Args:
        prior: On the simplex.
        prefix_log_probs: `[experts, tokens]`, of the tokens so far under each expert.

    Raises:
        InvalidInputError: no expert of positive prior can have written the prefix.
    """
    with np.errstate(divide="ignore"):
        scores = np.log(prior) + prefix_log_probs.sum(axis=1)
    if not np.isfinite(scores.max()):
        raise InvalidInputError("No expert of positive share can have written the prefix.")
    return np.asarray(softmax(scores))
