"""Bradley-Terry: the vector behind comparisons, exactly and fast, for one user or many.

A comparison of two answers with feature difference `u` is won by the first with probability
`sigmoid(gain * m . u)`. Under a normal prior the posterior of `m` is log-concave; `fit_batch` finds
its mode by Newton steps and takes the curvature there (Laplace), `update` does the same for one
comparison in O(features^2).

Source: Spectral Souping, arXiv 2605.20408, online coefficients, stage 1; Bradley & Terry 1952.

Deviations and choices of ours:

1. The mode is sought in whitened coordinates `z`, `m = mean + L z`, `L L' = covariance`, where the
   prior is standard normal; no prior is ever inverted.
2. Steps are searched along, and huge margins approached on a path, so that a fit settles from
   whatever feedback; see `palate.preferences.newton`. Where one does not, it says so.
3. `update` is exact for its one comparison, but replaces earlier ones by their quadratic
   approximation: refit from the log from time to time.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.comparisons import (
    RootedPrior,
    checked_comparisons,
    require_finite,
    require_gain,
    require_shares,
    root_of,
)
from palate.preferences.newton import fit_whitened, solve_margin

CHUNK_NUMBERS = 1 << 17  # numbers of a chunk of users that are fitted together: 1 MB


@dataclass(frozen=True, eq=False)
class Fit:
    """Posterior modes with their curvature; those of `fit_batch` have a leading axis of users."""

    mean: Float[np.ndarray, "*users features"]  # the mode
    covariance: Float[np.ndarray, "*users features features"]  # inverse curvature there (Laplace)
    # negative log posterior, up to the prior's constant, nats
    objective: Float[np.ndarray, "*users"]
    log_evidence: Float[np.ndarray, "*users"]  # of the labels, by Laplace's approximation, nats
    n_observations: Int[np.ndarray, "*users"]  # labels with a discount above zero
    is_converged: Bool[np.ndarray, "*users"]  # false: the best after 200 rounds


def fit_batch(
    features: Float[np.ndarray, "users comparisons features"],
    labels: Float[np.ndarray, "users comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float | Float[np.ndarray, " users"] = 1.0,
    discounts: Float[np.ndarray, "users comparisons"] | None = None,
    tolerance: float = 1e-9,
) -> Fit:
    """Exact posterior modes of users' comparisons with a common prior, each user as if alone.

    Minimises `sum_i discount_i (label_i softplus(-m_i) + (1 - label_i) softplus(m_i))` plus half
    the squared prior distance, `m_i = gain * mean . u_i`. No comparisons give the prior back.

    Args:
        features: First answer's minus second's.
        labels: 1 first preferred, 0 second, 0.5 a tie; or a probability.
        prior: Normal prior; with a `RootedPrior` the vector stays within its directions.
        gain: How sharply labels follow margins; one for all, or by user.
        discounts: In [0, 1]; 1 where absent, 0 leaves a comparison out, as of users with fewer.
        tolerance: Iteration stops when the last step moved no margin by more. Newton squares the
            error: 1e-4 leaves about 1e-8 in the mean and 1e-4 in the covariance.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
        InvalidCoefficientsError: the prior covariance is not symmetric positive definite.

    Source: Spectral Souping, arXiv 2605.20408, stage 1.
    """
    features, labels, discounts = checked_comparisons(
        features, labels, discounts, n_features=len(prior.mean)
    )
    n_users, n_comparisons, n_features = features.shape
    gains = np.broadcast_to(require_gain(gain), (n_users,))
    root = root_of(prior)
    size = max(1, CHUNK_NUMBERS // max(1, n_comparisons * n_features))
    n_free = root.shape[1]
    is_standard = root.shape[0] == n_free and np.array_equal(root, np.eye(n_free))
    z = np.empty((n_users, n_free))
    inverse = np.empty((n_users, n_free, n_free))
    objective, is_converged = np.empty(n_users), np.empty(n_users, dtype=bool)
    for start in range(0, n_users, size):
        part = slice(start, start + size)
        scaled = features[part] * gains[part, None, None]
        z[part], inverse[part], objective[part], is_converged[part] = fit_whitened(
            scaled if is_standard else scaled @ root,
            scaled @ prior.mean,
            labels[part],
            discounts=discounts[part],
            tolerance=tolerance,
        )
    covariance = inverse if is_standard else root @ inverse @ root.T
    return Fit(
        mean=prior.mean + z @ root.T,
        covariance=0.5 * (covariance + covariance.transpose(0, 2, 1)),
        objective=objective,
        log_evidence=-objective + 0.5 * np.linalg.slogdet(inverse)[1],
        n_observations=np.count_nonzero(discounts, axis=1),
        is_converged=is_converged,
    )


def update(
    belief: Belief, feature: Float[np.ndarray, " features"], label: float, *, gain: float = 1.0
) -> Belief:
    """The belief after one more comparison: exact mode of that comparison, rank-one covariance.

    Costs O(features^2). The label may be a tie (0.5) or a probability. `gain` multiplies the
    margin; the belief's own gain stays as it is.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.

    Source: Spectral Souping, arXiv 2605.20408, one comparison at a time.
    """
    features, labels = np.array([feature], dtype=np.float64), np.array([label], dtype=np.float64)
    (mean,), (covariance,) = update_batch(
        belief.mean[None], belief.covariance[None], features, labels, gain=gain
    )
    n_observations = belief.n_observations + 1
    return replace(belief, mean=mean, covariance=covariance, n_observations=n_observations)


def update_batch(
    means: Float[np.ndarray, "users features"],
    covariances: Float[np.ndarray, "users features features"],
    features: Float[np.ndarray, "users features"],
    labels: Float[np.ndarray, " users"],
    *,
    gain: float | Float[np.ndarray, " users"] = 1.0,
    out: tuple[Float[np.ndarray, "users f"], Float[np.ndarray, "users f f"]] | None = None,
) -> tuple[Float[np.ndarray, "users features"], Float[np.ndarray, "users features features"]]:
    """Means and covariances after one more comparison of each user, see `update`.

    The result goes to `out`, which may be the given means and covariances, or to new arrays.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    if (
        features.shape != means.shape
        or covariances.shape != (*means.shape, means.shape[-1])
        or labels.shape != (len(means),)
    ):
        raise InvalidInputError(
            f"Means {means.shape}, covariances {covariances.shape}, features {features.shape} and "
            f"labels {labels.shape} disagree; give one feature vector and one label a user."
        )
    require_shares(labels, name="label")
    require_finite(features)
    gains = np.broadcast_to(require_gain(gain), (len(means),))
    new_means, new_covariances = out or (np.empty(means.shape), np.empty(covariances.shape))
    size = max(1, CHUNK_NUMBERS // means.shape[1] ** 2)
    scratch = np.empty((min(size, len(means)), *covariances.shape[1:]))
    for start in range(0, len(means), size):
        part = slice(start, start + size)
        scaled = features[part] * gains[part, None]
        direction = np.matmul(covariances[part], scaled[..., None])[..., 0]
        variance = np.einsum("pf,pf->p", scaled, direction)
        before = np.einsum("pf,pf->p", scaled, means[part])
        after = solve_margin(before, variance, labels[part])
        probability = expit(after)
        curvature = probability * (1.0 - probability)
        # the two are equal at the mode; each is taken where it loses no digits
        residual = np.where(
            variance > 1.0, (after - before) / np.maximum(variance, 1.0), labels[part] - probability
        )
        np.add(means[part], direction * residual[:, None], out=new_means[part])
        shrink = direction * (curvature / (1.0 + curvature * variance))[:, None]
        products = np.einsum("pi,pj->pij", shrink, direction, out=scratch[: len(scaled)])
        np.subtract(covariances[part], products, out=new_covariances[part])
    return new_means, new_covariances
