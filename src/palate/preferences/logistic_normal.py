"""Averages of the logistic curve over a normal margin, for margins of any width.

The logistic curve is, to 3e-9, a mixture of eight normal distribution functions,
`sigmoid(m) = sum_k p_k Phi(s_k m)`. The average of each over a normal margin is again a normal
distribution function, so averages of the curve, of its slope and of its integral are closed and
remain each other's derivatives. Quadrature on fixed nodes is neither: where the margin is much
wider than the curve's bend, the bend falls between two nodes.

Source: Monahan & Stefanski 1992, "Normal scale mixture approximations to F*(z) and computation of
the logistic-normal integral"; the table with eight components as in Nolan & Wand 2017, "Accurate
logistic variational message passing: algebraic and numerical details".
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtr

MASSES = (
    0.003246343272134,
    0.051517477033972,
    0.195077912673858,
    0.315569823632818,
    0.274149576158423,
    0.131076880695470,
    0.027912418727972,
    0.001449567805354,
)
SCALES = (
    1.365340806296348,
    1.059523971016916,
    0.830791313765644,
    0.650732166639391,
    0.508135425366489,
    0.396313345166341,
    0.308904252267995,
    0.238212616409306,
)
SQRT_TWO_PI = float(np.sqrt(2.0 * np.pi))


@dataclass(frozen=True, eq=False)
class LogisticAverages:
    """Means over normal margins, each within 2e-8.

    Attributes:
        softplus: Of `log(1 + exp(m))`, nats.
        sigmoid: Of `1 / (1 + exp(-m))`.
        slope: Of the sigmoid's slope.
    """

    softplus: Float[ndarray, "*shape"]
    sigmoid: Float[ndarray, "*shape"]
    slope: Float[ndarray, "*shape"]


def logistic_averages(
    means: Float[ndarray, "*shape"], variances: Float[ndarray, "*shape"]
) -> LogisticAverages:
    """Means of softplus, sigmoid and its slope over margins `normal(mean, variance)`, elementwise.

    Args:
        means: Of the margins.
        variances: Of the margins, not below zero; zero gives the curves themselves.
    """
    softplus, sigmoid, slope = (np.zeros_like(means) for _ in range(3))
    for mass, scale in zip(MASSES, SCALES, strict=True):
        width = np.sqrt(1.0 + scale * scale * variances)
        place = means * (scale / width)
        below = ndtr(place)
        density = np.exp(-0.5 * place * place) / SQRT_TWO_PI
        softplus += mass * (means * below + density * (width / scale))
        sigmoid += mass * below
        slope += mass * density * (scale / width)
    return LogisticAverages(softplus, sigmoid, slope)
