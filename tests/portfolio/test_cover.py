from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import NotCertifiedError
from palate.portfolio.selection import (
    exact_cover,
    greedy_cover,
    interval_cover,
    smallest_cover,
    sweep_cover,
    undominated,
)
from tabular_problems import cell_coverage


def table(case) -> np.ndarray:
    is_covered = np.zeros((case["points"], len(case["sets"])), dtype=bool)
    for policy, points in enumerate(case["sets"]):
        is_covered[points, policy] = True
    return is_covered


def smallest_by_hand(is_covered: np.ndarray) -> list[tuple[int, ...]]:
    n_policies = is_covered.shape[1]
    for size in range(1, n_policies + 1):
        found = [
            chosen
            for chosen in combinations(range(n_policies), size)
            if np.all(np.any(is_covered[:, chosen], axis=1))
        ]
        if found:
            return found
    return []


def test_covers_are_those_of_every_case(grid_case):
    for case in grid_case["set_cover"]:
        is_covered = table(case)
        if case["minimum_size"] is None:
            for cover in (greedy_cover, exact_cover, sweep_cover):
                with pytest.raises(NotCertifiedError, match="No policy"):
                    cover(is_covered)
            continue
        assert greedy_cover(is_covered) == case["greedy"]
        assert exact_cover(is_covered) in case["minimum_covers"]
        if case["name"].startswith("intervals"):
            assert sorted(sweep_cover(is_covered)) in case["minimum_covers"]
            cells = np.column_stack([np.arange(7), np.arange(1, 8)])
            by_cell = cell_coverage(is_covered, cells)
            assert [np.flatnonzero(by_cell[:, p]).tolist() for p in range(7)] == case["cell_sets"]
            assert exact_cover(by_cell) in case["cell_minimum_covers"]


def test_greedy_can_be_larger_than_the_minimum(grid_case):
    case = next(c for c in grid_case["set_cover"] if c["name"] == "greedy_worse_than_optimum")
    assert len(greedy_cover(table(case))) > len(exact_cover(table(case)))


def test_point_and_cell_covers_are_those_of_the_tabular_case(tabular_case):
    cover = tabular_case["cover"]
    gaps, cells = np.array(cover["gap"]), np.array(cover["cells"])
    for case in cover["criteria"]:
        is_covered = gaps <= case["delta"]
        assert exact_cover(is_covered) in case["point_covers"]
        assert exact_cover(cell_coverage(is_covered, cells)) in case["cell_covers"]
        assert case["cell_cover_size"] >= case["point_cover_size"]
    differing = [c for c in cover["criteria"] if c["delta"] == 0.022]
    assert [(c["cell_cover_size"], c["point_cover_size"]) for c in differing] == [(4, 3)]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 7))
def test_the_exact_cover_is_as_small_as_exhaustive_search_finds(seed, n_points, n_policies):
    rng = np.random.default_rng(seed)
    is_covered = rng.random((n_points, n_policies)) < 0.45
    is_covered[np.arange(n_points), rng.integers(n_policies, size=n_points)] = True
    by_hand = smallest_by_hand(is_covered)
    assert tuple(exact_cover(is_covered)) in by_hand
    assert smallest_cover(is_covered) == exact_cover(is_covered)
    assert len(greedy_cover(is_covered)) >= len(by_hand[0])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 7))
def test_the_sweep_over_runs_of_points_is_as_small_as_exhaustive_search(seed, n_points, n_policies):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, n_points + 1, size=(n_policies, 2)), axis=1)
    index = np.arange(n_points)[:, None]
    is_covered = (index >= ends[:, 0]) & (index < ends[:, 1])
    by_hand = smallest_by_hand(is_covered)
    if by_hand:
        assert tuple(sorted(sweep_cover(is_covered))) in by_hand
    else:
        with pytest.raises(NotCertifiedError):
            sweep_cover(is_covered)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_the_sweep_over_intervals_is_as_small_as_exhaustive_search(seed, n_policies):
    rng = np.random.default_rng(seed)
    starts, ends = np.sort(rng.integers(0, 9, size=(n_policies, 2)) / 8.0, axis=1).T
    places = np.arange(0.0, 1.0 + 1e-9, 1 / 32)  # finer than any end, so gaps are seen
    is_covered = (places[:, None] >= starts) & (places[:, None] <= ends)
    by_hand = smallest_by_hand(is_covered)
    if by_hand:
        assert len(interval_cover(starts=starts, ends=ends)) == len(by_hand[0])
    else:
        with pytest.raises(NotCertifiedError):
            interval_cover(starts=starts, ends=ends)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 7))
def test_what_domination_leaves_has_covers_of_the_same_size(seed, n_points, n_policies):
    rng = np.random.default_rng(seed)
    is_covered = rng.random((n_points, n_policies)) < 0.6
    is_covered[np.arange(n_points), rng.integers(n_policies, size=n_points)] = True
    points, policies = undominated(is_covered)
    left = is_covered[np.ix_(points, policies)]
    assert len(smallest_by_hand(left)[0]) == len(smallest_by_hand(is_covered)[0])


def test_domination_leaves_one_of_equals():
    points, policies = undominated(np.ones((3, 4), dtype=bool))
    assert points.tolist() == [0]
    assert policies.tolist() == [0]
