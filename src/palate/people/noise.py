"""How noisy a person is: the gain with which labels follow margins.

A careful person's labels follow large margins almost always; a careless or contradictory one's
hardly; a random voter's not at all. The gain is found by the evidence of the person's labels over a
grid, under a log-normal prior around the population's gain, so that a person with few labels is
taken as an average one. Contradictions lower the gain; they are never an error.

Source: Spectral Souping, arXiv 2605.20408, log-evidence of a fit; MacKay 1992, "Bayesian
interpolation".
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import softmax

from palate.core.types import Belief
from palate.people.bradley_terry import RootedPrior, fit_batch

STEPS = np.arange(-12, 5) / 2.0  # grid of the gain, in powers of two around the population's
LOG_SD = np.log(3.0)  # people's gains spread by about this factor; of the log-normal prior


def fit_gain(
    features: Float[ndarray, "comparisons features"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> float:
    """One person's gain: geometric mean of the posterior over the grid.

    Args:
        features: `[comparisons, features]`.
        labels: `[comparisons]` in [0, 1].
        prior: Of the person's vector; its scale gives the gain its meaning.
        gain: The population's.
        discounts: `[comparisons]` in [0, 1]; 1 where absent.

    Returns:
        Between 1/64 and 4 times the population's; exactly the population's without labels.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    gains = gain * 2.0**STEPS
    if len(y) == 0:
        return gain
    counted = np.ones(len(y)) if discounts is None else np.asarray(discounts, dtype=np.float64)
    fits = fit_batch(
        np.broadcast_to(x, (len(gains), *x.shape)),
        np.broadcast_to(y, (len(gains), *y.shape)),
        prior=prior,
        gain=gains,
        discounts=np.broadcast_to(counted, (len(gains), *counted.shape)),
        tolerance=1e-6,
    )
    log_ratio = np.log(2.0) * STEPS
    share = softmax(fits.log_evidence - 0.5 * (log_ratio / LOG_SD) ** 2)
    share_of_prior = softmax(-0.5 * (log_ratio / LOG_SD) ** 2)
    # the grid reaches further down than up; without labels the mean must be the population's gain
    return float(gain * np.exp((share - share_of_prior) @ log_ratio))


def fit_gains(
    features: Float[ndarray, "people comparisons features"],
    labels: Float[ndarray, "people comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, "people comparisons"] | None = None,
) -> Float[ndarray, " people"]:
    """`fit_gain` for many people."""
    counted = np.ones(np.shape(labels)) if discounts is None else np.asarray(discounts)
    return np.array(
        [
            fit_gain(x[c > 0], y[c > 0], prior=prior, gain=gain, discounts=c[c > 0])
            for x, y, c in zip(features, labels, counted, strict=True)
        ]
    )
