import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from palate.portfolio.adaptive import SearchSettings
from palate.portfolio.everybody import Stakes, best_members
from research.portfolio.exact import search
from research.portfolio.planned import PlannedSettings, planned, planned_members
from research.portfolio.tabular import TabularOracle


def largest_share_lost(problem, values):
    users = lattice(n_objectives=values.shape[1], denominator=60)
    return float(np.max(1 - (users @ values.T).max(axis=1) / problem.best_values(users)))


@pytest.mark.parametrize("seed", range(3))
def test_planned_anchors_lose_less_than_adaptive_ones_at_equal_calls(small_problem, seed):
    problem = small_problem(seed, 2, 0.05)
    found = planned(TabularOracle(problem), PlannedSettings(size=4, max_calls=8))
    assert found.payoffs.n_policies == 8
    assert len(found.members) == 4
    adaptive = search(
        TabularOracle(problem),
        SearchSettings(tolerance=0.0, max_calls=8, criterion="multiplicative"),
    ).payoffs.table.values
    pruned = best_members(
        Stakes(values=adaptive, rows=adaptive, criterion="multiplicative"), size=4
    )
    assert largest_share_lost(
        problem, found.payoffs.table.values[list(found.members)]
    ) < largest_share_lost(problem, adaptive[list(pruned.members)])


def test_a_plan_holds_no_more_foreseen_members_than_calls_remain():
    losses = np.array([[0.5, 0.9, 0.0, 0.9], [0.9, 0.5, 0.9, 0.0]])
    free = planned_members(losses, members=[0, 1], size=2, n_made=2, n_left=2)
    assert sorted(free) == [2, 3]
    one = planned_members(losses, members=[0, 1], size=2, n_made=2, n_left=1)
    assert sum(policy >= 2 for policy in one) == 1
    none = planned_members(losses, members=[0, 1], size=2, n_made=2, n_left=0)
    assert sorted(none) == [0, 1]


def test_the_same_search_finds_the_same_members(small_problem):
    settings = PlannedSettings(size=3, max_calls=6, criterion="additive")
    first, second = (planned(TabularOracle(small_problem(1, 3)), settings) for _ in range(2))
    assert first.members == second.members
    assert first.payoffs.table.policies == second.payoffs.table.policies


@pytest.mark.parametrize(("size", "max_calls"), [(0, 5), (4, 3), (1, 1)])
def test_too_few_calls_are_refused(small_problem, size, max_calls):
    with pytest.raises(InvalidInputError, match="allow at least"):
        planned(
            TabularOracle(small_problem(0, 2)),
            PlannedSettings(size=size, max_calls=max_calls),
        )
