"""Numbers of a soup, and signs that it has gone wrong.

Source: ours, extensions of Spectral Souping, arXiv 2605.20408.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.soup.states import (
    Coefficients,
    States,
    entropy,
    kl_divergence,
    log_softmax,
    require_coefficients,
)

PEAKED_ENTROPY_RATIO = 0.5
FLAT_ENTROPY_RATIO = 1.2
GIANT_SUM = 15.0
NEGATIVE_SHARE = 0.6
CONDITION_NUMBER = 1e6


@dataclass(frozen=True)
class SoupReport:
    """Numbers of a soup on some states."""

    kl_per_token: float  # mean KL to the reference, nats
    entropy_ratio: float  # mean entropy divided by the reference's on the same states
    warnings: tuple[str, ...]  # one sentence each; empty when nothing looks wrong


def report_soup(
    coefficients: Coefficients,
    states: States,
    *,
    budget: float,
    curvature: Float[np.ndarray, "experts experts"] | None = None,
) -> SoupReport:
    """Numbers and warnings of a soup on the given states.

    States are recent ones of the conversation; beyond the `budget` of mean KL per token, in nats, a
    soup counts as too peaked. The curvature of the fit shows near duplicates among experts.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
        InvalidInputError: there are no states.
    """
    weighted = require_coefficients(coefficients, n_experts=states.tilts.shape[2])
    if not len(states.reference):
        raise InvalidInputError("A soup is reported on states; give at least one.")
    soup = log_softmax(states.reference + states.tilts @ weighted)
    kl = float(kl_divergence(soup, states.reference).mean())
    base_entropy = float(entropy(states.reference).mean())
    ratio = float(entropy(soup).mean()) / base_entropy if base_entropy > 0 else 1.0
    size = float(np.abs(weighted).sum())
    negative = float(np.maximum(-weighted, 0).sum()) / size if size > 0 else 0.0
    condition = float(np.linalg.cond(curvature)) if curvature is not None else 1.0
    signs = {
        f"Too peaked: KL per token is {kl:.3g} nats and entropy {ratio:.0%} of the reference's; "
        "shrink the coefficients.": kl > budget or ratio < PEAKED_ENTROPY_RATIO,
        f"Too flat: entropy is {ratio:.0%} of the reference's; refit with a stronger prior.": ratio
        > FLAT_ENTROPY_RATIO,
        f"Opposite giants: absolute coefficients sum to {size:.3g}, {negative:.0%} of it negative, "
        f"condition number {condition:.2g}; drop near-duplicate experts.": size > GIANT_SUM
        or condition > CONDITION_NUMBER,
        f"Mostly negative: {negative:.0%} of the absolute coefficients take experts away; give "
        "more feedback, or train an expert for what is wanted.": negative > NEGATIVE_SHARE,
    }
    return SoupReport(
        kl_per_token=kl,
        entropy_ratio=ratio,
        warnings=tuple(sentence for sentence, holds in signs.items() if holds),
    )


def length_correlation(
    margins: Float[np.ndarray, " comparisons"],
    length_differences: Float[np.ndarray, " comparisons"],
) -> float:
    """Correlation of believed margins with differences of length: above 0.5 the fit is of length.

    Log-ratios are sums over tokens, so a fit can mistake length for preference. Zero when
    either does not vary.

    Raises:
        InvalidInputError: lengths differ, or there are fewer than two comparisons.
    """
    if margins.shape != length_differences.shape or margins.ndim != 1 or len(margins) < 2:
        raise InvalidInputError(
            f"Margins {margins.shape} and length differences {length_differences.shape} must be "
            "two vectors of one length, at least two."
        )
    if np.ptp(margins) == 0 or np.ptp(length_differences) == 0:
        return 0.0
    return float(np.corrcoef(margins, length_differences)[0, 1])
