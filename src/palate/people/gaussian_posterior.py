"""The normal distribution closest to a logistic posterior, for credible regions that cover.

Laplace's approximation puts its centre at the mode, which lies nearer to the prior than the mean
does, and takes the curvature there alone: its 90 % regions of 16 coefficients hold about three of
four people. The normal `q = N(m, S)` with the least `KL(q || posterior)` averages slope and
curvature over itself instead:

    S^-1 = I + sum_i discount_i E_q[s (1 - s)] x_i x_i'
    m    =     sum_i discount_i (label_i - E_q[s]) x_i,

with `s = sigmoid(offset_i + x_i . z)` and `z` the whitened vector. Averages over a margin are one-
dimensional and done by Gauss-Hermite quadrature. It costs about five times a Laplace fit, so
beliefs are stored as modes and this is asked for where a region is shown.

Source: Opper & Archambeau 2009, "The variational Gaussian approximation revisited".
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import NotConvergedError
from palate.core.types import Belief
from palate.people.bradley_terry import RootedPrior
from palate.people.comparisons import checked_comparisons, require_gain, require_root
from palate.people.newton import fit_whitened, softplus_loss

N_NODES = 20  # of the quadrature; exact for polynomials of degree 39
MAX_ROUNDS = 200
PLAIN_ROUNDS = 50  # full steps; then half ones, which cannot swing
TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class AverageFits:
    """The closest normal of every person.

    Attributes:
        mean: `[people, features]`.
        covariance: `[people, features, features]`.
        bound: `[people]`, lower bound on the log-probability of the person's labels, in nats.
    """

    mean: Float[ndarray, "people features"]
    covariance: Float[ndarray, "people features features"]
    bound: Float[ndarray, " people"]


def average_fit(
    features: Float[ndarray, "comparisons features"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Belief:
    """Posterior mean and covariance of one person, by the closest normal distribution.

    Args:
        features: `[comparisons, features]`, first answer's minus second's.
        labels: `[comparisons]` in [0, 1].
        prior: Normal prior; with a `RootedPrior` the vector stays within its directions.
        gain: How sharply labels follow margins.
        discounts: `[comparisons]` in [0, 1]; 1 where absent.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
        NotConvergedError: more than 200 rounds.
    """
    found = average_fits(
        np.asarray(features, dtype=np.float64)[None],
        np.asarray(labels, dtype=np.float64)[None],
        prior=prior,
        gain=gain,
        discounts=None if discounts is None else np.asarray(discounts, dtype=np.float64)[None],
    )
    return Belief(found.mean[0], found.covariance[0], int(np.size(labels)), gain)


def average_fits(
    features: Float[ndarray, "people comparisons features"],
    labels: Float[ndarray, "people comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float | Float[ndarray, " people"] = 1.0,
    discounts: Float[ndarray, "people comparisons"] | None = None,
) -> AverageFits:
    """`average_fit` for many people with a common prior; one gain for all, or `[people]`.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
        NotConvergedError: more than 200 rounds.
    """
    features, labels, counted = checked_comparisons(
        features, labels, discounts, n_features=len(prior.mean)
    )
    root = prior.root if isinstance(prior, RootedPrior) else require_root(prior.covariance)
    gains = np.broadcast_to(require_gain(gain), (len(features),))
    scaled = features * gains[:, None, None]
    x, offsets = scaled @ root, scaled @ prior.mean
    z, spread = _closest(x, offsets, labels, counted)
    return AverageFits(
        prior.mean + z @ root.T,
        root @ spread @ root.T,
        _bound(x, offsets, labels, counted, z=z, spread=spread),
    )


def _closest(
    x: Float[ndarray, "people comparisons free"],
    offsets: Float[ndarray, "people comparisons"],
    labels: Float[ndarray, "people comparisons"],
    discounts: Float[ndarray, "people comparisons"],
) -> tuple[Float[ndarray, "people free"], Float[ndarray, "people free free"]]:
    """Mean and covariance of the closest normal, started at the mode and its curvature."""
    z, spread, _ = fit_whitened(x, offsets, labels, discounts=discounts)
    for turn in range(MAX_ROUNDS):
        margins = offsets + (x @ z[..., None])[..., 0]
        chance, curvature = _averages(margins, _deviations(x, spread))
        slope = np.matmul((discounts * (chance - labels))[:, None, :], x)[:, 0] + z
        precision = np.matmul((x * (discounts * curvature)[..., None]).transpose(0, 2, 1), x)
        fresh = np.linalg.inv(precision + np.eye(x.shape[-1]))
        length = 1.0 if turn < PLAIN_ROUNDS else 0.5
        step = length * np.matmul(fresh, slope[..., None])[..., 0]
        moved = max(_largest(step), _largest(fresh - spread))
        z = z - step
        spread = spread + length * (fresh - spread)
        if moved < TOLERANCE:
            return z, spread
    raise NotConvergedError(
        f"The closest normal distribution did not settle within {MAX_ROUNDS} rounds; "
        "scale the features to a standard deviation of about one.",
        last=z,
    )


def _bound(
    x: Float[ndarray, "people comparisons free"],
    offsets: Float[ndarray, "people comparisons"],
    labels: Float[ndarray, "people comparisons"],
    discounts: Float[ndarray, "people comparisons"],
    *,
    z: Float[ndarray, "people free"],
    spread: Float[ndarray, "people free free"],
) -> Float[ndarray, " people"]:
    """Mean log-likelihood under the normal, less its KL to the standard normal prior."""
    margins, deviations = offsets + (x @ z[..., None])[..., 0], _deviations(x, spread)
    nodes, masses = np.polynomial.hermite_e.hermegauss(N_NODES)
    loss = sum(
        mass * softplus_loss(margins + node * deviations, labels)
        for node, mass in zip(nodes, masses / masses.sum(), strict=True)
    )
    trace = np.trace(spread, axis1=1, axis2=2)
    kl = 0.5 * (trace + (z * z).sum(axis=1) - z.shape[1] - np.linalg.slogdet(spread)[1])
    return -(discounts * loss).sum(axis=1) - kl


def _deviations(
    x: Float[ndarray, "people comparisons free"], spread: Float[ndarray, "people free free"]
) -> Float[ndarray, "people comparisons"]:
    """Standard deviations of the margins."""
    return np.sqrt(np.maximum(((x @ spread) * x).sum(axis=-1), 0.0))


def _averages(
    margins: Float[ndarray, "people comparisons"], deviations: Float[ndarray, "people comparisons"]
) -> tuple[Float[ndarray, "people comparisons"], Float[ndarray, "people comparisons"]]:
    """Means of `sigmoid` and of its slope over normal margins."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(N_NODES)
    chance, curvature = np.zeros_like(margins), np.zeros_like(margins)
    for node, mass in zip(nodes, masses / masses.sum(), strict=True):
        value = expit(margins + node * deviations)
        chance += mass * value
        curvature += mass * value * (1.0 - value)
    return chance, curvature


def _largest(values: Float[ndarray, "*shape"]) -> float:
    return float(np.abs(values).max(initial=0.0))
