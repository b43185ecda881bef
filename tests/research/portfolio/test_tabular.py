import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.portfolio.tabular import TabularOracle, TabularProblem, measured, yardstick


def test_optima_are_those_of_the_case(tabular_case, case_problem):
    for case in tabular_case["optima"]:
        w = np.array(case["w"])
        policy = case_problem.optimum(w)
        np.testing.assert_allclose(policy, case["pi"], rtol=0, atol=1e-10)
        assert case_problem.best_values(w[None, :])[0] == pytest.approx(case["J_star"], abs=1e-10)
        reward, kl = case_problem.reward_and_kl(policy)
        np.testing.assert_allclose(reward, case["R"], rtol=0, atol=1e-10)
        assert kl == pytest.approx(case["KL"], abs=1e-10)
        np.testing.assert_allclose(
            case_problem.kl_per_prompt(policy), case["KL_per_prompt"], rtol=0, atol=1e-10
        )
        np.testing.assert_allclose(case_problem.values(policy), case["V"], rtol=0, atol=1e-10)


def test_slopes_and_curvature_of_the_best_value_are_reward_and_covariance(
    tabular_case, case_problem
):
    step = 1e-5
    for case in tabular_case["optima"]:
        w = np.array(case["w"])
        slopes = [
            case_problem.best_values(np.array([w + step * e, w - step * e])) for e in np.eye(3)
        ]
        gradient = [(up - down) / (2 * step) for up, down in slopes]
        np.testing.assert_allclose(gradient, case["R"], atol=1e-8)
        hessian = [
            [
                np.array([1, -1, -1, 1])
                @ case_problem.best_values(
                    np.array([w + 1e-3 * (a * i + b * j) for a in (1, -1) for b in (1, -1)])
                )
                / (4 * 1e-6)
                for i in np.eye(3)
            ]
            for j in np.eye(3)
        ]
        np.testing.assert_allclose(hessian, case["hessian"], atol=1e-4)


def test_regret_is_beta_times_kl_and_obeys_both_bounds(tabular_case, case_problem):
    anchors = np.array(tabular_case["preferences"])
    policies = [case_problem.optimum(w) for w in anchors]
    best = case_problem.best_values(anchors)
    worth = anchors @ np.array([case_problem.values(policy) for policy in policies]).T
    regret = best[:, None] - worth
    np.testing.assert_allclose(regret, tabular_case["regret_matrix"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.diag(regret), 0.0, atol=1e-10)
    divergence = [
        [
            case_problem.beta
            * case_problem.prompt_probabilities
            @ np.sum(served * np.log(served / own), axis=1)
            for served in policies
        ]
        for own in policies
    ]
    np.testing.assert_allclose(regret, divergence, rtol=0, atol=1e-10)
    l1 = np.abs(anchors[:, None] - anchors[None]).sum(axis=2)
    np.testing.assert_allclose(l1, tabular_case["l1_matrix"], atol=1e-12)
    rewards = np.array([case_problem.reward_and_kl(policy)[0] for policy in policies])
    lipschitz = np.einsum(
        "ijk,ijk->ij", anchors[:, None] - anchors[None], rewards[:, None] - rewards[None]
    )
    assert np.all(regret <= lipschitz + 1e-10)
    assert np.all(lipschitz <= l1 + 1e-10)
    assert np.all(regret <= l1**2 / (8 * case_problem.beta) + 1e-10)


def test_any_policys_regret_is_its_divergence_and_its_free_energy_slack(tabular_case, case_problem):
    case = tabular_case["arbitrary_policy"]
    policy = np.array(case["pi"])
    anchors = np.array(tabular_case["preferences"])
    values = case_problem.values(policy)
    np.testing.assert_allclose(anchors @ values, case["J"], rtol=0, atol=1e-10)
    regret = case_problem.best_values(anchors) - anchors @ values
    np.testing.assert_allclose(regret, case["beta_kl"], rtol=0, atol=1e-10)
    slacks = [case_problem.slack(policy, w) for w in anchors]
    np.testing.assert_allclose(slacks, regret, rtol=0, atol=1e-10)
    assert case_problem.slack(case_problem.optimum(anchors[3]), anchors[3]) == pytest.approx(
        0.0, abs=1e-12
    )


def test_an_imperfect_policy_loses_at_most_what_its_slack_and_distance_allow(small_problem):
    problem = small_problem(0, 3)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        w, anchor = rng.dirichlet(np.ones(3), size=2)
        policy = problem.optimum(anchor) * rng.random((5, 12)) ** 0.5
        policy /= policy.sum(axis=1, keepdims=True)
        slack = problem.slack(policy, anchor)
        regret = problem.best_values(w[None, :])[0] - w @ problem.values(policy)
        distance = np.abs(w - anchor).sum()
        assert regret <= (np.sqrt(slack) + distance / np.sqrt(8 * problem.beta)) ** 2 + 1e-10


def test_pooling_optima_gives_the_optimum_in_between(tabular_case, case_problem):
    case = tabular_case["interpolation"]
    left, right = (tabular_case["optima"][case[side]]["pi"] for side in "ab")
    pooled = np.array(left) ** (1 - case["lam"]) * np.array(right) ** case["lam"]
    pooled /= pooled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pooled, case["pi"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        case_problem.optimum(np.array(case["w"])), pooled, rtol=0, atol=1e-10
    )


def test_drawing_a_policy_at_random_gains_the_divergence_of_its_parts(tabular_case, case_problem):
    case = tabular_case["random_mixture"]
    parts = [np.array(tabular_case["optima"][case[side]]["pi"]) for side in "ab"]
    share = np.array([1 - case["lam"], case["lam"]])
    mixture = np.tensordot(share, parts, axes=1)
    w = np.array(case["w"])
    gained = w @ case_problem.values(mixture) - share @ [w @ case_problem.values(p) for p in parts]
    divergence = sum(
        weight * case_problem.prompt_probabilities @ np.sum(p * np.log(p / mixture), axis=1)
        for weight, p in zip(share, parts, strict=True)
    )
    assert gained == pytest.approx(case_problem.beta * divergence, abs=1e-10)
    assert gained == pytest.approx(case["beta_JS"], abs=1e-10)


def test_the_yardstick_is_drawn_as_specified():
    problem = yardstick(seed=0, n_objectives=2, beta=0.1)
    assert problem.rewards.shape == (30, 400, 2)
    assert np.all(np.linalg.norm(problem.rewards, axis=2) <= 1.0)
    np.testing.assert_allclose(np.exp(problem.reference_log_probs).sum(axis=1), 1.0)


def test_the_oracle_prices_what_it_made(case_problem):
    oracle = TabularOracle(case_problem)
    w = np.array([0.5, 0.3, 0.2])
    name = oracle.policy(w)
    assert oracle.policy(w) == name
    table = oracle.payoffs([name]).table
    np.testing.assert_allclose(table.values[0], case_problem.optimal_values(w[None, :])[0])
    assert w @ table.values[0] == pytest.approx(case_problem.best_values(w[None, :])[0])


def test_measured_averages_come_near_the_truth(case_problem):
    oracle = TabularOracle(case_problem)
    names = [oracle.policy(w) for w in np.eye(3)]
    found = measured(oracle, names, n_prompts=40_000, generator=np.random.default_rng(0))
    values = found.rewards.mean(axis=1) - case_problem.beta * found.kl.mean(axis=1)[:, None]
    np.testing.assert_allclose(values, oracle.payoffs(names).table.values, atol=0.01)


def test_a_price_of_zero_is_refused():
    with pytest.raises(InvalidInputError, match="beta > 0"):
        TabularProblem(np.zeros((1, 2, 2)), np.zeros((1, 2)), np.ones(1), beta=0.0)
