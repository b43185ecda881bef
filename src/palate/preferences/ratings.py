"""Ratings: what numbers given to single answers say of a vector.

Users use scales differently and prompts differ in how good an answer can be, so features and
ratings are centred within each group (a prompt, as rated by one user) and only differences
count.

Source: Spectral Souping, arXiv 2605.20408, online coefficients (ratings); ridge regression.

Choice of ours: the ridge is read as a normal prior of variance `noise^2 / ridge`, so the estimate
comes with a covariance.
"""

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import Belief


def fit_ratings(
    features: Float[ndarray, "ratings features"],
    ratings: Float[ndarray, " ratings"],
    *,
    groups: Sequence[Hashable],
    ridge: float = 1.0,
    noise: float = 1.0,
) -> Belief:
    """Ridge estimate from ratings, centred within each group.

    Minimises `sum_i (rating_i - offset_group(i) - features_i . m)^2 + ridge |m|^2` over `m` and
    free offsets. Groups of one rating say nothing; when there are only such, the prior (zero) comes
    back with a warning.

    Args:
        features: `[ratings, features]`.
        ratings: `[ratings]`, any scale.
        groups: What each rating is compared within.
        ridge: Above zero.
        noise: Standard deviation of a rating around its expectation, on the ratings' scale.

    Returns:
        Mean `[features]` and covariance `noise^2 (X'X + ridge I)^-1`.

    Raises:
        InvalidInputError: a value is not finite, ridge or noise is not above zero, or lengths
            disagree.
    """
    if not (ridge > 0 and noise > 0):
        raise InvalidInputError(f"Ridge {ridge} and noise {noise} must both be above 0.")
    x, y = centre_within(features, ratings, groups=groups)
    if not np.any(x):
        warnings.warn(
            "No group holds two different answers, so the ratings say nothing; "
            "the prior is returned.",
            stacklevel=2,
        )
    inverse = np.linalg.inv(x.T @ x + ridge * np.eye(x.shape[1]))
    return Belief(inverse @ (x.T @ y), noise**2 * inverse, len(y))


def centre_within(
    features: Float[ndarray, "ratings features"],
    ratings: Float[ndarray, " ratings"],
    *,
    groups: Sequence[Hashable],
) -> tuple[Float[ndarray, "ratings features"], Float[ndarray, " ratings"]]:
    """Features and ratings less their means within each group.

    Raises:
        InvalidInputError: a value is not finite or lengths disagree.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or len(groups) != len(x):
        raise InvalidInputError(
            f"Features {x.shape}, ratings {y.shape} and {len(groups)} groups disagree; give one "
            "rating and one group for each feature vector."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInputError("A feature or rating is not finite; leave such ratings out.")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=int)
    counts = np.bincount(index, minlength=len(numbers)).astype(np.float64)
    feature_sums = np.zeros((len(numbers), x.shape[1]))
    np.add.at(feature_sums, index, x)
    rating_means = np.bincount(index, weights=y, minlength=len(numbers)) / counts
    return x - (feature_sums / counts[:, None])[index], y - rating_means[index]


def update_rating(
    belief: Belief, feature: Float[ndarray, " features"], value: float, *, variance: float
) -> Belief:
    """The belief after an observation `value = feature . m + noise` of this variance; exact.

    Costs O(features^2). For the k-th rating of a group take the feature and the rating less the
    means of the earlier ones, and `noise^2 k / (k - 1)`: the result is that of centring.

    Raises:
        InvalidInputError: the variance is not above zero.
    """
    if not variance > 0:
        raise InvalidInputError(f"The variance {variance} is out of range; use a number above 0.")
    direction = belief.covariance @ feature
    total = float(feature @ direction) + variance
    return Belief(
        belief.mean + direction * ((value - float(feature @ belief.mean)) / total),
        belief.covariance - np.outer(direction, direction) / total,
        belief.n_observations + 1,
        belief.gain,
    )
