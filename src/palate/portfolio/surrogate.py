"""Surrogate: what policies for other preferences would be worth, predicted from the table alone.

The value vector of a policy that is best for `w` is the slope of the best value `J*` at `w`, since
`J*` is the upper envelope of all policies' values. A smooth interpolation through heights and
slopes (a Gaussian process with derivative observations) predicts `J*` between the policies, and its
slope predicts the value vectors of new ones. Nothing that is certified rests on it.

Choices of ours:
    1. Squared-exponential kernel; its length by maximum likelihood over a fixed list.
    2. The mean function is the average policy, whose value is linear in the preference.
    3. Policies are taken as best for their own preference; standard errors enter as noise.

Source:
    Slopes: palm.md C2. Derivative observations: Rasmussen and Williams 2006, section 9.4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.core.types import PayoffTable
from palate.portfolio.shapes import ByObjective

LENGTHS = np.geomspace(0.15, 3.0, 25)  # of the kernel; the simplex has diameter 1.41
JITTER = 1e-9  # of the kernel's variance; keeps the factorisation definite


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A prediction of the best value and of policies' value vectors, in reward units."""

    directions: Float[ndarray, "objectives free"]  # orthonormal, within the plane of the simplex
    points: Float[ndarray, "policies free"]  # preferences of the policies, in these directions
    mean: ByObjective  # the average policy's values
    loadings: Float[ndarray, " observations"]  # of the kernel at heights, then slopes
    length: float  # of the kernel, in the units of `points`

    def values(
        self, preferences: Float[ndarray, "anchors objectives"]
    ) -> Float[ndarray, "anchors objectives"]:
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
    points: Float[ndarray, "policies free"],
    *,
    observed: Float[ndarray, " observations"],
    noise: Float[ndarray, " observations"],
    length: float,
) -> tuple[float, float, Float[ndarray, " observations"]] | None:
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
    left: Float[ndarray, "left free"], right: Float[ndarray, "right free"], *, length: float
) -> Float[ndarray, "left_observations right_observations"]:
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
