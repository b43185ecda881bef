from math import sqrt

import numpy as np
import pytest
from scipy import stats

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import bootstrap_interval, rate_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 7), (1, 7), (8, 10), (50, 100), (199, 200), (7, 7)]
)
def test_wilson_ends_solve_the_score_equation(successes, n):
    for end in wilson_interval(successes, n):
        if end in (0.0, 1.0):
            assert successes in (0, n)
        else:
            z = (successes / n - end) / sqrt(end * (1 - end) / n)
            assert abs(z) == pytest.approx(1.959963984540054, abs=1e-9)


def test_wilson_agrees_with_scipy_at_another_confidence():
    expected = stats.binomtest(13, 40).proportion_ci(confidence_level=0.9, method="wilson")
    assert wilson_interval(13, 40, confidence=0.9) == pytest.approx((expected.low, expected.high))


def test_no_trials_say_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2)])
def test_more_successes_than_trials_are_refused(successes, n):
    with pytest.raises(InvalidInputError, match="trials"):
        wilson_interval(successes, n)


def test_the_estimate_is_the_mean_and_counts_are_reported(generator):
    interval = bootstrap_interval(
        [1.0, 2.0, 3.0, 6.0], clusters=["a", "a", "b", "c"], generator=generator
    )
    assert interval.estimate == 3.0
    assert (interval.n, interval.n_clusters) == (4, 3)
    assert interval.low < 3.0 < interval.high


def test_constant_values_have_an_interval_of_no_width(generator):
    interval = bootstrap_interval([0.1] * 9, generator=generator)
    assert interval.high - interval.low < 1e-12
    assert interval.low <= interval.estimate <= interval.high


def test_the_same_generator_gives_the_same_interval():
    values = np.random.default_rng(1).normal(size=40)
    first, second = (
        bootstrap_interval(values, generator=np.random.default_rng(5)) for _ in range(2)
    )
    assert first == second


def test_clusters_of_copies_count_as_one_observation_each(generator):
    values = np.random.default_rng(3).normal(size=25)
    alone = bootstrap_interval(values, generator=np.random.default_rng(7))
    copies = bootstrap_interval(
        np.repeat(values, 8), clusters=np.repeat(np.arange(25), 8), generator=generator
    )
    naive = bootstrap_interval(np.repeat(values, 8), generator=generator)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert naive.high - naive.low < 0.5 * (copies.high - copies.low)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0, 2.0]]])
def test_values_that_are_no_observations_are_refused(values, generator):
    with pytest.raises(InvalidInputError, match="values"):
        bootstrap_interval(values, generator=generator)


def test_labels_of_another_length_and_single_clusters_are_refused(generator):
    with pytest.raises(InvalidInputError, match="3 clusters for 2 values"):
        bootstrap_interval([1.0, 2.0], clusters=[1, 2, 3], generator=generator)
    with pytest.raises(InvalidInputError, match="at least two"):
        bootstrap_interval([1.0, 2.0], clusters=["a", "a"], generator=generator)
    with pytest.raises(InvalidInputError, match="give `clusters` too"):
        bootstrap_interval([1.0, 2.0], second_clusters=["a", "b"], generator=generator)
    with pytest.raises(InvalidInputError, match="0 resamples"):
        bootstrap_interval([1.0, 2.0], generator=generator, n_resamples=0)
    with pytest.raises(InvalidInputError, match="confidence"):
        bootstrap_interval([1.0, 2.0], confidence=95, generator=generator)


def test_few_clusters_have_students_interval(generator):
    values = np.array([0.2, 1.1, 0.4, 0.9])
    interval = bootstrap_interval(values, generator=generator)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_an_interval_never_leaves_the_range_of_what_was_seen(generator):
    values = np.repeat([1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 0.6, 1.0], 10)
    interval = bootstrap_interval(values, clusters=np.repeat(np.arange(8), 10), generator=generator)
    assert interval.low >= 0.6
    assert interval.high <= 1.0


def test_a_rate_of_independent_clusters_is_wilsons_with_students_quantile():
    # nine clusters of one: the error is that of nine trials, known with eight degrees of freedom
    values = [1, 1, 1, 0, 1, 1, 0, 1, 1]
    interval = rate_interval(values, clusters=list("abcdefghi"))
    error = stats.sem(values)
    t = stats.t.ppf(0.975, 8)
    for end in (interval.low, interval.high):
        trials = (7 / 9) * (2 / 9) / error**2
        assert abs(7 / 9 - end) / sqrt(end * (1 - end) / trials) == pytest.approx(t)


def test_a_rate_whose_clusters_agree_counts_each_of_them_once():
    users = np.repeat(np.arange(8), 5)
    assert rate_interval(np.ones(40), clusters=users).low == wilson_interval(8, 8)[0]
    halves = rate_interval([1, 0] * 4, clusters=np.repeat(np.arange(4), 2))
    assert (halves.low, halves.high) == pytest.approx(wilson_interval(2, 4))


def test_rates_outside_zero_and_one_and_labels_of_another_length_are_refused():
    with pytest.raises(InvalidInputError, match=r"1\.5"):
        rate_interval([0.5, 1.5])
    with pytest.raises(InvalidInputError, match="3 clusters for 2 values"):
        rate_interval([1.0, 1.0], clusters=[1, 2, 3])
    with pytest.raises(InvalidInputError, match="give `clusters` too"):
        rate_interval([1.0, 0.0], second_clusters=["a", "b"])


def _covers(interval, truth):
    return interval.low <= truth <= interval.high


def test_ninety_five_percent_intervals_of_independent_values_cover_93_to_97_percent():
    draws = np.random.default_rng(11)
    hits = [
        _covers(bootstrap_interval(draws.normal(size=25), generator=draws, n_resamples=500), 0.0)
        for _ in range(2000)
    ]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_clustered_intervals_cover_93_to_97_percent_and_naive_ones_do_not():
    draws = np.random.default_rng(12)
    clusters = np.repeat(np.arange(24), 10)
    clustered, naive = [], []
    for repeat in range(1500):
        rates = draws.beta(2, 3, size=24)  # users who differ: mean 0.4
        values = (draws.random(240) < np.repeat(rates, 10)).astype(float)
        clustered.append(
            _covers(
                bootstrap_interval(values, clusters=clusters, generator=draws, n_resamples=500), 0.4
            )
        )
        if repeat < 300:
            naive.append(_covers(bootstrap_interval(values, generator=draws, n_resamples=200), 0.4))
    assert 0.93 <= np.mean(clustered) <= 0.97
    assert np.mean(naive) < 0.85


@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0], ids=["noise", "small", "large"])
@pytest.mark.parametrize("shape", [(25, 30, 1), (8, 16, 3)], ids=["25 x 30", "8 x 16 x 3"])
def test_two_way_intervals_cover_93_to_97_percent_with_and_without_effects(effect, shape):
    draws = np.random.default_rng(13)
    users, prompts, _ = (index.ravel() for index in np.indices(shape))
    hits = []
    for _ in range(2000):
        values = draws.normal(size=len(users))
        values += effect * draws.normal(size=shape[0])[users]
        values += effect * draws.normal(size=shape[1])[prompts]
        interval = bootstrap_interval(
            values, clusters=users, second_clusters=prompts, generator=draws
        )
        hits.append(_covers(interval, 0.0))
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("rate", [0.7, 0.95])
def test_rates_of_eight_users_cover_93_to_97_percent_and_intervals_of_a_mean_do_not(rate):
    draws = np.random.default_rng(14)
    users, prompts, _ = (index.ravel() for index in np.indices((8, 16, 3)))
    rates, means = [], []
    for _ in range(2000):
        leaning = 0.4 * draws.normal(size=8)[users] + 0.4 * draws.normal(size=16)[prompts]
        values = leaning + draws.normal(size=384) < stats.norm.ppf(rate) * sqrt(1.32)
        rates.append(
            _covers(rate_interval(values * 1.0, clusters=users, second_clusters=prompts), rate)
        )
        interval = bootstrap_interval(
            values * 1.0, clusters=users, second_clusters=prompts, generator=draws
        )
        means.append(_covers(interval, rate))
    assert 0.93 <= np.mean(rates) <= 0.97
    if rate > 0.9:
        assert np.mean(means) < 0.92
