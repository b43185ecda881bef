from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.portfolio.adaptive import SearchSettings, proposal, steps
from research.portfolio.exact import search
from research.portfolio.tabular import TabularOracle


def users(seed: int, d: int, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(d), size=n)


def true_gap(problem, values: np.ndarray, seed: int) -> float:
    crowd = users(seed, values.shape[1])
    return float(np.max(problem.best_values(crowd) - (crowd @ values.T).max(axis=1)))


def test_the_search_follows_the_trace_of_the_case(tabular_case, case_problem):
    oracle = TabularOracle(case_problem)
    found = list(steps(oracle, SearchSettings(tolerance=0.0, max_calls=7)))
    trace = tabular_case["certificate_trace"]
    assert len(found) == len(trace)
    for state, case in zip(found, trace, strict=True):
        table = state.payoffs.table
        np.testing.assert_allclose(table.preferences, case["visited"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(table.values, case["V"], rtol=0, atol=1e-9)
        assert state.gap == pytest.approx(case["certificate"], abs=1e-9)
        if case["next_preference"] is not None:
            np.testing.assert_allclose(state.preference, case["next_preference"], atol=1e-9)
    assert found[-1].stop == "calls"


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_certificate_never_grows_and_never_lies_below_the_true_gap(small_problem, d, seed):
    problem = small_problem(seed, d, 0.05)
    rules = SearchSettings(tolerance=0.0, max_calls=d + 6)
    before = np.inf
    for state in steps(TabularOracle(problem), rules):
        assert state.gap <= before + 1e-9
        assert state.gap >= true_gap(problem, state.payoffs.table.values, seed) - 1e-9
        before = state.gap


def test_it_stops_at_the_tolerance(small_problem):
    found = search(TabularOracle(small_problem(0, 2)), SearchSettings(tolerance=0.05))
    assert found.stop == "tolerance"
    assert found.gap <= 0.05


def test_equal_rewards_need_no_search():
    from research.portfolio.tabular import TabularProblem

    problem = TabularProblem(
        rewards=np.full((2, 3, 3), 0.5),
        reference_log_probs=np.log(np.full((2, 3), 1 / 3)),
        prompt_probabilities=np.array([0.5, 0.5]),
        beta=0.1,
    )
    found = search(TabularOracle(problem), SearchSettings(tolerance=0.0))
    assert found.gap == pytest.approx(0.0, abs=1e-12)
    assert found.payoffs.n_policies == 3


def test_one_objective_needs_one_policy(small_problem):
    found = search(TabularOracle(small_problem(0, 1)), SearchSettings(tolerance=0.0))
    assert found.payoffs.n_policies == 1
    assert found.gap == pytest.approx(0.0, abs=1e-12)


def test_noise_larger_than_the_gap_stops_the_search(small_problem):
    oracle = TabularOracle(small_problem(0, 2))
    payoffs = search(oracle, SearchSettings(tolerance=0.0, max_calls=6)).payoffs
    noisy = replace(
        payoffs,
        table=replace(payoffs.table, standard_errors=np.full_like(payoffs.table.values, 0.02)),
    )
    rules = SearchSettings(tolerance=0.0, max_calls=9)
    assert proposal(payoffs, rules).stop is None
    found = proposal(noisy, rules)
    assert found.gap > proposal(payoffs, rules).gap
    assert found.noise > 0.02
    wide = replace(
        noisy,
        table=replace(noisy.table, standard_errors=np.full_like(payoffs.table.values, 1e-4)),
    )
    assert proposal(wide, rules).stop is None


def test_slack_is_paid_in_the_certificate(small_problem):
    oracle = TabularOracle(small_problem(0, 3))
    payoffs = search(oracle, SearchSettings(tolerance=0.0, max_calls=5)).payoffs
    plain, slack = (
        proposal(payoffs, SearchSettings(slack=zeta, max_calls=5)).gap for zeta in (0.0, 0.01)
    )
    assert slack == pytest.approx(plain + 0.01, abs=1e-9)


def test_a_multiplicative_search_bounds_the_share_lost(small_problem):
    problem = small_problem(1, 3)
    found = search(
        TabularOracle(problem),
        SearchSettings(tolerance=0.0, max_calls=8, criterion="multiplicative"),
    )
    crowd = users(0, 3)
    worth = (crowd @ found.payoffs.table.values.T).max(axis=1)
    assert np.max(1 - worth / problem.best_values(crowd)) <= found.gap + 1e-9


@pytest.mark.parametrize("change", [{"max_calls": 1}, {"tolerance": -0.1}, {"slack": -1.0}])
def test_settings_out_of_range_are_refused(small_problem, change):
    with pytest.raises(InvalidInputError):
        search(TabularOracle(small_problem(0, 2)), SearchSettings(**change))


def test_a_table_without_the_unit_vectors_proves_nothing(small_problem):
    oracle = TabularOracle(small_problem(0, 2))
    payoffs = oracle.payoffs([oracle.policy(np.array([0.5, 0.5]))])
    with pytest.raises(NotCertifiedError, match="unit vector"):
        proposal(payoffs, SearchSettings())
