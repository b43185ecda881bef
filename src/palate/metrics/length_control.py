"""The win rate that would be left if both answers were of the same length.

Judges like long answers. A logistic model of the verdict with a term for the length difference is
fitted, and the rate is read off where that difference is zero.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval", section 3; Liang and Zeger 1986 for the
clustered standard error.

Deviations:
1. No term for the difficulty of each prompt: it needs other models' verdicts. Clusters carry it.
2. Both terms have a normal prior of standard deviation 5, so that verdicts which length explains
   wholly still have a finite answer.
3. The standard error is the larger of the clustered one, by one or by two crossed kinds, and the
   model's own, which few or agreeing verdicts would otherwise make too small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import root
from scipy.special import expit

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.metrics.clusters import StandardError
from palate.metrics.intervals import (
    Interval,
    Labels,
    cluster_indices,
    fewest_clusters,
    mean_error,
    require_confidence,
    require_observations,
)

PRIOR_SD = 5.0
TOLERANCE = 1e-10


@dataclass(frozen=True)
class LengthControl:
    """The rate at equal length, beside the effect of length."""

    rate: Interval  # of wins of the first method at equal length, ties counting one half
    length_effect: float  # log odds added when the first answer is much the longer


def length_controlled_rate(
    verdicts: Float[ndarray, " comparisons"] | Sequence[float],
    *,
    length_differences: Float[ndarray, " comparisons"] | Sequence[float],
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> LengthControl:
    """Win rate of the first method at equal length.

    It assumes that length acts on the log odds through `tanh(difference / sd)` alone. Where one
    method is always the longer, it extrapolates and the interval widens. Verdicts are 1, 0.5 or 0;
    length differences are first minus second, in tokens or characters; clusters and confidence are
    those of `rate_interval`.

    Raises:
        InvalidInputError: lengths differ, a verdict is outside [0, 1], fewer than two clusters.
        NotConvergedError: the fit stopped early.
    """
    require_confidence(confidence)
    won = require_observations(verdicts, name="verdicts")
    gaps = require_observations(length_differences, name="length differences")
    if won.shape != gaps.shape or won.min() < 0 or won.max() > 1:
        raise InvalidInputError(
            f"{len(won)} verdicts from {won.min()} to {won.max()} and {len(gaps)} length "
            "differences do not fit; give one of each per comparison, verdicts in [0, 1]."
        )
    spread = float(np.sqrt(np.mean(gaps**2)))
    design = np.column_stack([np.ones(len(won)), np.tanh(gaps / spread) if spread else gaps])
    fitted = _fit_logistic(design, won)
    inverse = np.linalg.inv(_curvature(design, fitted))
    # what each comparison moves the log odds by, times their number: the mean of these errs alike
    moves = len(won) * (won - expit(design @ fitted)) * (design @ inverse[0])
    indices = cluster_indices(clusters, second_clusters, n=len(won))
    clustered = mean_error(moves, indices)
    own_error = float(np.sqrt(inverse[0, 0]))
    error = StandardError(max(clustered.error, own_error), clustered.degrees)
    half = error.half_width(confidence)
    low, rate, high = expit(fitted[0] + np.array([-half, 0.0, half]))
    return LengthControl(
        rate=Interval(float(rate), float(low), float(high), len(won), fewest_clusters(indices)),
        length_effect=float(fitted[1]),
    )


def _fit_logistic(
    design: Float[ndarray, "comparisons terms"], won: Float[ndarray, " comparisons"]
) -> Float[ndarray, " terms"]:
    """Where the gradient of the penalised log-likelihood is zero."""
    solution = root(
        lambda terms: design.T @ (won - expit(design @ terms)) - terms / PRIOR_SD**2,
        np.zeros(design.shape[1]),
        jac=lambda terms: -_curvature(design, terms),
        tol=TOLERANCE,
    )
    if not solution.success:
        raise NotConvergedError(
            f"The length model did not settle ({solution.message}); check the verdicts.",
            last=solution.x,
        )
    return solution.x


def _curvature(
    design: Float[ndarray, "comparisons terms"], fitted: Float[ndarray, " terms"]
) -> Float[ndarray, "terms terms"]:
    share = expit(design @ fitted)
    return (design * (share * (1 - share))[:, None]).T @ design + np.eye(len(fitted)) / PRIOR_SD**2
