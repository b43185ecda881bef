"""Bradley-Terry: what comparisons say of a vector, exactly and fast, for one user or many.

One implementation serves beliefs over preferences and over coefficients. A comparison of two
answers with feature difference `u` is won by the first with probability `sigmoid(gain * m . u)`.
Under a normal prior the posterior is log-concave; `fit` finds its mode by damped Newton steps and
takes the curvature there (Laplace), `update` does the same for one comparison in O(features^2).

Source: Spectral Souping, arXiv 2605.20408, online coefficients; Bradley & Terry 1952.

Deviations and choices of ours:

1. The mode is sought in whitened coordinates `z`, `m = mean + L z`, `L L' = covariance`, where the
   prior is standard normal; no prior is ever inverted.
2. Steps are shortened by a rule instead of a line search, see `palate.preferences.newton`.
3. `update` is exact for its one comparison, but replaces earlier ones by their quadratic
   approximation: refit from the log from time to time.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.comparisons import (
    checked_comparisons,
    require_finite,
    require_gain,
    require_root,
    require_shares,
)
from palate.preferences.newton import fit_whitened, moderate, solve_margin

CHUNK_NUMBERS = 1 << 17  # numbers of a chunk of users that are fitted together: 1 MB


@dataclass(frozen=True, eq=False)
class Fit:
    """The posterior mode of one user with its curvature.

    Attributes:
        mean: `[features]`, the mode.
        covariance: `[features, features]`, inverse curvature at the mode (Laplace).
        objective: Negative log posterior at the mode, up to the prior's constant, in nats.
        log_evidence: Laplace approximation of the log-probability of the labels, in nats.
        n_observations: Labels with a discount above zero.
    """

    mean: Float[ndarray, " features"]
    covariance: Float[ndarray, "features features"]
    objective: float
    log_evidence: float
    n_observations: int

    def belief(self, *, gain: float = 1.0) -> Belief:
        """The normal belief with this mean and covariance."""
        return Belief(self.mean, self.covariance, self.n_observations, gain)


@dataclass(frozen=True, eq=False)
class Fits:
    """`Fit`, for many users at once: every field has a leading axis of users."""

    mean: Float[ndarray, "users features"]
    covariance: Float[ndarray, "users features features"]
    objective: Float[ndarray, " users"]
    log_evidence: Float[ndarray, " users"]
    n_observations: Int[ndarray, " users"]


@dataclass(frozen=True, eq=False)
class RootedPrior:
    """A normal prior that may be flat: some directions of the vector can be known exactly.

    Attributes:
        mean: `[features]`.
        root: `[features, free]`, full column rank; the covariance is `root @ root.T`.
    """

    mean: Float[ndarray, " features"]
    root: Float[ndarray, "features free"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """How likely the first of two answers is preferred.

    Attributes:
        margin_mean: Mean of the margin, `gain * mean . u`.
        margin_variance: Its variance under the belief.
        probability: Probability with the margin's uncertainty taken in (moderated).
    """

    margin_mean: float
    margin_variance: float
    probability: float


def fit(
    features: Float[ndarray, "comparisons features"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Fit:
    """Exact posterior mode of one user's comparisons, with Laplace covariance.

    Minimises `sum_i discount_i (label_i softplus(-m_i) + (1 - label_i) softplus(m_i))` plus half
    the squared prior distance, `m_i = gain * mean . u_i`. No comparisons give the prior back.

    Args:
        features: `[comparisons, features]`, first answer's minus second's.
        labels: `[comparisons]`, 1 first preferred, 0 second, 0.5 a tie; or a probability.
        prior: Normal prior; with a `RootedPrior` the vector stays within its directions.
        gain: How sharply labels follow margins.
        discounts: `[comparisons]` in [0, 1]; 1 where absent, 0 leaves a comparison out.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
        InvalidCoefficientsError: the prior covariance is not symmetric positive definite.

    Source:
        Spectral Souping, arXiv 2605.20408, stage 1.
    """
    features = np.asarray(features, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    batch = fit_batch(
        features[None],
        labels[None],
        prior=prior,
        gain=gain,
        discounts=None if discounts is None else np.asarray(discounts, dtype=np.float64)[None],
    )
    return Fit(
        mean=batch.mean[0],
        covariance=batch.covariance[0],
        objective=float(batch.objective[0]),
        log_evidence=float(batch.log_evidence[0]),
        n_observations=int(batch.n_observations[0]),
    )


def fit_batch(
    features: Float[ndarray, "users comparisons features"],
    labels: Float[ndarray, "users comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float | Float[ndarray, " users"] = 1.0,
    discounts: Float[ndarray, "users comparisons"] | None = None,
    tolerance: float = 1e-9,
) -> Fits:
    """`fit` for many users with a common prior; each is answered as if alone.

    Users with fewer comparisons are padded: discount 0 leaves an entry out.

    Args:
        features: `[users, comparisons, features]`.
        labels: `[users, comparisons]`.
        prior: Normal prior of everybody.
        gain: One for all, or `[users]`.
        discounts: `[users, comparisons]` in [0, 1].
        tolerance: Iteration stops when the last step moved no margin by more than this. Newton
            squares the error: 1e-4 leaves about 1e-8 in the mean and 1e-4 in the covariance.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
        InvalidCoefficientsError: the prior covariance is not symmetric positive definite.
        NotConvergedError: more than 200 rounds; cannot happen for finite margins of usual size.
    """
    features, labels, discounts = checked_comparisons(
        features, labels, discounts, n_features=len(prior.mean)
    )
    n_users, n_comparisons, n_features = features.shape
    gains = np.broadcast_to(require_gain(gain), (n_users,))
    root = prior.root if isinstance(prior, RootedPrior) else require_root(prior.covariance)
    size = max(1, CHUNK_NUMBERS // max(1, n_comparisons * n_features))
    n_free = root.shape[1]
    is_standard = root.shape[0] == n_free and np.array_equal(root, np.eye(n_free))
    z = np.empty((n_users, n_free))
    inverse = np.empty((n_users, n_free, n_free))
    objective = np.empty(n_users)
    for start in range(0, n_users, size):
        part = slice(start, start + size)
        scaled = features[part] * gains[part, None, None]
        z[part], inverse[part], objective[part] = fit_whitened(
            scaled if is_standard else scaled @ root,
            scaled @ prior.mean,
            labels[part],
            discounts=discounts[part],
            tolerance=tolerance,
        )
    return Fits(
        mean=prior.mean + z @ root.T,
        covariance=_symmetric(inverse if is_standard else root @ inverse @ root.T),
        objective=objective,
        log_evidence=-objective + 0.5 * np.linalg.slogdet(inverse)[1],
        n_observations=np.count_nonzero(discounts, axis=1),
    )


def update(
    belief: Belief, feature: Float[ndarray, " features"], label: float, *, gain: float = 1.0
) -> Belief:
    """The belief after one more comparison: exact mode of that comparison, rank-one covariance.

    Costs O(features^2). The label may be a tie (0.5) or a probability. Belief and gain of the
    user stay apart: `gain` multiplies the margin and is kept as the belief has it.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.

    Source:
        Spectral Souping, arXiv 2605.20408, one comparison at a time.
    """
    feature = np.asarray(feature, dtype=np.float64)
    mean, covariance = update_batch(
        belief.mean[None],
        belief.covariance[None],
        feature[None],
        np.array([label], dtype=np.float64),
        gain=gain,
    )
    return Belief(mean[0], covariance[0], belief.n_observations + 1, belief.gain)


def update_batch(
    means: Float[ndarray, "users features"],
    covariances: Float[ndarray, "users features features"],
    features: Float[ndarray, "users features"],
    labels: Float[ndarray, " users"],
    *,
    gain: float | Float[ndarray, " users"] = 1.0,
    out: tuple[Float[ndarray, "users f"], Float[ndarray, "users f f"]] | None = None,
) -> tuple[Float[ndarray, "users features"], Float[ndarray, "users features features"]]:
    """`update` for many users, one comparison each.

    Args:
        means: `[users, features]`.
        covariances: `[users, features, features]`.
        features: `[users, features]`, first answer's minus second's.
        labels: `[users]` in [0, 1].
        gain: One for all, or `[users]`.
        out: Where to put the result, of the shapes of means and covariances; may be these.

    Returns:
        Means `[users, features]` and covariances `[users, features, features]`; new arrays where
        `out` is absent.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    _require_updates(means, covariances, features, labels)
    gains = np.broadcast_to(require_gain(gain), (len(means),))
    new_means, new_covariances = out or (np.empty(means.shape), np.empty(covariances.shape))
    size = max(1, CHUNK_NUMBERS // means.shape[1] ** 2)
    scratch = np.empty((min(size, len(means)), *covariances.shape[1:]))
    for start in range(0, len(means), size):
        part = slice(start, start + size)
        _update_part(
            (means[part], covariances[part]),
            features[part] * gains[part, None],
            labels[part],
            out=(new_means[part], new_covariances[part]),
            scratch=scratch,
        )
    return new_means, new_covariances


def predict(
    belief: Belief, feature: Float[ndarray, " features"], *, gain: float = 1.0
) -> Prediction:
    """Probability that the first answer is preferred, the belief's uncertainty taken in.

    The logistic curve is averaged over the normal margin by MacKay's approximation
    `sigmoid(mean / sqrt(1 + pi variance / 8))`; with variance zero it is the plug-in probability.
    """
    margin = float(gain * (belief.mean @ feature))
    variance = float(gain * gain * (feature @ belief.covariance @ feature))
    return Prediction(margin, variance, float(moderate(margin, variance)))


def _update_part(
    prior: tuple[Float[ndarray, "users features"], Float[ndarray, "users f f"]],
    scaled: Float[ndarray, "users features"],
    labels: Float[ndarray, " users"],
    *,
    out: tuple[Float[ndarray, "users features"], Float[ndarray, "users f f"]],
    scratch: Float[ndarray, "chunk f f"],
) -> None:
    means, covariances = prior
    direction = np.matmul(covariances, scaled[..., None])[..., 0]
    variance = np.einsum("pf,pf->p", scaled, direction)
    before = np.einsum("pf,pf->p", scaled, means)
    after = solve_margin(before, variance, labels)
    probability = expit(after)
    curvature = probability * (1.0 - probability)
    # the two are equal at the mode; each is taken where it loses no digits
    residual = np.where(
        variance > 1.0, (after - before) / np.maximum(variance, 1.0), labels - probability
    )
    np.add(means, direction * residual[:, None], out=out[0])
    shrink = direction * (curvature / (1.0 + curvature * variance))[:, None]
    products = np.einsum("pi,pj->pij", shrink, direction, out=scratch[: len(means)])
    np.subtract(covariances, products, out=out[1])


def _symmetric(matrices: Float[ndarray, "users f f"]) -> Float[ndarray, "users f f"]:
    return 0.5 * (matrices + matrices.transpose(0, 2, 1))


def _require_updates(
    means: Float[ndarray, "users features"],
    covariances: Float[ndarray, "users features features"],
    features: Float[ndarray, "users features"],
    labels: Float[ndarray, " users"],
) -> None:
    wanted = (*means.shape, means.shape[-1])
    if (
        features.shape != means.shape
        or covariances.shape != wanted
        or labels.shape != (len(means),)
    ):
        raise InvalidInputError(
            f"Means {means.shape}, covariances {covariances.shape}, features {features.shape} and "
            f"labels {labels.shape} disagree; give one feature vector and one label a user."
        )
    require_shares(labels, name="label")
    require_finite(features)
