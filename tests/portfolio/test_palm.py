import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from palate.portfolio.grid import covering_radius
from palate.portfolio.palm import PalmSettings, grid_coverage, palm
from palate.portfolio.selection import exact_cover, greedy_cover
from research.portfolio.tabular import TabularOracle
from tabular_problems import all_cells, cell_coverage


def crowd(d: int, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(7).dirichlet(np.ones(d), size=n)


@pytest.mark.parametrize(("d", "epsilon", "delta"), [(2, 0.3, 0.1), (3, 0.6, 0.4)])
@pytest.mark.parametrize("seed", range(3))
def test_grid_policies_serve_everybody_as_the_theorem_says(small_problem, d, epsilon, delta, seed):
    problem = small_problem(seed, d, 0.02)
    found = palm(TabularOracle(problem), PalmSettings(epsilon=epsilon, delta=delta, max_calls=400))
    assert found.n_calls == len(found.anchors) == found.payoffs.n_policies
    users = crowd(d)
    values = found.payoffs.table.values
    below = max(0.0, -float(values.min()))  # the theorem's correction for negative values
    allowed = (problem.best_values(users) - delta) / (1 + epsilon)
    allowed -= (epsilon + delta) * below / (1 + epsilon)
    assert np.all((users @ values.T).max(axis=1) >= allowed - 1e-10)


def test_the_guarantee_survives_imperfect_policies(small_problem):
    problem = small_problem(0, 2, 0.05)
    rng = np.random.default_rng(0)
    anchors = palm(TabularOracle(problem), PalmSettings(epsilon=0.3, delta=0.1)).anchors
    values, slacks = [], []
    for anchor in anchors:
        policy = problem.optimum(anchor) * rng.random((5, 12)) ** 0.3
        policy /= policy.sum(axis=1, keepdims=True)
        values.append(problem.values(policy))
        slacks.append(problem.slack(policy, anchor))
    users = crowd(2)
    allowed = (problem.best_values(users) - 0.1) / 1.3 - max(slacks)
    assert np.min(values) > 0
    assert np.all((users @ np.array(values).T).max(axis=1) >= allowed - 1e-10)


@pytest.mark.parametrize("d", [2, 3])
def test_members_cover_every_grid_preference(small_problem, d):
    settings = PalmSettings(epsilon=0.6, delta=0.3, cover_delta=0.03)
    found = palm(TabularOracle(small_problem(1, d)), settings)
    values = found.payoffs.table.values
    worth = found.anchors @ values.T
    assert np.all(worth[:, found.members].max(axis=1) >= worth.max(axis=1) - 0.03 - 1e-9)
    is_covered = grid_coverage(values=values, preferences=found.anchors, epsilon=0.0, delta=0.03)
    assert len(found.members) <= len(greedy_cover(is_covered))


def test_a_cover_of_points_loses_at_most_the_radius_more_and_a_cover_of_cells_nothing(
    small_problem,
):
    problem = small_problem(2, 3)
    points, cells = all_cells(n_objectives=3, denominator=6)
    values = problem.optimal_values(points)
    best_on_points = (points @ values.T).max(axis=1)
    is_covered = points @ values.T >= best_on_points[:, None] - 0.03
    users = crowd(3)
    best = (users @ values.T).max(axis=1)
    by_point, by_cell = exact_cover(is_covered), exact_cover(cell_coverage(is_covered, cells))
    assert len(by_cell) >= len(by_point)
    radius = covering_radius(n_objectives=3, denominator=6)
    loss_by_point = best - (users @ values[by_point].T).max(axis=1)
    loss_by_cell = problem.best_values(users) - (users @ values[by_cell].T).max(axis=1)
    assert loss_by_point.max() <= 0.03 + radius + 1e-10
    assert loss_by_cell.max() <= 0.03 + 1e-10


def test_coverage_is_that_of_paper_and_pencil():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]])
    preferences = lattice(n_objectives=2, denominator=2)  # (1, 0), (1/2, 1/2), (0, 1)
    found = grid_coverage(values=values, preferences=preferences, epsilon=0.0, delta=0.1)
    assert found.tolist() == [[True, False, False], [True, True, True], [False, True, False]]


def test_the_lazy_grid_makes_fewer_policies_and_keeps_the_promise(small_problem):
    problem = small_problem(0, 3, 0.1)
    settings = PalmSettings(epsilon=0.3, delta=0.3, cover_delta=0.0, is_lazy=True)
    found = palm(TabularOracle(problem), settings)
    assert found.n_calls < len(found.anchors)
    users = found.anchors
    worth = (users @ found.payoffs.table.values.T).max(axis=1)
    assert np.all(worth >= (1 - 0.3) * problem.best_values(users) - 0.3 - 1e-9)


def test_a_grid_that_costs_too_much_is_refused_with_what_is_affordable(small_problem):
    with pytest.raises(InvalidInputError, match=r"3367 preferences.*max_calls=100.*epsilon"):
        palm(
            TabularOracle(small_problem(0, 3)),
            PalmSettings(epsilon=0.1, delta=0.1, max_calls=100),
        )
