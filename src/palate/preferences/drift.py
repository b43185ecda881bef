"""Users who change: how much of the past to forget.

Steady forgetting discounts a comparison by `factor` to the power of its age. Adaptive forgetting
asks, after each comparison, whether and when the user last changed: every moment splits the
comparisons in two, and the evidence of the two parts from two different users is weighed against
that of the whole from one. A comparison's discount is the probability that the last change came
before it. Without a change little is forgotten; after one, the past goes in a few comparisons.

Source: Spectral Souping, arXiv 2605.20408, forgetting; Adams & MacKay 2007, "Bayesian online
changepoint detection".

Limits: one change within the last 128 comparisons is looked for at a time, at no more than 32
moments; the part of a longer history before them is forgotten as a whole with the first of them.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import fit_batch
from palate.preferences.comparisons import RootedPrior

WINDOW = 128
MAX_MOMENTS = 32


def steady_discounts(n_observations: int, *, factor: float) -> Float[np.ndarray, " observations"]:
    """`factor` to the power of the age; the newest is last and has age 0.

    Raises:
        InvalidInputError: the factor lies outside (0, 1].
    """
    if not 0.0 < factor <= 1.0:
        raise InvalidInputError(
            f"The forgetting factor {factor} is out of range; use a number in (0, 1]."
        )
    return factor ** np.arange(n_observations - 1, -1, -1, dtype=np.float64)


def forget(belief: Belief, *, prior: Belief, factor: float) -> Belief:
    """The belief with all that was learned discounted once; the prior stays.

    In terms of precisions: `H <- factor H + (1 - factor) H_prior`, and the same for `H mean`. For
    a prior that is flat in some direction the same holds along the others. O(features^3).
    """
    if factor == 1.0:
        return belief
    own = np.linalg.pinv(belief.covariance, hermitian=True)
    base = np.linalg.pinv(prior.covariance, hermitian=True)
    covariance = np.linalg.pinv(factor * own + (1.0 - factor) * base, hermitian=True)
    pull = factor * own @ (belief.mean - prior.mean)  # along the directions that can move
    return replace(belief, mean=prior.mean + covariance @ pull, covariance=covariance)


def change_discounts(
    features: Float[np.ndarray, "comparisons features"],
    labels: Float[np.ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    hazard: float = 0.03,
) -> Float[np.ndarray, " comparisons"]:
    """For each comparison, the probability that the user has not changed since.

    It never falls from older to newer; the newest has 1.

    Args:
        features: First answer's minus second's, oldest first.
        labels: In [0, 1].
        prior: Belief before the first comparison, and after a change.
        gain: How sharply labels follow margins.
        hazard: Probability of a change between two comparisons.

    Raises:
        InvalidInputError: the hazard lies outside (0, 1).
    """
    if not 0.0 < hazard < 1.0:
        raise InvalidInputError(f"The hazard {hazard} is out of range; use a number in (0, 1).")
    n = len(labels)
    if n < 2:
        return np.ones(n)
    first = max(1, n - WINDOW)
    moments = np.unique(np.linspace(first, n - 1, min(MAX_MOMENTS, n - first)).astype(int))
    after = np.arange(n) >= moments[:, None]  # [moments, comparisons]
    masks = np.concatenate([np.ones((1, n), dtype=bool), after, ~after]).astype(np.float64)
    fits = fit_batch(
        np.broadcast_to(features, (len(masks), *np.shape(features))),
        np.broadcast_to(labels, (len(masks), n)),
        prior=prior,
        gain=gain,
        discounts=masks,
        tolerance=1e-4,
    )
    whole, parts = fits.log_evidence[0], fits.log_evidence[1:]
    split = parts[: len(moments)] + parts[len(moments) :]
    gaps = np.diff(moments, prepend=first - 1)  # comparisons that each moment stands for
    log_prior = np.log(hazard * gaps)
    share = softmax(np.concatenate([[whole], split + log_prior]))
    discounts = share[0] + share[1:] @ after
    return np.clip(discounts / discounts[-1], 0.0, 1.0)
