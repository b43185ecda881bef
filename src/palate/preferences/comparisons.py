"""Comparisons and priors as arrays, and the checks that every fit makes of them.

A comparison is a feature difference, a label in [0, 1] (1 first preferred, 0 second, 0.5 a tie) and
a discount in [0, 1] (0 leaves it out, as padding).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief


@dataclass(frozen=True, eq=False)
class RootedPrior:
    """A normal prior that may be flat: some directions of the vector can be known exactly."""

    mean: Float[np.ndarray, " features"]
    root: Float[np.ndarray, "features free"]  # full column rank; the covariance is `root @ root.T`
    n_observations: int = 0  # items of feedback that it has taken in


def root_of(prior: Belief | RootedPrior) -> Float[np.ndarray, "features free"]:
    """The prior's root; of a covariance, the Cholesky factor.

    Raises:
        InvalidCoefficientsError: the covariance is not symmetric positive definite.
    """
    return prior.root if isinstance(prior, RootedPrior) else require_root(prior.covariance)


def checked_comparisons(
    features: Float[np.ndarray, "users comparisons features"],
    labels: Float[np.ndarray, "users comparisons"],
    discounts: Float[np.ndarray, "users comparisons"] | None,
    *,
    n_features: int,
) -> tuple[
    Float[np.ndarray, "users comparisons features"],
    Float[np.ndarray, "users comparisons"],
    Float[np.ndarray, "users comparisons"],
]:
    """Features, labels and discounts as arrays of numbers, discounts 1 where absent.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    features = np.asarray(features, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    counted = np.ones(labels.shape) if discounts is None else np.asarray(discounts, np.float64)
    if features.ndim == 3 and features.shape[1] == 0:  # without comparisons any width will do
        features = features.reshape(len(features), 0, n_features)
    if features.shape != (*labels.shape, n_features) or counted.shape != labels.shape:
        raise InvalidInputError(
            f"Features {features.shape}, labels {labels.shape}, discounts {counted.shape} and a "
            f"prior of length {n_features} disagree; give one label and one discount for "
            "each feature vector, and feature vectors as long as the prior mean."
        )
    require_shares(labels, name="label")
    require_shares(counted, name="discount")
    require_finite(features)
    return features, labels, counted


def require_gain(gain: float | Float[np.ndarray, " users"]) -> Float[np.ndarray, "*shape"]:
    """The gain as an array; InvalidInputError where it is not finite or not above zero."""
    gains = np.asarray(gain, dtype=np.float64)
    if not (np.isfinite(gains).all() and (gains > 0).all()):
        raise InvalidInputError(f"The gain {gain!r} is out of range; use a finite number above 0.")
    return gains


def require_root(covariance: Float[np.ndarray, "features features"]) -> Float[np.ndarray, "f f"]:
    """Lower triangular `L` with `L L' = covariance`.

    Raises:
        InvalidCoefficientsError: not symmetric positive definite.
    """
    if np.isfinite(covariance).all() and np.allclose(covariance, covariance.T, atol=1e-10):
        try:
            return np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            pass
    raise InvalidCoefficientsError(
        f"The prior covariance with diagonal {np.diag(covariance).tolist()} is not symmetric "
        "positive definite; add a small multiple of the identity."
    )


def require_shares(values: Float[np.ndarray, "*shape"], *, name: str) -> None:
    """Refuse numbers outside [0, 1], and NaN, with InvalidInputError."""
    good = (values >= 0.0) & (values <= 1.0)  # false for NaN too
    if not good.all():
        raise InvalidInputError(
            f"The {name} {values[~good].flat[0]} is out of range; use a number in [0, 1]."
        )


def require_finite(features: Float[np.ndarray, "*shape"]) -> None:
    """Refuse infinity and NaN with InvalidInputError."""
    if not np.isfinite(features).all():
        raise InvalidInputError(
            "The features hold a value that is not finite; leave such comparisons out."
        )
