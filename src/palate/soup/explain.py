"""Which expert wrote which token, and signs that a soup has gone wrong.

Source: ours, extensions of Spectral Souping, arXiv 2605.20408.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.soup.normalised import States, soup_moments
from palate.soup.pool import Coefficients, entropy, kl_divergence, log_softmax, require_coefficients

PEAKED_ENTROPY_RATIO = 0.5
FLAT_ENTROPY_RATIO = 1.2
GIANT_SUM = 15.0
NEGATIVE_SHARE = 0.6
CONDITION_NUMBER = 1e6


@dataclass(frozen=True)
class SoupReport:
    """What is known of a soup on some states.

    Attributes:
        kl_per_token: Mean KL to the reference, nats.
        entropy_ratio: Mean entropy divided by the reference's on the same states.
        absolute_sum: `sum |lambda|`.
        negative_share: Share of it that is negative.
        mean_normaliser: Mean `Z_lambda`; far from one means far from the reference.
        warnings: One sentence each; empty when nothing looks wrong.
    """

    kl_per_token: float
    entropy_ratio: float
    absolute_sum: float
    negative_share: float
    mean_normaliser: float
    warnings: tuple[str, ...]


def contributions(
    coefficients: Coefficients, states: States
) -> Float[ndarray, "states vocab experts"]:
    """How much each expert raised each token: `lambda_k (tilt_k - E_soup tilt_k)`, in nats.

    Their sum over the experts is `log soup - log reference` up to a constant of the state, namely
    the state's KL from the reference. Positive: the expert made the token likelier than tokens of
    the soup on average.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
    """
    weighted = require_coefficients(coefficients, n_experts=states.tilts.shape[2])
    _, means = soup_moments(weighted, states)
    return weighted * (states.tilts - means[:, None, :])


def report_soup(
    coefficients: Coefficients,
    states: States,
    *,
    budget: float,
    curvature: Float[ndarray, "experts experts"] | None = None,
) -> SoupReport:
    """Numbers and warnings of a soup on the given states.

    Args:
        coefficients: `[experts]`.
        states: Recent states of the conversation, at least one.
        budget: Mean KL per token beyond which a soup counts as too peaked, nats.
        curvature: Of the fit, to see whether experts are near duplicates; `None` if unknown.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
        InvalidInputError: there are no states.
    """
    weighted = require_coefficients(coefficients, n_experts=states.tilts.shape[2])
    if not len(states.reference):
        raise InvalidInputError("A soup is reported on states; give at least one.")
    log_normaliser, _ = soup_moments(weighted, states)
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
        f"Mostly negative: {negative:.0%} of the absolute coefficients take experts away; more "
        "feedback, or an expert for what is wanted, would say more.": negative > NEGATIVE_SHARE,
    }
    return SoupReport(
        kl_per_token=kl,
        entropy_ratio=ratio,
        absolute_sum=size,
        negative_share=negative,
        mean_normaliser=float(np.exp(log_normaliser).mean()),
        warnings=tuple(sentence for sentence, holds in signs.items() if holds),
    )


def length_correlation(
    margins: Float[ndarray, " comparisons"], length_differences: Float[ndarray, " comparisons"]
) -> float:
    """Correlation of believed margins with differences of length: above 0.5 the fit is of length.

    Log-ratios are sums over tokens, so a fit can mistake length for taste. Zero when either does
    not vary.

    Args:
        margins: `[comparisons]`, believed margin of the first answer.
        length_differences: `[comparisons]`, first minus second, in tokens.

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


def top_token_agreement(
    belief: Belief, states: States, *, generator: np.random.Generator, n_draws: int = 200
) -> float:
    """Share of draws from the belief whose likeliest token is that of its mean, over the states.

    Near one: the answer would hardly change if the user were known better.

    Args:
        belief: Over coefficients of experts.
        states: At least one.
        generator: Source of the draws.
        n_draws: Draws of coefficients.

    Raises:
        InvalidCoefficientsError: the belief does not speak of the states' experts.
        InvalidInputError: there are no states.
    """
    mean = require_coefficients(belief.mean, n_experts=states.tilts.shape[2])
    if not len(states.reference):
        raise InvalidInputError("Agreement is measured on states; give at least one.")
    top = np.argmax(states.reference + states.tilts @ mean, axis=1)
    draws = generator.multivariate_normal(mean, belief.covariance, size=n_draws, method="cholesky")
    agreed = [
        np.mean(np.argmax(states.reference + states.tilts @ draw, axis=1) == top) for draw in draws
    ]
    return float(np.mean(agreed))
