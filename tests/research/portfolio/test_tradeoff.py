import numpy as np
import pytest

from palate.core.simplex import lattice
from research.portfolio.tabular import TabularOracle
from research.portfolio.tradeoff import METHODS, TradeoffSettings, find, kl_between, users_losses


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 3])
def test_every_method_finds_a_portfolio_of_the_size(small_problem, method, size):
    settings = TradeoffSettings(pool=lattice(n_objectives=2, denominator=20), epsilon=0.8)
    found = find(
        method,
        TabularOracle(small_problem(0, 2)),
        size=size,
        settings=settings,
        generator=np.random.default_rng(0),
    )
    assert found.members.n_policies == size
    assert found.n_calls >= size


def test_the_best_of_a_fine_pool_loses_least(small_problem):
    problem = small_problem(0, 2, 0.05)
    users = lattice(n_objectives=2, denominator=100)
    best = problem.best_values(users)
    settings = TradeoffSettings(pool=lattice(n_objectives=2, denominator=80))
    lost = {
        method: users_losses(
            find(
                method,
                TabularOracle(problem),
                size=3,
                settings=settings,
                generator=np.random.default_rng(0),
            ).members.table.values,
            users=users,
            best_values=best,
        ).multiplicative
        for method in METHODS
    }
    assert all(lost["pool"] <= lost[method] + 0.002 for method in METHODS)
    assert lost["planned"] < lost["uniform"]


def test_losses_are_those_of_paper_and_pencil():
    found = users_losses(
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        users=np.array([[1.0, 0.0], [0.5, 0.5]]),
        best_values=np.array([1.0, 0.8]),
    )
    assert found.additive == pytest.approx(0.3)
    assert found.multiplicative == pytest.approx(0.375)
    assert found.mean == pytest.approx(0.15)
    assert found.percentile_95 == pytest.approx(0.285)
    assert found.perplexity == pytest.approx(1.0)  # ties go to the first


def test_usage_perplexity_is_that_of_the_case(grid_case):
    for case in grid_case["perplexity"]:
        shares = np.array(case["shares"])
        counts = np.round(shares * 100).astype(int)
        users = np.repeat(np.eye(len(shares)), counts, axis=0)
        found = users_losses(np.eye(len(shares)), users=users, best_values=np.ones(len(users)))
        assert found.perplexity == pytest.approx(case["perplexity"], abs=1e-9)


def test_kl_between_members_follows_from_the_table(tabular_case, case_problem):
    oracle = TabularOracle(case_problem)
    names = [oracle.policy(np.array(w)) for w in tabular_case["preferences"]]
    found = kl_between(oracle.payoffs(names))
    np.testing.assert_allclose(
        case_problem.beta * found, tabular_case["beta_kl_matrix"], rtol=0, atol=1e-10
    )
