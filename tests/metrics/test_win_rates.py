import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import wilson_interval
from palate.metrics.win_rates import (
    verdicts_from_both_orders,
    verdicts_from_scores,
    win_rate_matrix,
    win_rates,
)


def test_the_three_forms_of_four_wins_four_ties_two_losses():
    rates = win_rates([1] * 4 + [0.5] * 4 + [0] * 2)
    assert rates.ties_out is not None
    assert rates.ties_out.estimate == pytest.approx(4 / 6)
    assert rates.ties_half.estimate == pytest.approx(0.6)
    assert rates.ties_lost.estimate == pytest.approx(0.4)
    assert (rates.ties_out.n, rates.ties_half.n, rates.ties_lost.n) == (6, 10, 10)
    assert (rates.n_wins, rates.n_ties, rates.n_losses) == (4, 4, 2)
    assert (rates.ties_lost.low, rates.ties_lost.high) == wilson_interval(4, 10)


def test_ties_only_leave_no_decided_rate():
    rates = win_rates([0.5] * 5)
    assert rates.ties_out is None
    assert rates.ties_half.estimate == 0.5
    assert rates.ties_half.high > 0.7


def test_agreement_within_clusters_leaves_the_doubt_of_so_many_clusters():
    rates = win_rates([1.0] * 40, clusters=np.repeat(np.arange(8), 5))
    assert (rates.ties_half.low, rates.ties_half.high) == wilson_interval(8, 8)
    assert rates.ties_half.n_clusters == 8


def test_one_decided_cluster_leaves_a_wide_interval():
    rates = win_rates([1, 0, 0.5, 0.5], clusters=["a", "a", "b", "b"])
    assert rates.ties_out is not None
    assert rates.ties_out.n_clusters == 1
    assert rates.ties_out.high - rates.ties_out.low > 0.7


def test_clusters_widen_the_interval():
    verdicts = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0], 10)
    alone = win_rates(verdicts).ties_half
    grouped = win_rates(verdicts, clusters=np.repeat(np.arange(10), 10)).ties_half
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_an_unknown_verdict_is_refused():
    with pytest.raises(InvalidInputError, match=r"0\.7"):
        win_rates([1, 0.7])
    with pytest.raises(InvalidInputError, match="give `clusters` too"):
        win_rates([1, 0], second_clusters=["a", "b"])


def test_scores_within_the_margin_are_ties():
    verdicts = verdicts_from_scores(
        np.array([0.5, 0.9, 0.1]), np.array([0.45, 0.2, 0.3]), tie_margin=0.1
    )
    assert verdicts.tolist() == [0.5, 1.0, 0.0]


def test_orders_that_contradict_each_other_are_a_tie():
    first, second = np.array([1.0, 1.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.0, 1.0])
    assert verdicts_from_both_orders(first, second).tolist() == [1.0, 0.5, 0.0, 0.5]


def test_the_matrix_by_hand():
    # way 0 beats 1 on the first, ties on the second, loses on the others: 1.5 of 4
    matrix = win_rate_matrix(np.array([[3.0, 1.0, 0.0, 0.0], [2.0, 1.0, 5.0, 5.0]]))
    assert matrix.tolist() == [[0.5, 0.375], [0.625, 0.5]]
