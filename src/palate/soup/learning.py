"""Scales of features, and the prior that users' coefficients are learned from.

Features are scaled to a standard deviation of one over calibration answers. Labels identify only
the product of gain and coefficients; the gain is fixed by taking the users of the population to
want, in root mean square, as much as the experts were trained to give:

    gain^2 = E_users[ margin^2 ] / mean_k[ (beta tilt_k)^2 ],   both as variances over answers.

Then coefficients of size one are about an expert's strength, and what remains is how far a user
differs from the typical one.

Source: Spectral Souping, arXiv 2605.20408, online phase ("g = 1 or the population value").
Deviation: the rule for the population value is ours.
"""

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.soup.states import ByExpert

SCALE_FLOOR = 1e-6  # of a feature; an expert that changes no answer is not divided by zero


def feature_scales(
    log_ratios: Float[np.ndarray, "answers experts"], *, beta: float
) -> tuple[ByExpert, ByExpert]:
    """Mean and standard deviation of `beta * log_ratio`, `[experts]` each, over answers.

    Raises:
        InvalidInputError: fewer than two answers, or a log-ratio is not finite.
    """
    values = beta * np.asarray(log_ratios, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.all(np.isfinite(values)):
        raise InvalidInputError(
            f"Log-ratios of shape {values.shape} make no scale; give finite ones of at least two "
            "answers."
        )
    return values.mean(axis=0), np.maximum(values.std(axis=0), SCALE_FLOOR)


def plain_prior(*, n_experts: int, gain: float = 1.0) -> Belief:
    """The prior without a population: every scaled feature alone moves a margin by about one."""
    return Belief(np.zeros(n_experts), np.eye(n_experts) / gain**2, gain=gain)


def population_prior(
    population: Belief, *, calibration: Float[np.ndarray, "answers experts"], scales: ByExpert
) -> Belief:
    """The population's prior with its gain taken out of the coefficients, by the module's rule.

    The population is over scaled features, fitted with gain one; `calibration` are scaled features
    of calibration answers, `scales` what they were divided by, in reward units.

    Returns:
        The same margins: mean and covariance divided by the gain and its square, and the gain.

    Raises:
        InvalidInputError: the population wants nothing of what the experts change.
    """
    spread = np.cov(calibration, rowvar=False).reshape(len(scales), len(scales))
    second = population.covariance + np.outer(population.mean, population.mean)
    wanted = float(np.sum(spread * second))  # E[m' spread m]
    if not wanted > 0:
        raise InvalidInputError(
            "The population's coefficients move no calibration answer, so its gain is unknown; "
            "give answers that differ."
        )
    gain = float(np.sqrt(wanted / np.mean(scales**2)))
    return Belief(
        population.mean / gain, population.covariance / gain**2, population.n_observations, gain
    )
