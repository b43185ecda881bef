from dataclasses import dataclass

import numpy as np
import pytest

from palate.core.simplex import lattice
from palate.portfolio.adaptive import SearchSettings
from palate.portfolio.everybody import Stakes, best_members
from research.portfolio.exact import search
from research.portfolio.recentre import centre, foreseen_losses, mean_centres, recentred
from research.portfolio.tabular import TabularOracle, TabularProblem


@dataclass(frozen=True, eq=False)
class Exact:
    problem: TabularProblem

    def values(self, preferences):
        return self.problem.optimal_values(preferences)


def true_gap(problem, payoffs, members):
    """Against the exact best value, on a dense list of users."""
    users = lattice(n_objectives=2, denominator=400)
    worth = users @ payoffs.table.values[list(members)].T
    return float(np.max(problem.best_values(users) - worth.max(axis=1)))


@pytest.mark.parametrize("seed", range(3))
def test_with_exact_foresight_no_sweep_widens_the_gap(small_problem, seed):
    problem = small_problem(seed, 2, 0.05)
    oracle = TabularOracle(problem)
    table = search(oracle, SearchSettings(tolerance=0.0, max_calls=8)).payoffs.table
    start = best_members(Stakes(values=table.values, rows=table.values), size=4)
    found = recentred(
        oracle,
        policies=table.policies,
        members=start.members,
        n_sweeps=2,
        foresight=Exact(problem),
    )
    assert len(found.members) == 4
    assert found.gaps[0] + 1e-9 >= found.gaps[1] >= found.gaps[2] - 1e-9
    assert found.gaps[2] < found.gaps[0]
    for members, gap in ((start.members, found.gaps[0]), (found.members, found.gaps[2])):
        dense = true_gap(problem, found.payoffs, members)  # may miss the corner itself
        assert dense <= gap + 1e-12 <= dense + 1e-3


def test_foreseen_by_a_surrogate_sweeps_narrow_the_true_gap_on_average(small_problem):
    before, after = [], []
    for seed in range(4):
        problem = small_problem(seed, 2, 0.05)
        oracle = TabularOracle(problem)
        table = search(oracle, SearchSettings(tolerance=0.0, max_calls=8)).payoffs.table
        start = best_members(Stakes(values=table.values, rows=table.values), size=4)
        found = recentred(oracle, policies=table.policies, members=start.members, n_sweeps=2)
        before.append(true_gap(problem, found.payoffs, start.members))
        after.append(true_gap(problem, found.payoffs, found.members))
    assert np.mean(after) < 0.9 * np.mean(before)


def test_a_foreseen_losses_is_the_worst_users_loss_by_hand():
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    problem = TabularProblem(rewards, np.log(np.full((1, 2), 0.5)), np.ones(1), beta=0.5)
    oracle = TabularOracle(problem)
    payoffs = oracle.payoffs([oracle.policy(unit) for unit in np.eye(2)])
    # at (1/2, 1/2) the best value is 1/2 (the base); a unit's policy pays for its KL
    best = 0.5
    lost = best - float(payoffs.table.values[0] @ [0.5, 0.5])
    for criterion, expected in (("additive", lost), ("multiplicative", lost / best)):
        found = foreseen_losses(payoffs, members=[0, 1], model=Exact(problem), criterion=criterion)
        assert found[0] == pytest.approx(expected, abs=1e-10)
        np.testing.assert_allclose(found[1:], 0.0, atol=1e-10)  # the units themselves lose nothing


def test_the_centre_of_a_symmetric_cell_is_its_middle():
    # swapping the two objectives changes nothing, so one member alone belongs in the middle
    rng = np.random.default_rng(0)
    rewards = rng.random((4, 6, 2))
    problem = TabularProblem(
        rewards=np.concatenate([rewards, rewards[:, :, ::-1]]),
        reference_log_probs=np.log(np.full((8, 6), 1 / 6)),
        prompt_probabilities=np.full(8, 1 / 8),
        beta=0.1,
    )
    oracle = TabularOracle(problem)
    payoffs = oracle.payoffs([oracle.policy(np.array([0.9, 0.1]))])
    found = centre(payoffs, members=[0], position=0, model=Exact(problem))
    np.testing.assert_allclose(found, [0.5, 0.5], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_moving_members_to_their_peoples_mean_never_costs_the_mean(small_problem, seed):
    problem = small_problem(seed, 3, 0.05)
    rng = np.random.default_rng(seed)
    users = rng.dirichlet(np.full(3, 0.7), size=300)
    best = problem.best_values(users)
    anchors = rng.dirichlet(np.ones(3), size=3)
    before = np.inf
    for _ in range(6):
        values = problem.optimal_values(anchors)
        regret = float(np.mean(best - (users @ values.T).max(axis=1)))
        assert regret <= before + 1e-10
        before = regret
        anchors = mean_centres(users, values=values, anchors=anchors)


def test_a_groups_mean_value_is_the_value_at_its_mean(case_problem):
    users = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    values = case_problem.values(case_problem.optimum(np.full(3, 1 / 3)))
    assert np.mean(users @ values) == pytest.approx(users.mean(axis=0) @ values, abs=1e-10)


def test_a_member_that_nobody_prefers_keeps_its_anchor():
    anchors = np.array([[1.0, 0.0], [0.0, 1.0]])
    users = np.array([[0.8, 0.2], [0.6, 0.4]])
    found = mean_centres(users, values=np.array([[1.0, 1.0], [0.0, 0.0]]), anchors=anchors)
    np.testing.assert_allclose(found, [[0.7, 0.3], [0.0, 1.0]])
