from itertools import combinations

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.preferences.answer_sets import (
    mean_utility,
    select_greedy,
    select_medoids,
    select_sets,
    select_single,
    tail_utility,
)


def test_the_utilities_of_a_choice_are_of_each_users_best_set() -> None:
    utilities = np.array([[1.0, 0.0], [0.0, 4.0]] + [[2.0, 2.0]] * 18)
    assert mean_utility(utilities, [0]) == pytest.approx((1 + 0 + 36) / 20)
    assert mean_utility(utilities, [0, 1]) == pytest.approx((1 + 4 + 36) / 20)
    assert tail_utility(utilities, [0]) == pytest.approx(0.5)  # the worst two of twenty: 0 and 1


def test_the_single_best_set_and_the_greedy_choice() -> None:
    utilities = np.array([[0.6, 1.0, 0.0], [0.6, 0.0, 1.0], [0.6, 0.7, 0.0]])
    assert select_single(utilities) == [0]
    assert select_greedy(utilities, size=2) == [0, 1]
    with pytest.raises(InvalidInputError, match="portfolio of 4"):
        select_greedy(utilities, size=4)


@pytest.mark.parametrize("seed", range(8))
def test_the_chosen_sets_are_no_worse_than_greedy_and_near_the_best_of_all(seed: int) -> None:
    utilities = np.random.default_rng(seed).random((40, 9))

    def value(chosen: list[int]) -> float:
        return 0.5 * mean_utility(utilities, chosen) + 0.5 * tail_utility(utilities, chosen)

    best = max(value(list(chosen)) for chosen in combinations(range(9), 3))
    ours = value(select_sets(utilities, size=3))
    assert ours >= value(select_greedy(utilities, size=3)) - 1e-12
    assert ours >= 0.95 * best


def test_a_minority_is_served_where_greedy_leaves_it_behind() -> None:
    # eighteen users like sets 0 and 1 a little differently; two like nothing but set 2
    majority = [[1.0, 0.4, 0.0]] * 9 + [[0.4, 1.0, 0.0]] * 9
    utilities = np.array(majority + [[0.0, 0.0, 1.0]] * 2)
    assert sorted(select_greedy(utilities, size=2)) == [0, 1]
    assert 2 in select_sets(utilities, size=2)


def test_medoids_are_the_centres_of_groups() -> None:
    generator = np.random.default_rng(0)
    coefficients = np.concatenate([generator.normal(c, 0.1, size=(20, 2)) for c in (0.0, 5.0, 9.0)])
    candidates = np.array([[0.0, 0.0], [2.5, 2.5], [5.0, 5.0], [9.0, 9.0], [7.0, 7.0]])
    assert sorted(select_medoids(coefficients, candidates, size=3)) == [0, 2, 3]
