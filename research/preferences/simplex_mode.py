"""A user's preference: the same comparisons, with the vector held on the simplex.

The belief is normal on the plane `sum w = 1` (a covariance that is zero along the ones), so that
`bradley_terry.update` keeps every later mean on the plane. Readings of it:

- `fit_plane` refits it from all comparisons, edges of the simplex not taken into account;
- `fit_preference` is the mode on the simplex, by Newton steps on the current face, adding and
  releasing one edge at a time (active set); prior and loss are convex, so it is unique.

Where the belief reaches over the edges, see `research.preferences.simplex_draws`.

Source: Spectral Souping, arXiv 2605.20408, preference belief; Nocedal & Wright 2006, chapter 16
(active sets).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.core.simplex import require_simplex
from palate.core.types import Belief
from palate.preferences.bradley_terry import Fit
from palate.preferences.comparisons import (
    RootedPrior,
    checked_comparisons,
    require_gain,
    require_root,
)
from palate.preferences.newton import softplus_loss
from research.preferences.one_user import fit
from research.preferences.simplex_draws import plane_basis

MAX_ROUNDS = 500
DEFAULT_SD = 0.4  # a prior of this width is nearly flat over the simplex


def normal_on_plane(
    *,
    n_objectives: int,
    sd: float = DEFAULT_SD,
    center: Float[ndarray, " objectives"] | None = None,
) -> Belief:
    """The prior of a preference: round, on the plane `sum w = 1`, not cut off at the edges.

    Args:
        n_objectives: Entries of a preference.
        sd: Standard deviation along every direction of the plane.
        center: Its mean, on the simplex; equal shares where absent.

    Raises:
        InvalidInputError: `sd` is not above zero, or the centre lies off the simplex.
    """
    if not sd > 0:
        raise InvalidInputError(f"The prior sd {sd} is out of range; use a number above 0.")
    shares = np.full(n_objectives, 1.0 / n_objectives) if center is None else center
    plane = np.eye(n_objectives) - 1.0 / n_objectives
    return Belief(require_simplex(shares, name="prior centre"), sd**2 * plane)


def fit_preference(
    features: Float[ndarray, "comparisons objectives"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Fit:
    """Posterior mode on the simplex, with tangent covariance.

    Args:
        features: `[comparisons, objectives]`, rewards of the first answer minus the second's.
        labels: `[comparisons]` in [0, 1].
        prior: Normal on the plane `sum w = 1` (`normal_on_plane`).
        gain: How sharply labels follow margins `w . u`.
        discounts: `[comparisons]` in [0, 1]; 1 where absent.

    Returns:
        The mode on the simplex; the covariance is that of the plane, edges not taken into account.

    Raises:
        InvalidInputError: labels or discounts are out of range, or shapes disagree.
        NotConvergedError: more than 500 rounds.

    Source:
        Spectral Souping, arXiv 2605.20408, preference belief.
    """
    u, y, c = checked_comparisons(
        np.asarray(features)[None],
        np.asarray(labels)[None],
        None if discounts is None else np.asarray(discounts)[None],
        n_features=len(prior.mean),
    )
    u, y, c = u[0] * require_gain(gain), y[0], c[0]
    problem = _Problem(u, y, c, prior.mean, np.linalg.pinv(prior.covariance, hermitian=True))
    mode = _descend(problem)
    objective, _, hessian = problem.at(mode)
    basis = plane_basis(len(mode))
    inverse = np.linalg.inv(basis.T @ hessian @ basis)
    prior_log_det = np.linalg.slogdet(basis.T @ prior.covariance @ basis)[1]
    return Fit(
        mean=mode,
        covariance=basis @ inverse @ basis.T,
        objective=np.asarray(objective),
        log_evidence=-objective - 0.5 * prior_log_det + 0.5 * np.linalg.slogdet(inverse)[1],
        n_observations=np.asarray(np.count_nonzero(c)),
        is_converged=np.ones((), dtype=bool),
    )


def fit_plane(
    features: Float[ndarray, "comparisons objectives"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Fit:
    """`one_user.fit` for a prior on the plane `sum w = 1`; the mode may leave the simplex.

    Args:
        features: `[comparisons, objectives]`.
        labels: `[comparisons]` in [0, 1].
        prior: Normal on the plane (`normal_on_plane`, or a population's).
        gain: How sharply labels follow margins.
        discounts: `[comparisons]` in [0, 1]; 1 where absent.

    Raises:
        InvalidInputError: labels or discounts are out of range, or shapes disagree.
    """
    return fit(features, labels, prior=rooted_on_plane(prior), gain=gain, discounts=discounts)


def rooted_on_plane(prior: Belief) -> RootedPrior:
    """The prior on the plane `sum w = 1`, ready for `fit` and `fit_batch`.

    Raises:
        InvalidCoefficientsError: the covariance is not positive definite along the plane.
    """
    basis = plane_basis(len(prior.mean))
    return RootedPrior(prior.mean, basis @ require_root(basis.T @ prior.covariance @ basis))


@dataclass(frozen=True, eq=False)
class _Problem:
    features: Float[ndarray, "comparisons objectives"]  # the gain multiplied in
    labels: Float[ndarray, " comparisons"]
    discounts: Float[ndarray, " comparisons"]
    center: Float[ndarray, " objectives"]
    precision: Float[ndarray, "objectives objectives"]

    def at(
        self, w: Float[ndarray, " objectives"]
    ) -> tuple[float, Float[ndarray, " objectives"], Float[ndarray, "objectives objectives"]]:
        """Objective, slope and curvature."""
        margins = self.features @ w
        probability = expit(margins)
        away = self.precision @ (w - self.center)
        loss = self.discounts * softplus_loss(margins, self.labels)
        slope = self.features.T @ (self.discounts * (probability - self.labels)) + away
        curvature = self.discounts * probability * (1.0 - probability)
        hessian = (self.features.T * curvature) @ self.features + self.precision
        return float(loss.sum() + 0.5 * (w - self.center) @ away), slope, hessian


def _descend(problem: _Problem) -> Float[ndarray, " objectives"]:
    """Newton on the free entries; at rest, the entry that wants most to grow is released."""
    w = np.clip(problem.center, 0.0, None)
    w = w / w.sum()
    free = w > 0
    for _ in range(MAX_ROUNDS):
        value, slope, hessian = problem.at(w)
        step = _face_step(slope, hessian, free)
        if np.abs(step).max() > 1e-11:
            w = _move(problem, w, step, value=value, slope=slope)
            free &= w > 0
            continue
        price = slope - slope[free].mean()  # below zero: growing this entry would lower the loss
        price[free] = 0.0
        if price.min() >= -1e-9:
            return w
        free[np.argmin(price)] = True
    raise NotConvergedError(
        f"The mode on the simplex was not found within {MAX_ROUNDS} rounds; "
        "scale the features to a standard deviation of about one.",
        last=w,
    )


def _face_step(
    slope: Float[ndarray, " objectives"],
    hessian: Float[ndarray, "objectives objectives"],
    free: ndarray,
) -> Float[ndarray, " objectives"]:
    """The Newton step that moves free entries only and keeps their sum."""
    step = np.zeros(len(slope))
    count = int(free.sum())
    if count > 1:
        basis = plane_basis(count)
        inner = basis.T @ hessian[np.ix_(free, free)] @ basis
        step[free] = -basis @ np.linalg.solve(inner, basis.T @ slope[free])
    return step


def _move(
    problem: _Problem,
    w: Float[ndarray, " objectives"],
    step: Float[ndarray, " objectives"],
    *,
    value: float,
    slope: Float[ndarray, " objectives"],
) -> Float[ndarray, " objectives"]:
    """The point after a step cut at the simplex' edge and halved until the loss falls."""
    shrinking = step < 0
    limits = -w[shrinking] / step[shrinking]
    length = min(1.0, float(limits.min(initial=np.inf)))
    while problem.at(w + length * step)[0] > value + 0.1 * length * (slope @ step) + 1e-14:
        length *= 0.5
    moved = w + length * step
    moved[shrinking] = np.where(limits <= length, 0.0, moved[shrinking])
    return moved / moved.sum()
