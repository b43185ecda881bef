import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import PreferencePair
from palate.rewards.held_out import accuracy_of, fit_length, held_out_of, require_disjoint
from palate.rewards.pairs import PairSet, pair_set


def test_ties_count_one_half() -> None:
    found = accuracy_of(np.array([2.0, -1.0, 0.0, 0.5]), groups=["a", "b", "c", "d"])
    assert (found.estimate, found.n, found.n_groups, found.method) == (2.5 / 4, 4, 4, "wilson")


def test_separate_pairs_get_the_published_wilson_interval() -> None:
    # 8 of 10 at 95 %: Wilson 1927 gives 0.490 to 0.943
    margins = np.array([1.0] * 8 + [-1.0] * 2)
    found = accuracy_of(margins, groups=[str(i) for i in range(10)])
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_pairs_of_few_groups_get_a_wider_interval_than_separate_ones() -> None:
    margins = np.repeat([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], 20)
    groups = [str(i // 20) for i in range(200)]
    clustered = accuracy_of(margins, groups=groups)
    separate = accuracy_of(margins, groups=[str(i) for i in range(200)])
    assert clustered.method == "bootstrap"
    assert clustered.high - clustered.low > 2 * (separate.high - separate.low)


def test_all_right_still_has_a_width() -> None:
    found = accuracy_of(np.ones(40), groups=[str(i // 2) for i in range(40)])
    assert found.estimate == found.high == 1.0
    assert found.low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-4)  # Wilson on 20 of 20


def test_a_margin_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not finite"):
        accuracy_of(np.array([1.0, np.nan]), groups=["a", "b"])


def lengths(*pairs: tuple[int, int], name: str) -> PairSet:
    made = [
        PreferencePair(f"{name}{i}", "x" * chosen, "y" * rejected)
        for i, (chosen, rejected) in enumerate(pairs)
    ]
    return pair_set(made, objective="o")


def test_length_baselines_are_counted_by_hand() -> None:
    train = lengths((9, 3), (8, 2), (7, 3), (2, 6), name="t")
    validation = lengths((5, 3), (4, 9), (8, 1), (4, 4), name="v")
    found = held_out_of(np.zeros(4), validation=validation, length_coefficients=fit_length(train))
    assert found.longer_wins.estimate == (2 + 0.5) / 4
    assert found.shorter_wins.estimate == (1 + 0.5) / 4
    assert found.length_only.estimate == (2 + 0.5) / 4  # train says longer
    assert found.accuracy.estimate == 0.5
    assert found.by_length == 2.5 / 4
    assert not found.is_above_length
    margins = np.array([1.0, 1.0, 1.0, -1.0])
    better = held_out_of(margins, validation=validation, length_coefficients=fit_length(train))
    assert better.is_above_length  # three of four
    assert found.loss == pytest.approx(np.log(2))


def test_a_reward_that_is_mostly_length_says_so() -> None:
    train = lengths((9, 3), (8, 2), name="t")
    validation = lengths((5, 3), (6, 4), (2, 9), (1, 8), (7, 7), name="v")
    margins = np.array([1.0, 1.0, -1.0, 1.0, 1.0])  # longer, longer, longer, shorter, neither
    found = held_out_of(margins, validation=validation, length_coefficients=fit_length(train))
    assert found.prefers_longer == 3 / 4
    assert found.is_above_length
    assert found.length_warning == (
        "mostly length: it prefers the longer answer in 75% of the held-out pairs, users in 50%"
    )
    margins = np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    fair = held_out_of(margins, validation=validation, length_coefficients=fit_length(train))
    assert (fair.prefers_longer, fair.length_warning) == (0.5, None)


def test_the_fitted_baseline_learns_that_shorter_wins() -> None:
    train = lengths((1, 5), (2, 9), (3, 7), (4, 6), name="t")
    validation = lengths((1, 2), (3, 5), (9, 4), name="v")
    found = held_out_of(np.zeros(3), validation=validation, length_coefficients=fit_length(train))
    assert found.length_only.estimate == pytest.approx(2 / 3)


def test_a_pair_in_both_sets_is_refused_also_turned_round() -> None:
    train = lengths((3, 5), (4, 6), name="t")
    for leaked in (train.pairs[1], PreferencePair("t1", "y" * 6, "x" * 4)):
        validation = pair_set([PreferencePair("v", "a", "b"), leaked], objective="o")
        with pytest.raises(InvalidInputError, match="Pair 2 of the validation pairs"):
            require_disjoint(train, validation)
