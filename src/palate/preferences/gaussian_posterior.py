"""The normal distribution closest to a logistic posterior, for credible intervals that cover.

Laplace's approximation puts its centre at the mode, which lies nearer to the prior than the mean
does, and takes the curvature there alone: its 90 % regions of 16 coefficients hold about three of
four users. The normal `q = N(m, S)` with the least `KL(q || posterior)` averages slope and
curvature over itself instead:

    S^-1 = I + sum_i discount_i E_q[s (1 - s)] x_i x_i'
    m    =     sum_i discount_i (label_i - E_q[s]) x_i,

with `s = sigmoid(offset_i + x_i . z)` and `z` the whitened vector. It costs about five times a
Laplace fit, so beliefs are stored as modes and this is computed where an interval is shown.

Averages over a margin are closed: the logistic curve is, to 3e-9, a mixture of eight normal
distribution functions, whose averages over a normal margin are normal distribution functions
again. Quadrature on fixed nodes would lose the curve's bend where the margin is much wider.

The two equations are solved by natural-gradient steps in `(m, S^-1)`, which ascend the bound. A
whole step solves them at once where margins are small and may overshoot where they are large: it
is halved while the bound falls, and shortened where the steps begin to swing.

Source: Opper & Archambeau 2009, "The variational Gaussian approximation revisited"; Khan & Lin
2017, "Conjugate-computation variational inference" (the steps); Monahan & Stefanski 1992 (the
mixture), with the table of Nolan & Wand 2017, "Accurate logistic variational message passing".
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr

from palate.core.types import Belief
from palate.preferences.comparisons import RootedPrior, checked_comparisons, require_gain, root_of
from palate.preferences.newton import fit_whitened

MAX_ROUNDS = 400
MAX_HALVINGS = 40
TOLERANCE = 1e-8
SLACK = 1e-9  # part of the bound that rounding may take away
SHORTER, LONGER = 0.7, 1.2  # a step's length after a swing, and otherwise
MIXTURE = (  # share and scale of each normal
    (0.003246343272134, 1.365340806296348),
    (0.051517477033972, 1.059523971016916),
    (0.195077912673858, 0.830791313765644),
    (0.315569823632818, 0.650732166639391),
    (0.274149576158423, 0.508135425366489),
    (0.131076880695470, 0.396313345166341),
    (0.027912418727972, 0.308904252267995),
    (0.001449567805354, 0.238212616409306),
)
SQRT_TWO_PI = float(np.sqrt(2.0 * np.pi))


def average_fit(
    features: Float[np.ndarray, "comparisons features"],
    labels: Float[np.ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[np.ndarray, " comparisons"] | None = None,
) -> Belief:
    """Posterior mean and covariance of one user, by the closest normal distribution.

    Takes what `palate.preferences.bradley_terry.fit_batch` takes; labels count on from the prior's.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    one, own = np.asarray(features)[None], np.asarray(labels)[None]
    counted = None if discounts is None else np.asarray(discounts)[None]
    (mean,), (covariance,), _, (is_converged,) = average_fits(
        one, own, prior=prior, gain=gain, discounts=counted
    )
    n_observations = prior.n_observations + int(np.size(labels))
    return Belief(mean, covariance, n_observations, gain, bool(is_converged))


def average_fits(
    features: Float[np.ndarray, "users comparisons features"],
    labels: Float[np.ndarray, "users comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float | Float[np.ndarray, " users"] = 1.0,
    discounts: Float[np.ndarray, "users comparisons"] | None = None,
) -> tuple[
    Float[np.ndarray, "users features"],
    Float[np.ndarray, "users features features"],
    Float[np.ndarray, " users"],
    Bool[np.ndarray, " users"],
]:
    """`average_fit` for many users with a common prior; one gain for all, or `[users]`.

    Returns:
        Means, covariances, lower bounds on the log-probability of each user's labels in nats, and
        whether the steps came to rest; otherwise it is the best after 400 rounds.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    features, labels, counted = checked_comparisons(
        features, labels, discounts, n_features=len(prior.mean)
    )
    root = root_of(prior)
    gains = np.broadcast_to(require_gain(gain), (len(features),))
    scaled = features * gains[:, None, None]
    z, spread, bound, is_converged = _closest([scaled @ root, scaled @ prior.mean, labels, counted])
    return prior.mean + z @ root.T, root @ spread @ root.T, bound, is_converged


class _Normals(NamedTuple):
    """One normal for each user, with what the next step needs to know of it."""

    z: Float[np.ndarray, "users free"]
    precision: Float[np.ndarray, "users free free"]
    spread: Float[np.ndarray, "users free free"]
    bound: Float[np.ndarray, " users"]
    slope: Float[np.ndarray, "users free"]  # of the negative bound along `z`
    wanted: Float[np.ndarray, "users free free"]  # the precision that the second equation asks for


def _closest(
    data: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bool[np.ndarray, " users"]]:
    """Each user's closest normal `z, spread`, its bound, and whether the steps came to rest.

    The data are `x, offsets, labels, discounts`; gain and prior root are multiplied into `x`. From
    the mode on; a step is shorter where the last two pointed apart.
    """
    z, spread, *_ = fit_whitened(*data[:3], discounts=data[3])
    users, now = np.arange(len(z)), _normals_at(data, z, np.linalg.inv(spread))
    best = _Normals(*(part.copy() for part in now))
    pace = [np.ones(len(z)), np.zeros_like(z), np.zeros_like(spread)]
    for _ in range(MAX_ROUNDS):
        length, last_step, last_change = pace
        change, least = now.wanted - now.precision, now.bound - SLACK * (1.0 + np.abs(now.bound))
        fresh, step = now, np.zeros_like(now.z)
        for _ in range(MAX_HALVINGS):
            ahead = now.precision + length[:, None, None] * change
            step = np.linalg.solve(ahead, now.slope[..., None])[..., 0]
            fresh = _normals_at(data, now.z - length[:, None] * step, ahead)
            falls = fresh.bound < least
            if not falls.any():
                break
            length = np.where(falls, 0.5 * length, length)
        for part, new in zip(best, fresh, strict=True):
            part[users] = new
        moved = np.abs(fresh.spread - now.spread).max(axis=(1, 2), initial=0.0) / length
        moving = np.maximum(moved, np.abs(step).max(axis=1, initial=0.0)) >= TOLERANCE
        swings = (step * last_step).sum(axis=1) < 0
        swings |= (change * last_change).sum(axis=(1, 2)) < 0
        length = np.where(swings, SHORTER * length, np.minimum(1.0, LONGER * length))
        users, now, pace = users[moving], fresh, [length, step, change]
        if not users.size:
            break
        if not moving.all():
            data, pace = ([part[moving] for part in parts] for parts in (data, pace))
            now = _Normals(*(part[moving] for part in now))
    is_converged = ~np.isin(np.arange(len(best.z)), users)
    return best.z, best.spread, best.bound, is_converged


def _normals_at(
    data: list[np.ndarray],
    z: Float[np.ndarray, "users free"],
    precision: Float[np.ndarray, "users free free"],
) -> _Normals:
    """The normals with these means and precisions; data as for `_closest`."""
    x, offsets, labels, discounts = data
    n_free, spread = x.shape[2], np.linalg.inv(precision)
    margins = offsets + (x @ z[..., None])[..., 0]
    variances = np.maximum(((x @ spread) * x).sum(axis=-1), 0.0)
    softplus, sigmoid, slope = logistic_averages(margins, variances)
    loss = (discounts * (softplus - labels * margins)).sum(axis=1)
    size = np.trace(spread, axis1=1, axis2=2) + (z * z).sum(axis=1) - n_free
    kl = 0.5 * (size + np.linalg.slogdet(precision)[1])
    missed, counted = (discounts * (sigmoid - labels))[:, None], (discounts * slope)[..., None]
    wanted = np.matmul((x * counted).transpose(0, 2, 1), x) + np.eye(n_free)
    return _Normals(z, precision, spread, -loss - kl, np.matmul(missed, x)[:, 0] + z, wanted)


def logistic_averages(
    means: Float[np.ndarray, "*shape"], variances: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Means of softplus, sigmoid and its slope over margins `normal(mean, variance)`, elementwise.

    Each is within 2e-8. Variances are not below zero; zero gives the curves themselves.
    """
    softplus, sigmoid, slope = (np.zeros_like(means) for _ in range(3))
    for mass, scale in MIXTURE:
        width = np.sqrt(1.0 + scale * scale * variances)
        place = means * (scale / width)
        below = ndtr(place)
        density = np.exp(-0.5 * place * place) / SQRT_TWO_PI
        softplus += mass * (means * below + density * (width / scale))
        sigmoid += mass * below
        slope += mass * density * (scale / width)
    return softplus, sigmoid, slope
