"""Calibration: whether stated probabilities come true as often as they say.

Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability"; Naeini, Cooper
and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (expected
calibration error); Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams"
(consistency resampling).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import (
    Interval,
    Labels,
    bootstrap_interval,
    require_observations,
    wilson_interval,
)


@dataclass(frozen=True)
class ReliabilityBin:
    """Forecasts of about the same probability, and what came of them.

    Attributes:
        mean_probability: Of the forecasts in the bin.
        observed: Share that came true, with Wilson's interval.
    """

    mean_probability: float
    observed: Interval


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error beside what calibrated forecasts would show.

    Attributes:
        estimate: `sum over bins of n_bin / n * |observed - mean probability|`.
        if_calibrated: Mean of the same number when every forecast is right; it is not zero,
            because bins are finite.
        p_value: Share of calibrated repetitions with an error at least as large.
        n: Forecasts.
        n_bins: Bins that hold a forecast.
    """

    estimate: float
    if_calibrated: float
    p_value: float
    n: int
    n_bins: int


def reliability(
    probabilities: Float[ndarray, " forecasts"] | Sequence[float],
    outcomes: Float[ndarray, " forecasts"] | Sequence[float],
    *,
    n_bins: int = 10,
    confidence: float = 0.95,
) -> list[ReliabilityBin]:
    """One entry per bin of equal width that holds a forecast, from low to high probability.

    Args:
        probabilities: `[forecasts]` in [0, 1].
        outcomes: `[forecasts]`, 1 where it came true, 0 where not.
        n_bins: Bins over [0, 1]; a probability of one belongs to the last.
        confidence: Of the intervals, which take the forecasts for independent.

    Raises:
        InvalidInputError: lengths differ, or a value is out of range.
    """
    stated, came_true = _require_forecasts(probabilities, outcomes)
    bins = _bin_index(stated, n_bins=n_bins)
    return [
        _reliability_bin(stated[bins == each], came_true[bins == each], confidence=confidence)
        for each in np.unique(bins)
    ]


def expected_calibration_error(
    probabilities: Float[ndarray, " forecasts"] | Sequence[float],
    outcomes: Float[ndarray, " forecasts"] | Sequence[float],
    *,
    generator: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
) -> CalibrationError:
    """Mean distance between what was said and what came, bin by bin.

    Biased upwards: read it against `if_calibrated`. Blind to errors that cancel within a bin, and
    to sharpness: saying the base rate every time is perfectly calibrated.

    Args:
        probabilities: `[forecasts]` in [0, 1].
        outcomes: `[forecasts]`, 1 where it came true, 0 where not.
        generator: Source of the outcomes of calibrated forecasts.
        n_bins: Bins of equal width over [0, 1].
        n_resamples: Calibrated repetitions.

    Raises:
        InvalidInputError: lengths differ, or a value is out of range.

    Source:
        Naeini et al. 2015; Bröcker and Smith 2007.
    """
    stated, came_true = _require_forecasts(probabilities, outcomes)
    bins = _bin_index(stated, n_bins=n_bins)

    def error(outcome: Float[ndarray, " forecasts"]) -> float:
        # n_bin / n * |mean - mean| is |sum of differences in the bin| / n
        return float(np.abs(np.bincount(bins, weights=outcome - stated)).sum() / len(stated))

    estimate = error(came_true)
    calibrated = np.array(
        [error(generator.random(len(stated)) < stated) for _ in range(n_resamples)]
    )
    n_as_large = int(np.sum(calibrated >= estimate))
    return CalibrationError(
        estimate=estimate,
        if_calibrated=float(calibrated.mean()),
        p_value=(1 + n_as_large) / (1 + n_resamples),
        n=len(stated),
        n_bins=len(np.unique(bins)),
    )


def brier_score(
    probabilities: Float[ndarray, " forecasts"] | Sequence[float],
    outcomes: Float[ndarray, " forecasts"] | Sequence[float],
    *,
    generator: np.random.Generator,
    clusters: Labels | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Mean squared distance of probability and outcome: 0 is perfect, 0.25 is a coin's.

    Raises:
        InvalidInputError: lengths differ, a value is out of range, or as in `bootstrap_interval`.

    Source:
        Brier 1950, for two classes counted once.
    """
    stated, came_true = _require_forecasts(probabilities, outcomes)
    return bootstrap_interval(
        (stated - came_true) ** 2, generator=generator, clusters=clusters, confidence=confidence
    )


def interval_coverage(
    *,
    low: Float[ndarray, " intervals"],
    high: Float[ndarray, " intervals"],
    truth: Float[ndarray, " intervals"],
    confidence: float = 0.95,
) -> Interval:
    """Share of stated intervals that hold the truth, with Wilson's interval.

    Args:
        low: `[intervals]`, lower ends.
        high: `[intervals]`, upper ends.
        truth: `[intervals]`.
        confidence: Of the interval of the share, not of the stated intervals.

    Raises:
        InvalidInputError: lengths differ, or there are none.
    """
    if not (low.shape == high.shape == truth.shape) or truth.ndim != 1 or not truth.size:
        raise InvalidInputError(
            f"{low.shape}, {high.shape} and {truth.shape} are the shapes of lower ends, upper ends "
            "and truths; give three vectors of one length, at least one."
        )
    return _rate((low <= truth) & (truth <= high), confidence=confidence)


def _rate(hits: ndarray, *, confidence: float) -> Interval:
    low, high = wilson_interval(int(hits.sum()), len(hits), confidence=confidence)
    return Interval(float(hits.mean()), low, high, len(hits), len(hits))


def _reliability_bin(stated: ndarray, came_true: ndarray, *, confidence: float) -> ReliabilityBin:
    return ReliabilityBin(float(stated.mean()), _rate(came_true, confidence=confidence))


def _bin_index(stated: Float[ndarray, " forecasts"], *, n_bins: int) -> ndarray:
    if n_bins < 1:
        raise InvalidInputError(f"{n_bins} bins cannot hold a forecast; use at least one.")
    return np.minimum((stated * n_bins).astype(int), n_bins - 1)


def _require_forecasts(
    probabilities: Float[ndarray, " forecasts"] | Sequence[float],
    outcomes: Float[ndarray, " forecasts"] | Sequence[float],
) -> tuple[Float[ndarray, " forecasts"], Float[ndarray, " forecasts"]]:
    stated = require_observations(probabilities, name="probabilities")
    came_true = require_observations(np.asarray(outcomes, dtype=float), name="outcomes")
    if stated.shape != came_true.shape:
        raise InvalidInputError(
            f"There are {len(stated)} probabilities for {len(came_true)} outcomes; give one each."
        )
    if stated.min() < 0 or stated.max() > 1 or not np.all(np.isin(came_true, (0.0, 1.0))):
        raise InvalidInputError(
            "Probabilities must lie in [0, 1] and outcomes be 0 or 1; "
            f"found probabilities from {stated.min():.6g} to {stated.max():.6g}."
        )
    return stated, came_true
