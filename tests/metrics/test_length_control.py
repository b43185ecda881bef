import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.metrics.win_rates import length_controlled_rate


def _simulate(draws, *, n, quality, taste, bias):
    gaps = draws.normal(bias, 30, size=n)
    feature = np.tanh(gaps / np.sqrt(np.mean(gaps**2)))
    return (draws.random(n) < expit(quality + taste * feature)).astype(float), gaps


def test_without_length_differences_the_rate_is_the_raw_one():
    result = length_controlled_rate([1, 1, 1, 0] * 50, length_differences=[0] * 200)
    assert result.rate.estimate == pytest.approx(0.75, abs=1e-3)  # the prior pulls a little
    assert result.length_effect == 0.0


def test_the_fit_is_the_optimum_of_the_penalised_likelihood():
    verdicts, gaps = _simulate(np.random.default_rng(1), n=80, quality=0.3, taste=1.0, bias=10)
    feature = np.tanh(gaps / np.sqrt(np.mean(gaps**2)))

    def loss(terms):
        odds = terms[0] + terms[1] * feature
        return np.sum(np.logaddexp(0, odds) - verdicts * odds) + terms @ terms / 50

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    result = length_controlled_rate(verdicts, length_differences=gaps)
    assert result.rate.estimate == pytest.approx(expit(best[0]), abs=1e-5)
    assert result.length_effect == pytest.approx(best[1], abs=1e-4)


def test_a_win_bought_by_length_disappears_and_one_of_quality_stays():
    draws = np.random.default_rng(61)
    verdicts, gaps = _simulate(draws, n=4000, quality=0.0, taste=2.0, bias=30)
    bought = length_controlled_rate(verdicts, length_differences=gaps)
    assert verdicts.mean() > 0.65
    assert bought.rate.low <= 0.5 <= bought.rate.high
    verdicts, gaps = _simulate(draws, n=4000, quality=0.8, taste=0.0, bias=30)
    earned = length_controlled_rate(verdicts, length_differences=gaps)
    assert earned.rate.low <= expit(0.8) <= earned.rate.high
    assert earned.rate.low > 0.6


def test_swapping_the_ways_mirrors_the_rate():
    verdicts, gaps = _simulate(np.random.default_rng(62), n=300, quality=0.5, taste=1.0, bias=20)
    one = length_controlled_rate(verdicts, length_differences=gaps)
    other = length_controlled_rate(1 - verdicts, length_differences=-gaps)
    assert one.rate.estimate == pytest.approx(1 - other.rate.estimate, abs=1e-9)
    assert one.rate.low == pytest.approx(1 - other.rate.high, abs=1e-9)


def test_the_interval_covers_in_93_to_98_percent_of_simulations():
    # the true odds at equal length are `quality`; the feature's scale is that of each sample
    draws = np.random.default_rng(63)
    hits = []
    for _ in range(1000):
        verdicts, gaps = _simulate(draws, n=200, quality=0.4, taste=1.0, bias=15)
        interval = length_controlled_rate(verdicts, length_differences=gaps).rate
        hits.append(interval.low <= expit(0.4) <= interval.high)
    assert 0.93 <= np.mean(hits) <= 0.98


def test_verdicts_that_length_explains_wholly_stay_finite():
    gaps = np.array([5.0, 9.0, -4.0, -7.0] * 10)
    result = length_controlled_rate((gaps > 0).astype(float), length_differences=gaps)
    assert np.isfinite(result.length_effect)
    assert 0 < result.rate.low < 0.5 < result.rate.high < 1


def test_mismatched_input_is_refused():
    with pytest.raises(InvalidInputError, match="do not fit"):
        length_controlled_rate([1, 0], length_differences=[1.0])
    with pytest.raises(InvalidInputError, match="do not fit"):
        length_controlled_rate([2, 0], length_differences=[1.0, 2.0])


def test_two_kinds_of_clusters_widen_the_interval_where_both_lean():
    draws = np.random.default_rng(64)
    users, prompts = (index.ravel() for index in np.indices((10, 30)))
    odds = draws.normal(size=10)[users] + draws.normal(size=30)[prompts]
    verdicts = (draws.random(300) < expit(odds)).astype(float)
    gaps = draws.normal(0, 30, size=300)
    widths = []
    for labels in ({}, {"clusters": prompts}, {"clusters": users, "second_clusters": prompts}):
        rate = length_controlled_rate(verdicts, length_differences=gaps, **labels).rate
        widths.append(rate.high - rate.low)
    assert widths[0] < widths[1] < widths[2]
