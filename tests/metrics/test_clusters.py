from itertools import product

import numpy as np
import pytest
from scipy import stats

from palate.metrics.clusters import (
    StandardError,
    cluster_error,
    crossed_error,
    sign_ends,
    sign_patterns,
)


def test_clusters_of_one_size_err_as_their_means_do():
    means = np.array([1.0, 4.0, 2.0, 7.0])
    found = cluster_error(5 * means, np.full(4, 5.0))
    assert found.error == pytest.approx(stats.sem(means))
    assert found.degrees == 3


def test_the_error_of_unequal_clusters_by_hand():
    # the mean is 12 / 4; without each cluster in turn it is 10 / 3, 6 / 2 and 8 / 3
    away = [10 / 3 - 3, 0.0, 8 / 3 - 3]
    found = cluster_error(np.array([2.0, 6.0, 4.0]), np.array([1.0, 2.0, 1.0]))
    assert found.error == pytest.approx(np.sqrt(2 / 3 * sum(gap**2 for gap in away)))


def test_students_interval_and_p_value_agree_with_scipys():
    values = np.array([0.3, 1.2, -0.4, 0.9, 1.5])
    error = StandardError(float(stats.sem(values)), 4)
    test = stats.ttest_1samp(values, 0.0)
    ends = test.confidence_interval(0.9)
    assert error.p_value(values.mean()) == pytest.approx(test.pvalue)
    assert values.mean() + error.half_width(0.9) == pytest.approx(ends.high)


def _mean_squares(table):
    """Rows', columns' and the rest's mean squares of a table of cells, by definition."""
    n_rows, n_columns = table.shape
    mean = table.mean()
    rows = sum(n_columns * (table[i].mean() - mean) ** 2 for i in range(n_rows)) / (n_rows - 1)
    columns = sum(n_rows * (table[:, j].mean() - mean) ** 2 for j in range(n_columns))
    rest = sum(
        (table[i, j] - table[i].mean() - table[:, j].mean() + mean) ** 2
        for i, j in product(range(n_rows), range(n_columns))
    )
    return rows, columns / (n_columns - 1), rest / ((n_rows - 1) * (n_columns - 1))


def _crossed(table, *, with_pooling):
    rows, columns = (index.ravel() for index in np.indices(table.shape))
    return crossed_error(table.ravel(), rows, columns, with_pooling=with_pooling)


@pytest.mark.parametrize("with_pooling", [True, False])
def test_with_clear_effects_the_crossed_error_is_that_of_the_mean_squares(with_pooling):
    draws = np.random.default_rng(1)
    table = (
        draws.normal(size=(6, 1)) * 3 + draws.normal(size=(1, 9)) * 3 + draws.normal(size=(6, 9))
    )
    rows, columns, rest = _mean_squares(table)
    found = _crossed(table, with_pooling=with_pooling)
    assert found.error**2 == pytest.approx((rows + columns - rest) / 54)
    # Satterthwaite's, with 5, 8 and 40 degrees of freedom
    expected = (rows + columns - rest) ** 2 / (rows**2 / 5 + columns**2 / 8 + rest**2 / 40)
    assert found.degrees == pytest.approx(expected)


def test_without_effects_an_interval_pools_both_kinds_with_the_cells():
    draws = np.random.default_rng(4)
    table = draws.normal(size=(6, 9))
    rows, columns, rest = _mean_squares(table)
    assert stats.f.sf(rows / rest, 5, 40) > 0.25
    assert stats.f.sf(columns / rest, 8, 40) > 0.25
    found = _crossed(table, with_pooling=True)
    assert found.error == pytest.approx(stats.sem(table.ravel()))
    assert found.degrees == pytest.approx(53)


def test_a_test_keeps_what_varies_a_little_more_than_the_cells_and_doubts_what_varies_less():
    # the rows vary a little more than the rest does, the columns less
    for seed in range(100):
        table = np.random.default_rng(seed).normal(size=(6, 9))
        rows, columns, rest = _mean_squares(table)
        if rows > rest > columns and stats.f.sf(rows / rest, 5, 40) > 0.25:
            break
    found = _crossed(table, with_pooling=False)
    assert found.error**2 == pytest.approx(rows / 54)
    assert found.degrees == pytest.approx(rows**2 / (rows**2 / 5 + columns**2 / 8 + rest**2 / 40))
    assert _crossed(table, with_pooling=True).error == pytest.approx(stats.sem(table.ravel()))


def test_far_in_the_tail_a_test_errs_no_more_often_than_it_says_and_pooling_does():
    # four users who lean a little, and prompts that do not: pooling takes them for noise at times
    draws = np.random.default_rng(11)
    n_far = {True: 0, False: 0}
    rows, columns = (index.ravel() for index in np.indices((4, 16)))
    for _ in range(4000):
        table = 0.5 * draws.normal(size=4)[rows] + draws.normal(size=64)
        for with_pooling in (True, False):
            error = crossed_error(table, rows, columns, with_pooling=with_pooling)
            n_far[with_pooling] += error.p_value(float(table.mean())) <= 0.005
    assert n_far[False] <= 34  # 20 wanted, and three standard errors
    assert n_far[True] > 40


def test_missing_cells_leave_what_least_squares_leaves():
    draws = np.random.default_rng(3)
    rows, columns = (index.ravel() for index in np.indices((5, 7)))
    kept = draws.random(35) < 0.7
    rows, columns = rows[kept], columns[kept]
    values = draws.normal(size=5)[rows] * 5 + draws.normal(size=7)[columns] * 5
    values += draws.normal(size=len(values))
    design = np.column_stack([np.eye(5)[rows], np.eye(7)[columns]])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    n = len(values)
    noise = n / (n - 11) * np.sum(rest**2) / n**2
    by_row, by_column = (
        cluster_error(np.bincount(index, weights=values), np.bincount(index).astype(float))
        for index in (rows, columns)
    )
    expected = by_row.error**2 + by_column.error**2 - noise
    assert crossed_error(values, rows, columns, with_pooling=True).error ** 2 == pytest.approx(
        expected
    )


def test_prompts_that_only_one_user_has_add_nothing_to_the_users_error():
    values = np.random.default_rng(6).normal(size=12) + np.repeat([0.0, 3.0, 5.0], 4)
    users = np.repeat(np.arange(3), 4)
    found = crossed_error(values, users, np.arange(12), with_pooling=True)
    sums = np.bincount(users, weights=values)
    assert found == cluster_error(sums, np.full(3, 4.0))


def test_all_patterns_of_signs_are_counted_once(generator):
    (patterns,) = sign_patterns(4, generator=generator, n_flips=8)
    assert patterns.shape == (8, 4)
    assert patterns[0].all()
    assert len({tuple(row) for row in patterns}) == 8
    assert patterns[:, 0].all()  # the others are these with every sign flipped


def _refuted_share(sums, sizes, truth):
    """Share of all sign patterns at least as far as the observed sum, by brute force."""
    gaps = sums - sizes * truth
    totals = [abs(np.dot(signs, gaps)) for signs in product((-1, 1), repeat=len(gaps))]
    return np.mean([total >= abs(gaps.sum()) - 1e-12 for total in totals])


@pytest.mark.parametrize("seed", range(4))
def test_the_ends_are_where_flipping_signs_begins_to_refute(seed, generator):
    draws = np.random.default_rng(seed)
    sizes = draws.integers(1, 9, size=8).astype(float)
    sums = sizes * draws.exponential(size=8)
    ends = sign_ends(sums, sizes, confidence=0.95, generator=generator, n_resamples=128)
    assert ends is not None
    for end, outwards in zip(ends, (-1e-6, 1e-6), strict=True):
        assert _refuted_share(sums, sizes, end - outwards) > 0.05
        assert _refuted_share(sums, sizes, end + outwards) <= 0.05


def test_five_clusters_refute_nothing_at_95_percent_and_six_do(generator):
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    few = sign_ends(values[:5], np.ones(5), confidence=0.95, generator=generator, n_resamples=99)
    assert few is None
    ends = sign_ends(values, np.ones(6), confidence=0.95, generator=generator, n_resamples=99)
    # below 1 only keeping all signs reaches the sum, 1 of 32; at 1 flipping the first does too
    assert ends == (1.0, 6.0)


def test_drawn_signs_give_nearly_the_ends_of_all(generator):
    draws = np.random.default_rng(9)
    sums, sizes = draws.normal(size=14), np.ones(14)
    exact = sign_ends(sums, sizes, confidence=0.95, generator=generator, n_resamples=10_000)
    drawn = sign_ends(sums, sizes, confidence=0.95, generator=generator, n_resamples=8_000)
    assert exact is not None
    assert drawn is not None
    assert drawn == pytest.approx(exact, abs=0.05)
