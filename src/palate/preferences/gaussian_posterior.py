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

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
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


_Record = TypeVar("_Record", "_Normals", "_Problem", "_Pace")


@dataclass(frozen=True, eq=False)
class AverageFits:
    """The closest normal of every user."""

    mean: Float[ndarray, "users features"]
    covariance: Float[ndarray, "users features features"]
    bound: Float[ndarray, " users"]  # lower bound on the log-probability of the labels, nats
    is_converged: Bool[ndarray, " users"]  # false: the best after 400 rounds


def average_fit(
    features: Float[ndarray, "comparisons features"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Belief:
    """Posterior mean and covariance of one user, by the closest normal distribution.

    Takes what `palate.preferences.bradley_terry.fit` takes.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    one, own = np.asarray(features)[None], np.asarray(labels)[None]
    counted = None if discounts is None else np.asarray(discounts)[None]
    fits = average_fits(one, own, prior=prior, gain=gain, discounts=counted)
    is_converged = bool(fits.is_converged[0])
    return Belief(fits.mean[0], fits.covariance[0], int(np.size(labels)), gain, is_converged)


def average_fits(
    features: Float[ndarray, "users comparisons features"],
    labels: Float[ndarray, "users comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float | Float[ndarray, " users"] = 1.0,
    discounts: Float[ndarray, "users comparisons"] | None = None,
) -> AverageFits:
    """`average_fit` for many users with a common prior; one gain for all, or `[users]`.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    features, labels, counted = checked_comparisons(
        features, labels, discounts, n_features=len(prior.mean)
    )
    root = root_of(prior)
    gains = np.broadcast_to(require_gain(gain), (len(features),))
    scaled = features * gains[:, None, None]
    best, is_converged = _closest(_Problem(scaled @ root, scaled @ prior.mean, labels, counted))
    covariance = root @ best.spread @ root.T
    return AverageFits(prior.mean + best.z @ root.T, covariance, best.bound, is_converged)


@dataclass(frozen=True, eq=False)
class _Normals:
    """One normal for each user, with what the next step needs to know of it."""

    z: Float[ndarray, "users free"]
    precision: Float[ndarray, "users free free"]
    spread: Float[ndarray, "users free free"]
    bound: Float[ndarray, " users"]
    slope: Float[ndarray, "users free"]  # of the negative bound along z
    wanted: Float[ndarray, "users free free"]  # the precision that the second equation asks for

    def take(self, users: ndarray, other: "_Normals") -> None:
        """Put the normals of some users in place."""
        for part in fields(self):
            getattr(self, part.name)[users] = getattr(other, part.name)


@dataclass(frozen=True, eq=False)
class _Problem:
    x: Float[ndarray, "users comparisons free"]  # gain and prior root multiplied in
    offsets: Float[ndarray, "users comparisons"]
    labels: Float[ndarray, "users comparisons"]
    discounts: Float[ndarray, "users comparisons"]

    def at(
        self, z: Float[ndarray, "users free"], precision: Float[ndarray, "users free free"]
    ) -> _Normals:
        """The normals with these means and precisions."""
        x, n_free = self.x, self.x.shape[2]
        spread = np.linalg.inv(precision)
        margins = self.offsets + (x @ z[..., None])[..., 0]
        variances = np.maximum(((x @ spread) * x).sum(axis=-1), 0.0)
        average = logistic_averages(margins, variances)
        loss = self.discounts * (average.softplus - self.labels * margins)
        size = np.trace(spread, axis1=1, axis2=2) + (z * z).sum(axis=1) - n_free
        kl = 0.5 * (size + np.linalg.slogdet(precision)[1])
        missed = (self.discounts * (average.sigmoid - self.labels))[:, None, :]
        counted = (self.discounts * average.slope)[..., None]
        return _Normals(
            z,
            precision,
            spread,
            bound=-loss.sum(axis=1) - kl,
            slope=np.matmul(missed, x)[:, 0] + z,
            wanted=np.matmul((x * counted).transpose(0, 2, 1), x) + np.eye(n_free),
        )


@dataclass(eq=False)
class _Pace:
    """How long each user's next step is; shorter when the last two pointed apart."""

    length: Float[ndarray, " users"]
    step: Float[ndarray, "users free"]
    change: Float[ndarray, "users free free"]

    def follow(
        self, step: Float[ndarray, "users free"], change: Float[ndarray, "users free free"]
    ) -> None:
        """Take in the directions of the step just made."""
        swings = (step * self.step).sum(axis=1) < 0
        swings |= (change * self.change).sum(axis=(1, 2)) < 0
        self.length = np.where(swings, SHORTER * self.length, np.minimum(1.0, LONGER * self.length))
        self.step, self.change = step, change


def _of(record: _Record, users: Bool[ndarray, " users"]) -> _Record:
    """The record of some users."""
    return type(record)(*(getattr(record, part.name)[users] for part in fields(record)))


def _closest(problem: _Problem) -> tuple[_Normals, Bool[ndarray, " users"]]:
    """The closest normal of each user, from the mode on, and whether the steps came to rest."""
    z, spread, *_ = fit_whitened(
        problem.x, problem.offsets, problem.labels, discounts=problem.discounts
    )
    best = now = problem.at(z, np.linalg.inv(spread))
    users = np.arange(len(z))
    pace = _Pace(np.ones(len(z)), np.zeros_like(z), np.zeros_like(spread))
    for _ in range(MAX_ROUNDS):
        fresh = _ascend(problem, now, pace)
        step, change = (fresh.z - now.z) / pace.length[:, None], now.wanted - now.precision
        moved = np.abs(fresh.spread - now.spread).max(axis=(1, 2), initial=0.0) / pace.length
        moved = np.maximum(moved, np.abs(step).max(axis=1, initial=0.0))
        best.take(users, fresh)
        moving = moved >= TOLERANCE
        if not moving.any():
            return best, np.ones(len(z), dtype=bool)
        pace.follow(step, change)
        now = fresh
        if not moving.all():
            users, pace = users[moving], _of(pace, moving)
            problem, now = _of(problem, moving), _of(fresh, moving)
    return best, ~np.isin(np.arange(len(z)), users)


def _ascend(problem: _Problem, now: _Normals, pace: _Pace) -> _Normals:
    """The normals one step on; the pace is lowered until nobody's bound falls."""
    change = now.wanted - now.precision
    least = now.bound - SLACK * (1.0 + np.abs(now.bound))
    fresh = now
    for _ in range(MAX_HALVINGS):
        precision = now.precision + pace.length[:, None, None] * change
        step = np.linalg.solve(precision, now.slope[..., None])[..., 0]
        fresh = problem.at(now.z - pace.length[:, None] * step, precision)
        falls = fresh.bound < least
        if not falls.any():
            return fresh
        pace.length = np.where(falls, 0.5 * pace.length, pace.length)
    return fresh


@dataclass(frozen=True, eq=False)
class LogisticAverages:
    """Means over normal margins, each within 2e-8."""

    softplus: Float[ndarray, "*shape"]  # of `log(1 + exp(m))`, nats
    sigmoid: Float[ndarray, "*shape"]  # of `1 / (1 + exp(-m))`
    slope: Float[ndarray, "*shape"]  # of the sigmoid's slope


def logistic_averages(
    means: Float[ndarray, "*shape"], variances: Float[ndarray, "*shape"]
) -> LogisticAverages:
    """Means of softplus, sigmoid and its slope over margins `normal(mean, variance)`, elementwise.

    Variances are not below zero; zero gives the curves themselves.
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
    return LogisticAverages(softplus, sigmoid, slope)
