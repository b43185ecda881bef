"""From answers and votes to the basis that people's coefficients are learned in.

Features are scaled to a standard deviation of one over calibration answers. Labels identify only
the product of gain and coefficients; the gain is fixed by taking the people of the population to
want, in root mean square, as much as the experts were trained to give:

    gain^2 = E_people[ margin^2 ] / mean_k[ (beta tilt_k)^2 ],   both as variances over answers.

Then coefficients of size one are about an expert's strength, and what remains is how far a person
differs from the typical one.

Source: Spectral Souping, arXiv 2605.20408, online phase ("g = 1 or the population value").
Deviation: the rule for the population value is ours.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.people.population import fit_population

SCALE_FLOOR = 1e-6  # of a feature; an expert that says nothing of any answer is not divided by zero


def feature_scales(
    log_ratios: Float[ndarray, "answers experts"], *, beta: float
) -> tuple[Float[ndarray, " experts"], Float[ndarray, " experts"]]:
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
    differences: Float[ndarray, "people comparisons experts"],
    labels: Float[ndarray, "people comparisons"],
    *,
    calibration: Float[ndarray, "answers experts"],
    scales: Float[ndarray, " experts"],
    discounts: Float[ndarray, "people comparisons"] | None = None,
) -> Belief:
    """Mean, covariance and gain of a population, from what its people said.

    Args:
        differences: `[people, comparisons, experts]`, scaled features, first answer minus second.
        labels: `[people, comparisons]` in [0, 1].
        calibration: `[answers, experts]`, scaled features of calibration answers.
        scales: `[experts]`, what the features were divided by, in reward units.
        discounts: `[people, comparisons]`; 0 leaves padding out.

    Returns:
        A belief whose `gain` is the population's and whose `n_observations` counts people.

    Raises:
        InvalidInputError: fewer than two people have comparisons, or a value is out of range.
    """
    found = fit_population(differences, labels, discounts=discounts).prior
    spread = np.cov(calibration, rowvar=False).reshape(len(scales), len(scales))
    second = found.covariance + np.outer(found.mean, found.mean)
    wanted = float(np.sum(spread * second))  # E[m' spread m]
    gain = float(np.sqrt(wanted / np.mean(scales**2)))
    return Belief(found.mean / gain, found.covariance / gain**2, found.n_observations, gain)
