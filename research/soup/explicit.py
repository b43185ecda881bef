"""Log-linear pooling of next-token distributions in numpy: the explicit output soup, as an oracle.

    log p(v) = (1 - sum_k lambda_k) log p_0(v) + sum_k lambda_k log p_k(v) - log Z

Rules for forbidden tokens (log-probability minus infinity): a row with coefficient zero is left
out, never multiplied; a token the reference forbids stays forbidden while the reference takes part;
an expert's minus infinity is a veto when its coefficient is positive and an error when it is
negative, unless tilts are clipped. Masks act after pooling. Answers are sampled by
`palate.engine`, which pools on the accelerator.

Source: Spectral Souping, arXiv 2605.20408, explicit rule; DeRa, arXiv 2402.02992, for one expert;
MOD, arXiv 2406.18853, for coefficients that sum to one.

Deviation: tilts are clipped only when asked to; the exact rule is the default.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import logsumexp

from palate.core.errors import InvalidInputError
from palate.soup.states import Coefficients, log_softmax, require_coefficients


@dataclass(frozen=True, eq=False)
class Pooled:
    """A pooled next-token distribution.

    Attributes:
        log_probs: `[..., vocab]`, natural logarithms, normalised; minus infinity is forbidden.
        log_normaliser: `[...]`, `log Z` before any mask.
        n_clipped: Tilts that were cut to the clip, over all experts and tokens.
    """

    log_probs: Float[ndarray, "*states vocab"]
    log_normaliser: Float[ndarray, "*states"]
    n_clipped: int = 0


def pool_log_linear(
    reference: Float[ndarray, "*states vocab"],
    experts: Float[ndarray, "experts *states vocab"],
    coefficients: Coefficients,
    *,
    allowed: Bool[ndarray, "*states vocab"] | None = None,
    clip: float | None = None,
) -> Pooled:
    """The explicit output soup of one reference and K experts.

    Args:
        reference: `[..., vocab]`, logits or log-probabilities; constants per state do not matter.
        experts: `[experts, ..., vocab]`, the same.
        coefficients: `[experts]`, any real numbers.
        allowed: `[..., vocab]`, true for tokens that may be sampled; applied after pooling.
        clip: Largest absolute tilt of an expert in nats; `None` is exact.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
        InvalidInputError: shapes disagree, NaN, an expert with a negative coefficient forbids a
            token, or no token is left.

    Source:
        Spectral Souping, arXiv 2605.20408, explicit rule.
    """
    weighted = require_coefficients(coefficients, n_experts=len(experts))
    if experts.shape[1:] != reference.shape:
        raise InvalidInputError(
            f"The experts' distributions have shape {experts.shape[1:]} and the reference's "
            f"{reference.shape}; give both over the same states and tokens."
        )
    active = np.flatnonzero(weighted)
    rows = [log_softmax(experts[k]) for k in active]
    own = 1.0 - math.fsum(weighted)
    n_clipped = 0
    if own == 0.0 and clip is None:
        pooled = _sum_of_rows(rows, weighted[active])
    else:
        start = log_softmax(reference)
        tilts, n_clipped = _tilts(rows, start, clip=clip)
        pooled = np.where(
            np.isneginf(start), -np.inf, start + _sum_of_rows(tilts, weighted[active])
        )
    log_normaliser = logsumexp(pooled, axis=-1)
    if allowed is not None:
        pooled = np.where(allowed, pooled, -np.inf)
    return Pooled(log_softmax(pooled), np.asarray(log_normaliser), n_clipped)


def _sum_of_rows(
    rows: list[Float[ndarray, "*states vocab"]], coefficients: Float[ndarray, " active"]
) -> Float[ndarray, "*states vocab"]:
    total: Float[ndarray, "*states vocab"] = np.zeros(())
    for row, coefficient in zip(rows, coefficients, strict=True):
        if coefficient < 0 and np.any(np.isneginf(row)):
            raise InvalidInputError(
                f"An expert with the negative coefficient {coefficient} forbids a token, which "
                "would make it certain; clip the tilts or drop the expert."
            )
        total = total + coefficient * row
    return total


def _tilts(
    rows: list[Float[ndarray, "*states vocab"]],
    reference: Float[ndarray, "*states vocab"],
    *,
    clip: float | None,
) -> tuple[list[Float[ndarray, "*states vocab"]], int]:
    # where the reference forbids a token the result is forbidden, whatever the experts say
    finite = np.where(np.isneginf(reference), 0.0, reference)
    tilts = [np.where(np.isneginf(reference), 0.0, row - finite) for row in rows]
    if clip is None:
        return tilts, 0
    n_clipped = sum(int(np.sum(np.abs(tilt) > clip)) for tilt in tilts)
    return [np.clip(tilt, -clip, clip) for tilt in tilts], n_clipped
