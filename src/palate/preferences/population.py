"""The prior of a new user, from the feedback of many others: empirical Bayes.

Everybody's vector is taken as a sample of one normal distribution. Its mean and covariance are
fitted by EM; the E step takes for each user the normal distribution closest to the posterior, and
the lower bound on the evidence rises with every round.

Source: Spectral Souping, arXiv 2605.20408, populations; Dempster, Laird & Rubin 1977; Neal & Hinton
1998 (EM with a bound).

Limits and choices of ours:

1. The paper's Laplace posteriors lie too near to the prior: with 10 comparisons a user of three
   features the prior's variances came out less than half of the truth, with 40 about a quarter
   too small. With the closest normal they are within a fifth and within a tenth.
2. EM is stopped when a round gains less than 1e-4 nats a user, or after 40 rounds.
"""

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.gaussian_posterior import average_fits

FLOOR = 1e-4  # added to the variance of every coordinate, so that no direction is ever settled
LEAST_GAIN = 1e-4  # nats a user, below which EM rests
MAX_ROUNDS = 40


def fit_population(
    features: Float[np.ndarray, "users comparisons features"],
    labels: Float[np.ndarray, "users comparisons"],
    *,
    discounts: Float[np.ndarray, "users comparisons"] | None = None,
    gain: float | Float[np.ndarray, " users"] = 1.0,
) -> Belief:
    """The normal prior under which the labels of all users are most likely, by EM.

    Comparisons as in `bradley_terry.fit_batch`; discount 0 leaves padding out.

    Returns:
        Its `n_observations` counts the users with at least one comparison.

    Raises:
        InvalidInputError: fewer than two users have comparisons, or a value is out of range.
    """
    counted = np.ones(np.shape(labels)) if discounts is None else np.asarray(discounts)
    has_any = counted.sum(axis=1) > 0
    if has_any.sum() < 2:
        raise InvalidInputError(
            f"Only {int(has_any.sum())} users have comparisons; a population needs at least 2."
        )
    x, y, c = np.asarray(features)[has_any], np.asarray(labels)[has_any], counted[has_any]
    gains = np.broadcast_to(gain, counted.shape[:1])[has_any]
    prior = Belief(np.zeros(x.shape[2]), np.eye(x.shape[2]), len(x))
    evidence = -np.inf
    for _ in range(MAX_ROUNDS):
        means, covariances, bounds, _ = average_fits(x, y, prior=prior, gain=gains, discounts=c)
        before, evidence = evidence, float(bounds.sum())
        if evidence <= before + LEAST_GAIN * len(x):
            break
        prior = pool_beliefs(means, covariances)
    return prior


def pool_beliefs(
    means: Float[np.ndarray, "users features"],
    covariances: Float[np.ndarray, "users features features"],
) -> Belief:
    """The M step: mean of the means; covariance of the means plus mean of the covariances."""
    mean = means.mean(axis=0)
    away = means - mean
    covariance = covariances.mean(axis=0) + away.T @ away / len(means)
    return Belief(mean, covariance + FLOOR * np.eye(len(mean)), len(means))
