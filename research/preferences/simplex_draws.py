"""Draws from a normal belief cut off at the edges of the simplex, by hit-and-run.

From a point inside, a line is drawn in a random direction of the belief's own shape; the belief
along it is a one-dimensional normal, cut where a share would get negative, and the next point is
drawn from that. Mean and credible regions are read off the draws.

Source: Smith 1984; Belisle, Romeijn & Smith 1993, "Hit-and-run algorithms".

Choice of ours: hit-and-run for every number of objectives; fixed points of the simplex become too
sparse for narrow beliefs over five objectives and more.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import null_space
from scipy.special import ndtr, ndtri

from palate.core.errors import InvalidInputError
from palate.core.types import Belief

N_CHAINS = 256
N_WARM_UP = 16  # steps of each chain that are thrown away
N_KEPT = 16  # steps of each chain that are kept: 4,096 draws in all


def preference_mean(belief: Belief, *, seed: int = 0) -> Float[ndarray, " objectives"]:
    """The preference to route by: mean of the belief cut off at the edges of the simplex."""
    mean = preference_draws(belief, seed=seed).mean(axis=0)
    return mean / mean.sum()


def preference_draws(belief: Belief, *, seed: int = 0) -> Float[ndarray, "draws objectives"]:
    """4,096 preferences from the normal belief, cut off at the edges of the simplex.

    The same belief and seed give the same draws. Chains start inside, near the mode.

    Raises:
        InvalidInputError: the belief's mean is off the plane `sum w = 1`.
    """
    return preference_draws_batch(belief.mean[None], belief.covariance[None], seed=seed)[0]


def preference_draws_batch(
    means: Float[ndarray, "users objectives"],
    covariances: Float[ndarray, "users objectives objectives"],
    *,
    seed: int = 0,
    n_chains: int = N_CHAINS,
) -> Float[ndarray, "users draws objectives"]:
    """`preference_draws` for many users, `16 n_chains` each.

    Raises:
        InvalidInputError: a mean is off the plane `sum w = 1`.
    """
    if not np.allclose(means.sum(axis=1), 1.0, atol=1e-6):
        raise InvalidInputError("A belief's mean does not sum to 1; it is no belief of preference.")
    generator = np.random.default_rng(seed)
    n_users, n_objectives = means.shape
    basis = plane_basis(n_objectives)
    roots = basis @ np.linalg.cholesky(basis.T @ covariances @ basis)  # [users, d, d - 1]
    inverses = np.linalg.pinv(roots)  # [users, d - 1, d]
    inside = np.clip(means, 0.0, None) + 0.05 / n_objectives
    points = np.repeat((inside / inside.sum(axis=1, keepdims=True))[:, None], n_chains, axis=1)
    kept: list[Float[ndarray, "users chains objectives"]] = []
    for step in range(N_WARM_UP + N_KEPT):
        z = generator.standard_normal((n_chains, n_objectives - 1))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        directions = z @ roots.transpose(0, 2, 1)  # [users, chains, d]
        centred = (points - means[:, None]) @ inverses.transpose(0, 2, 1)
        peak = -np.einsum("pcf,cf->pc", centred, z)  # where the belief is densest along the line
        low, high = _span(points, directions)
        move = _cut_normal(peak, low, high, uniform=generator.random((n_users, n_chains)))
        points = np.clip(points + move[..., None] * directions, 0.0, None)
        points /= points.sum(axis=2, keepdims=True)
        if step >= N_WARM_UP:
            kept.append(points)
    return np.concatenate(kept, axis=1)


def plane_basis(n_objectives: int) -> Float[ndarray, "objectives free"]:
    """Orthonormal directions along which shares change and their sum does not."""
    return null_space(np.ones((1, n_objectives)))


def _span(
    points: Float[ndarray, "*shape objectives"], directions: Float[ndarray, "*shape objectives"]
) -> tuple[Float[ndarray, "*shape"], Float[ndarray, "*shape"]]:
    """How far one may go against and along each direction before a share gets negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = -points / directions
    low = np.where(directions > 0, reach, -np.inf).max(axis=-1)
    high = np.where(directions < 0, reach, np.inf).min(axis=-1)
    return low, high


def _cut_normal(
    peak: Float[ndarray, "*shape"],
    low: Float[ndarray, "*shape"],
    high: Float[ndarray, "*shape"],
    *,
    uniform: Float[ndarray, "*shape"],
) -> Float[ndarray, "*shape"]:
    """Draws from `normal(peak, 1)` cut to [low, high], by inversion on the side of the peak."""
    a, b = low - peak, high - peak
    sign = np.where(a > 0, -1.0, 1.0)  # in the upper tail the mirrored interval keeps its digits
    a, b = np.where(sign < 0, -b, a), np.where(sign < 0, -a, b)
    start, end = ndtr(a), ndtr(b)
    draw = sign * ndtri(np.clip(start + uniform * (end - start), 1e-300, 1.0 - 1e-16))
    return np.clip(peak + draw, low, high)
