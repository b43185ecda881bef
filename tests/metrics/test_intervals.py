from math import sqrt

import numpy as np
import pytest
from scipy import stats

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import (
    bootstrap_interval,
    clustered_variance,
    expanded_tail,
    two_way_variance,
    wilson_interval,
)


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


def test_the_tail_is_expanded_as_in_hesterbergs_table():
    # t quantile 2.776445 for 4 degrees of freedom, times sqrt(5 / 4) = 3.104160
    assert expanded_tail(confidence=0.95, n_clusters=5) == pytest.approx(
        stats.norm.cdf(-3.104160), abs=1e-8
    )


def test_clustered_variance_by_hand():
    # mean 3; deviations summed by cluster -3, 0, 3; 3/2 * 18 / 16
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert clustered_variance(values, np.array([0, 0, 1, 2])) == pytest.approx(27 / 16)


def test_two_way_variance_by_hand():
    # a 2 x 2 design, mean 3, deviations -2, -2, 0, 4: by row -4 and 4, by column -2 and 2
    values = np.array([1.0, 1.0, 3.0, 7.0])
    rows, columns = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    by_row, by_column = 2 * (16 + 16) / 16, 2 * (4 + 4) / 16
    by_cell = 4 / 3 * (4 + 4 + 0 + 16) / 16
    expected = max(by_row + by_column - by_cell, by_row, by_column)
    assert two_way_variance(values, rows, columns) == pytest.approx(expected)


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
        rates = draws.beta(2, 3, size=24)  # people who differ: mean 0.4
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
def test_two_way_intervals_cover_93_to_97_percent_with_and_without_effects(effect):
    draws = np.random.default_rng(13)
    people, prompts = (index.ravel() for index in np.indices((25, 30)))
    hits = []
    for _ in range(1000):
        values = draws.normal(size=750)
        values += effect * (draws.normal(size=25)[people] + draws.normal(size=30)[prompts])
        interval = bootstrap_interval(
            values, clusters=people, second_clusters=prompts, generator=draws, n_resamples=300
        )
        hits.append(_covers(interval, 0.0))
    assert 0.93 <= np.mean(hits) <= 0.97
