"""What is believed of a user never seen before, from many who were: empirical Bayes.

Everybody's vector is taken as a draw from one normal distribution. Its mean and covariance are
found by EM, the E step of which takes for each user the normal distribution closest to the
posterior; the lower bound on the evidence rises with every round.

Source: Spectral Souping, arXiv 2605.20408, populations; Dempster, Laird & Rubin 1977; Neal & Hinton
1998 (EM with a bound).

Limits and choices of ours:

1. The paper's Laplace posteriors lie too near to the prior: with 10 comparisons a user of three
   features the prior's variances came out less than half of the truth, with 40 about a quarter
   too small. With the closest normal they are within a fifth and within a tenth.
2. EM is stopped when a round gains less than 1e-4 nats a user, or after 40 rounds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.gaussian_posterior import average_fits
from palate.preferences.preference import normal_on_plane, rooted_on_plane

FLOOR = 1e-4  # added to the variance of every coordinate, so that no direction is ever settled
LEAST_GAIN = 1e-4  # nats a user, below which EM rests
MAX_ROUNDS = 40


@dataclass(frozen=True, eq=False)
class Population:
    """A prior and what it rests on.

    Attributes:
        prior: Normal prior of a new user.
        gain: How sharply labels follow margins, the same for all.
        log_evidence: Lower bound for all labels under the prior, in nats; a sum over users.
        n_users: Users with at least one comparison.
    """

    prior: Belief
    gain: float
    log_evidence: float
    n_users: int


def fit_population(
    features: Float[ndarray, "users comparisons features"],
    labels: Float[ndarray, "users comparisons"],
    *,
    discounts: Float[ndarray, "users comparisons"] | None = None,
    gain: float = 1.0,
    start: Belief | None = None,
    is_preference: bool = False,
) -> Population:
    """The prior under which the labels of all users are most likely.

    Args:
        features: `[users, comparisons, features]`, padded.
        labels: `[users, comparisons]` in [0, 1].
        discounts: `[users, comparisons]`; 0 leaves padding out.
        gain: How sharply labels follow margins.
        start: Where EM starts; a standard normal, or the default prior of a preference.
        is_preference: The vector is a preference: it stays on the plane of sum one.

    Raises:
        InvalidInputError: fewer than two users have comparisons, or a value is out of range.
    """
    counted = np.ones(np.shape(labels)) if discounts is None else np.asarray(discounts)
    kept = counted.sum(axis=1) > 0
    if kept.sum() < 2:
        raise InvalidInputError(
            f"Only {int(kept.sum())} users have comparisons; a population needs at least 2."
        )
    x, y, c = np.asarray(features)[kept], np.asarray(labels)[kept], counted[kept]
    n_features = x.shape[2]
    plane = np.eye(n_features)
    if is_preference:
        plane -= 1.0 / n_features
        start = start or normal_on_plane(n_objectives=n_features)
    prior = start or Belief(np.zeros(n_features), np.eye(n_features))
    best = Population(prior, gain, -np.inf, len(x))
    for _ in range(MAX_ROUNDS):
        rooted = rooted_on_plane(prior) if is_preference else prior
        fits = average_fits(x, y, prior=rooted, gain=gain, discounts=c)
        evidence, before = float(fits.bound.sum()), best.log_evidence
        best = Population(prior, gain, evidence, len(x))
        if evidence <= before + LEAST_GAIN * len(x):
            break
        prior = pool_beliefs(fits.mean, fits.covariance, plane=plane)
    return best


def pool_beliefs(
    means: Float[ndarray, "users features"],
    covariances: Float[ndarray, "users features features"],
    *,
    plane: Float[ndarray, "features features"] | None = None,
) -> Belief:
    """The M step: mean of the means; covariance of the means plus mean of the covariances.

    A floor of 1e-4 is added along `plane`, a projection (every direction where absent).
    """
    mean = means.mean(axis=0)
    away = means - mean
    covariance = covariances.mean(axis=0) + away.T @ away / len(means)
    directions = np.eye(len(mean)) if plane is None else plane
    return Belief(mean, covariance + FLOOR * directions, len(means))
