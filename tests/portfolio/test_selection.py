from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.portfolio.selection import (
    Cost,
    best_listed,
    exact_members,
    greedy_members,
    require_size,
    swapped_members,
)


def best_by_hand(losses: np.ndarray, size: int, cost: Cost) -> float:
    return min(
        float(cost.of(losses[:, chosen].min(axis=1)))
        for chosen in combinations(range(losses.shape[1]), size)
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 6), st.data())
def test_the_exact_choice_is_as_good_as_exhaustive_search(seed, n_users, n_policies, data):
    losses = np.random.default_rng(seed).random((n_users, n_policies))
    size = data.draw(st.integers(1, n_policies))
    members = exact_members(losses, size=size)
    assert len(set(members)) == size
    found = losses[:, members].min(axis=1).max()
    assert found == pytest.approx(best_by_hand(losses, size, Cost()), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["worst", "mean", "blend"]))
def test_swaps_never_do_worse_than_greedy_and_no_single_swap_is_left(seed, aim):
    cost = Cost(aim=aim)
    losses = np.random.default_rng(seed).random((10, 7))
    start = greedy_members(losses, size=3, cost=cost)
    found = swapped_members(losses, members=start, cost=cost)
    value = cost.of(losses[:, found].min(axis=1))
    assert value <= cost.of(losses[:, start].min(axis=1)) + 1e-9
    for position in range(3):
        for policy in range(7):
            other = [*found[:position], policy, *found[position + 1 :]]
            assert cost.of(losses[:, other].min(axis=1)) >= value - 1e-8


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_greedy_reaches_its_share_of_the_best_gain_in_the_mean(seed, size):
    losses = np.random.default_rng(seed).random((12, 7))
    cost = Cost(aim="mean")
    members = greedy_members(losses, size=size, cost=cost)
    gain = 1.0 - losses[:, members].min(axis=1).mean()  # over a fallback that loses 1
    best = 1.0 - best_by_hand(losses, size, cost)
    assert gain >= (1 - 1 / np.e) * best - 1e-9


def test_costs_are_those_of_paper_and_pencil():
    losses = np.array([[0.0, 0.2], [0.6, 0.2]])
    assert Cost(aim="worst").of(losses).tolist() == [0.6, 0.2]
    np.testing.assert_allclose(Cost(aim="mean").of(losses), [0.3, 0.2])
    np.testing.assert_allclose(Cost(aim="blend", share=0.5).of(losses), [0.6, 0.3])


def test_a_mean_and_a_worst_case_can_want_different_members():
    losses = np.array([[0.0, 0.3], [0.0, 0.3], [0.8, 0.3]])
    assert best_listed(losses, size=1, cost=Cost(aim="mean"))[0] == [0]
    assert best_listed(losses, size=1, cost=Cost(aim="worst")) == ([1], True)


def test_spare_places_go_to_those_who_lower_the_mean_most():
    losses = np.array([[0.5, 0.5, 0.1], [0.5, 0.4, 0.9]])
    assert exact_members(losses, size=3) == [0, 1, 2]
    assert exact_members(np.array([[0.0, 0.1, 0.2], [0.0, 0.0, 0.0]]), size=2) == [0, 1]


@pytest.mark.parametrize("size", [0, 4])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(InvalidInputError, match="size"):
        require_size(size, n_policies=3)


def test_a_blends_share_out_of_range_is_refused():
    with pytest.raises(InvalidInputError, match="share"):
        Cost(aim="blend", share=1.5)
