"""Division: where to make policies so that all pieces of the simplex meet a tolerance alike.

The corner rule cuts the worst piece again and again, so a distance of five times the tolerance ends
as pieces that are better than needed. These rules count the pieces that are needed.

*Two objectives*: the proven distance on an interval falls with the square of its length; the
interval is cut so that its pieces come out alike. The curvature between two policies is that of the
cubic through both best values and slopes (Hermite); a piece's distance is a quarter of the squared
integral of the curvature's root.

*More objectives*: a surrogate predicts which uniform lattice would meet the tolerance. Policies are
made at its preferences, each time at the one nearest to the corner, so that regions where the
distance is met early are left out.

The surrogate: the value vector of a policy that is best for `w` is the slope of the best value `J*`
at `w`, since `J*` is the upper envelope of all policies' values. A smooth interpolation through
heights and slopes (a Gaussian process with derivative observations) predicts `J*` between the
policies, and its slope the value vectors of new ones. Choices of ours:
    1. Squared-exponential kernel; its length by maximum likelihood over a fixed list.
    2. The mean function is the average policy, whose value is linear in the preference.
    3. Policies are taken as best for their own preference; standard errors enter as noise.

Ours. Nothing that is certified rests on any of it.

Source: Slopes: palm.md C2. Derivative observations: Rasmussen and Williams 2006, section 9.4.
"""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from palate.core.errors import InvalidInputError, NotCertifiedError, NotConvergedError
from palate.core.simplex import lattice
from palate.core.types import PayoffTable
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.everybody import Criterion, Stakes
from palate.portfolio.grid import covering_radius, lattice_size
from palate.portfolio.shapes import ByObjective

LENGTHS = np.geomspace(0.15, 3.0, 25)  # of the kernel; the simplex has diameter 1.41
JITTER = 1e-9  # of the kernel's variance; keeps the factorisation definite


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A prediction of the best value and of policies' value vectors, in reward units."""

    directions: Float[np.ndarray, "objectives free"]  # orthonormal, within the plane of the simplex
    points: Float[np.ndarray, "policies free"]  # preferences of the policies, in these directions
    mean: ByObjective  # the average policy's values
    loadings: Float[np.ndarray, " observations"]  # of the kernel at heights, then slopes
    length: float  # of the kernel, in the units of `points`

    def values(
        self, preferences: Float[np.ndarray, "anchors objectives"]
    ) -> Float[np.ndarray, "anchors objectives"]:
        """Predicted value vectors of policies made for these preferences; `w @ values` is `J*`."""
        points = preferences @ self.directions
        cross = _kernel(points, self.points, length=self.length) @ self.loadings
        heights, slopes = cross[: len(points)], cross[len(points) :].reshape(points.shape)
        full = slopes @ self.directions.T
        tangent = heights[:, None] - np.sum(full * preferences, axis=1)[:, None] + full
        return tangent + self.mean


def fit_surrogate(table: PayoffTable) -> Surrogate:
    """The surrogate through a table of policies, each with the preference it was made for.

    Raises:
        InvalidInputError: no policies, fewer than two objectives, or a preference is unknown.
        NotConvergedError: no length gave a definite kernel.
    """
    if not table.policies or len(table.objectives) < 2 or np.any(np.isnan(table.preferences)):
        raise InvalidInputError(
            "A surrogate needs policies for two objectives or more, each with the preference it "
            "was made for; fill in the preferences."
        )
    n_objectives = len(table.objectives)
    spanning = np.column_stack([np.ones(n_objectives), np.eye(n_objectives)[:, :-1]])
    directions = np.linalg.qr(spanning)[0][:, 1:]
    points = table.preferences @ directions
    mean = table.values.mean(axis=0)
    rest = table.values - mean
    observed = np.concatenate(
        [np.sum(table.preferences * rest, axis=1), (rest @ directions).ravel()]
    )
    variances = table.standard_errors**2
    noise = np.concatenate(
        [np.sum(table.preferences**2 * variances, axis=1), (variances @ directions**2).ravel()]
    )
    fits = [_fit(points, observed=observed, noise=noise, length=length) for length in LENGTHS]
    definite = [fit for fit in fits if fit is not None]
    if not definite:
        raise NotConvergedError("No length of the kernel gave a definite surrogate.")
    _, length, loadings = max(definite, key=lambda fit: fit[0])
    return Surrogate(directions, points, mean, loadings=loadings, length=length)


def _fit(
    points: Float[np.ndarray, "policies free"],
    *,
    observed: Float[np.ndarray, " observations"],
    noise: Float[np.ndarray, " observations"],
    length: float,
) -> tuple[float, float, Float[np.ndarray, " observations"]] | None:
    """Log-likelihood with the best variance, length, and loadings."""
    kernel = _kernel(points, points, length=length)
    scale = max(float(observed @ observed) / len(observed), 1e-300)
    kernel[np.diag_indices_from(kernel)] += JITTER * np.diag(kernel) + noise / scale
    try:
        factor = cho_factor(kernel, lower=True)
    except LinAlgError:
        return None
    loadings = cho_solve(factor, observed)
    variance = max(float(observed @ loadings) / len(observed), 1e-300)
    likelihood = -0.5 * len(observed) * np.log(variance) - np.log(np.diag(factor[0])).sum()
    return float(likelihood), float(length), loadings


def _kernel(
    left: Float[np.ndarray, "left free"], right: Float[np.ndarray, "right free"], *, length: float
) -> Float[np.ndarray, "left_observations right_observations"]:
    """Covariances of heights and slopes: heights first, then slopes point by point."""
    n_left, n_right, free = len(left), len(right), left.shape[1]
    apart = left[:, None, :] - right[None, :, :]
    heights = np.exp(-np.sum(apart**2, axis=2) / (2.0 * length**2))
    slopes = heights[:, :, None] * apart / length**2
    curves = heights[:, :, None, None] * (
        np.eye(free) / length**2 - apart[:, :, :, None] * apart[:, :, None, :] / length**4
    )
    return np.block(
        [
            [heights, slopes.reshape(n_left, n_right * free)],
            [
                -slopes.transpose(0, 2, 1).reshape(n_left * free, n_right),
                curves.transpose(0, 2, 1, 3).reshape(n_left * free, n_right * free),
            ],
        ]
    )


N_STEPS = 400  # of the integral over an interval
NEAR = 1.5  # covering radii; a corner with no free lattice preference so near is made itself
ROUNDING = 1e-9  # a count of pieces this near to a whole number is that number


def even_cut(table: PayoffTable, *, at: ByObjective, gap: float, tolerance: float) -> ByObjective:
    """The preference to make a policy for next, between the two policies around `at`.

    The table has two objectives and every policy its preference; `at` is the corner preference with
    the largest distance, the `gap`, in units of the positive `tolerance`. Where one cut is enough,
    it comes back.
    """
    n_pieces = ceil(sqrt(gap / tolerance) - ROUNDING)
    shares = table.preferences[:, 0]
    if n_pieces <= 2 or not np.any(shares < at[0]) or not np.any(shares > at[0]):
        return at
    left = int(np.argmax(np.where(shares < at[0], shares, -np.inf)))
    right = int(np.argmin(np.where(shares > at[0], shares, np.inf)))
    places = np.linspace(shares[left], shares[right], N_STEPS + 1)
    roots = np.sqrt(_curvatures(table, left=left, right=right))
    density = np.linspace(roots[0], roots[1], N_STEPS + 1)
    measure = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    if measure[-1] <= 0.0:
        return at
    share = float(np.interp(measure[-1] * (n_pieces // 2) / n_pieces, measure, places))
    return np.array([share, 1.0 - share])


def lattice_denominator_for(
    table: PayoffTable, *, tolerance: float, criterion: Criterion, max_policies: int
) -> int | None:
    """Denominator of the coarsest lattice predicted to meet the tolerance, within the budget."""
    surrogate = fit_surrogate(table)
    n_objectives = len(table.objectives)
    denominator = 2
    while lattice_size(n_objectives=n_objectives, denominator=denominator) <= max_policies:
        anchors = lattice(n_objectives=n_objectives, denominator=denominator)
        values = surrogate.values(anchors)
        best = np.sum(anchors * values, axis=1)
        try:
            rows = ceiling_rows(preferences=anchors, upper_values=best)
            stakes = Stakes(values=values, rows=rows, criterion=criterion)
            if stakes.gap(list(range(len(anchors)))).value <= tolerance:
                return denominator
        except (NotConvergedError, NotCertifiedError):  # predictions that contradict themselves
            pass
        denominator += 1
    return None


def lattice_anchor(table: PayoffTable, *, at: ByObjective, denominator: int) -> ByObjective:
    """The free preference of the lattice nearest to the corner, or the corner if none is near."""
    n_objectives = len(at)
    anchors = lattice(n_objectives=n_objectives, denominator=denominator)
    taken = np.abs(anchors[:, None, :] - table.preferences[None, :, :]).sum(axis=2).min(axis=1)
    free = anchors[taken > 0.5 / denominator]
    if not len(free):
        return at
    distance = np.abs(free - at).sum(axis=1)
    reach = NEAR * covering_radius(n_objectives=n_objectives, denominator=denominator)
    return free[int(np.argmin(distance))] if distance.min() <= reach else at


def _curvatures(table: PayoffTable, *, left: int, right: int) -> Float[np.ndarray, " two"]:
    """Second derivatives of the Hermite cubic at both ends, not below zero."""
    width = table.preferences[right, 0] - table.preferences[left, 0]
    slopes = table.values[:, 0] - table.values[:, 1]
    best = np.sum(table.preferences * table.values, axis=1)
    chord = (best[right] - best[left]) / width
    first, last = slopes[left], slopes[right]
    ends = np.array([6 * chord - 4 * first - 2 * last, 2 * first + 4 * last - 6 * chord])
    return np.clip(ends / width, 0.0, None)
