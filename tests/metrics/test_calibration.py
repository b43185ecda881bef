import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    interval_coverage,
    reliability,
)
from palate.metrics.intervals import wilson_interval


def test_reliability_by_hand():
    first, last = reliability([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1], n_bins=2)
    assert first.mean_probability == pytest.approx(0.15)
    assert first.observed.estimate == 0.5
    assert last.mean_probability == pytest.approx(0.95)
    assert (last.observed.low, last.observed.high) == wilson_interval(2, 2)


def test_expected_calibration_error_by_hand(generator):
    # half the forecasts are off by 0.35, the others by 0.05
    error = expected_calibration_error(
        [0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1], n_bins=2, generator=generator
    )
    assert error.estimate == pytest.approx(0.2)
    assert (error.n, error.n_bins) == (4, 2)


def test_calibrated_forecasts_are_refuted_in_about_5_percent_and_wrong_ones_always():
    draws = np.random.default_rng(31)
    n_refuted, n_found = 0, 0
    for _ in range(200):
        stated = draws.random(200)
        outcome = draws.random(200)
        right = expected_calibration_error(
            stated, outcome < stated, generator=draws, n_resamples=199
        )
        wrong = expected_calibration_error(
            stated, outcome < stated**2, generator=draws, n_resamples=199
        )
        n_refuted += right.p_value <= 0.05
        n_found += wrong.p_value <= 0.05
    assert 2 <= n_refuted <= 20  # 10 expected; 99.9 % of binomial(200, 0.05)
    assert n_found >= 190


def test_calibrated_forecasts_have_the_error_of_calibrated_forecasts():
    draws = np.random.default_rng(32)
    stated = draws.random(400)
    errors = [
        expected_calibration_error(stated, draws.random(400) < stated, generator=draws)
        for _ in range(30)
    ]
    mean = np.mean([error.estimate for error in errors])
    assert mean == pytest.approx(errors[0].if_calibrated, abs=0.006)
    assert mean > 0.02  # which is why zero is the wrong yardstick


def test_the_brier_score_by_hand(generator):
    score = brier_score([0.5, 1.0, 0.2], [1, 1, 0], generator=generator)
    assert score.estimate == pytest.approx((0.25 + 0.0 + 0.04) / 3)


def test_interval_coverage_by_hand():
    coverage = interval_coverage(
        low=np.array([0.0, 0.0, 2.0]), high=np.array([1.0, 1.0, 3.0]), truth=np.array([1.0, 2, 2])
    )
    assert coverage.estimate == pytest.approx(2 / 3)
    assert (coverage.low, coverage.high) == wilson_interval(2, 3)


def test_bad_forecasts_are_refused(generator):
    with pytest.raises(InvalidInputError, match="outcomes be 0 or 1"):
        reliability([0.5], [0.5])
    with pytest.raises(InvalidInputError, match="one each"):
        brier_score([0.5, 0.5], [1], generator=generator)
    with pytest.raises(InvalidInputError, match="bins"):
        reliability([0.5], [1], n_bins=0)
    with pytest.raises(InvalidInputError, match="one length"):
        interval_coverage(low=np.zeros(2), high=np.zeros(2), truth=np.zeros(3))
