import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.soup.states import log_softmax
from research.soup.bounds import (
    divergence_lower_bound,
    divergence_spread_bound,
    divergence_upper_bound,
    dropping_bound,
    exact_gap,
    fit_bound,
    mean_returns,
    remaining_range,
    three_term_bound,
)
from research.soup.futures import divergence_from_policies, divergence_from_values
from research.soup.trees import (
    objective,
    optimal_policy,
    policy_from_logits,
    soft_values,
    soup_policy,
)
from token_problems import random_problem


def _solved(problem):
    values = soft_values(problem.reference, problem.pooled, beta=problem.beta)
    best = optimal_policy(problem.reference, problem.pooled, beta=problem.beta)
    soup = soup_policy(problem.reference, problem.experts, problem.coefficients)
    return values, best, soup


def test_gap_and_bounds_of_the_case_file(soup_cases):
    tree = soup_cases["tabular_lm"]
    beta, lam = tree["beta"], np.array(tree["coefficients"])
    reference = policy_from_logits([np.array(x) for x in tree["reference_logits"]])
    returns = np.array(tree["expert_rewards"]).reshape(3, -1)
    experts = [optimal_policy(reference, row, beta=beta) for row in returns]
    soup = soup_policy(reference, experts, lam)
    best = optimal_policy(reference, lam @ returns, beta=beta)
    values = soft_values(reference, lam @ returns, beta=beta)
    assert values[0][0] == pytest.approx(tree["V_star_root"], abs=1e-10)
    assert exact_gap(soup, best=best, beta=beta) == pytest.approx(tree["gap_plain"], abs=1e-10)
    bound = fit_bound(
        soup,
        best_values=values,
        expert_values=[soft_values(reference, row, beta=beta) for row in returns],
        coefficients=lam,
        beta=beta,
    )
    assert bound == pytest.approx(tree["fit_bound"], abs=1e-10)
    for depth, expected in enumerate(tree["general_osc_bound_per_depth"]):
        # the widest remaining range of each expert among the states one token further
        ranges = np.array([remaining_range(reference, row)[depth + 1].max() for row in returns])
        assert divergence_spread_bound(lam, ranges=ranges, beta=beta) == pytest.approx(
            expected, abs=1e-10
        )


def test_the_gap_is_exact_and_the_bounds_hold_on_200_random_problems():
    draws = np.random.default_rng(10)
    ratios = []
    for _ in range(200):
        problem = random_problem(draws)
        values, best, soup = _solved(problem)
        gap = exact_gap(soup, best=best, beta=problem.beta)
        lost = values[0][0] - objective(
            soup, reference=problem.reference, returns=problem.pooled, beta=problem.beta
        )
        assert gap == pytest.approx(lost, abs=1e-10)
        bound = fit_bound(
            soup,
            best_values=values,
            expert_values=problem.values,
            coefficients=problem.coefficients,
            beta=problem.beta,
        )
        assert gap <= bound + 1e-10
        ratios.append(gap / bound)
    assert max(ratios) > 0.2  # a bound that is never near is not worth testing


def test_the_bounds_hold_for_returns_that_the_experts_do_not_span():
    draws = np.random.default_rng(11)
    for _ in range(200):
        problem = random_problem(draws)
        wanted = problem.pooled + draws.uniform(-0.2, 0.2, size=len(problem.pooled))
        values = soft_values(problem.reference, wanted, beta=problem.beta)
        soup = soup_policy(problem.reference, problem.experts, problem.coefficients)
        gap = values[0][0] - objective(
            soup, reference=problem.reference, returns=wanted, beta=problem.beta
        )
        divergence = divergence_from_policies(
            problem.reference, problem.experts, problem.coefficients, beta=problem.beta
        )
        error = float(np.abs(wanted - problem.pooled).max())
        assert gap <= 1e-10 + three_term_bound(
            soup, divergence=divergence, reward_error=error, beta=problem.beta
        )
        assert gap <= 1e-10 + fit_bound(
            soup,
            best_values=values,
            expert_values=problem.values,
            coefficients=problem.coefficients,
            beta=problem.beta,
        )
    with pytest.raises(InvalidInputError, match="reward error"):
        three_term_bound(soup, divergence=divergence, reward_error=-1.0, beta=1.0)


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
def test_the_size_bounds_hold_for_small_and_large_coefficients(size):
    draws = np.random.default_rng(12)
    for _ in range(100):
        lam = draws.normal(size=3)
        problem = random_problem(draws, coefficients=size * lam / np.abs(lam).sum())
        pooled = soft_values(problem.reference, problem.pooled, beta=problem.beta)
        divergence = divergence_from_values(problem.values, pooled, problem.coefficients)
        means = [mean_returns(problem.reference, row) for row in problem.returns]
        upper = divergence_upper_bound(problem.values, means, problem.coefficients)
        ranges = [remaining_range(problem.reference, row) for row in problem.returns]
        for depth, own in enumerate(divergence):
            assert np.all(own <= upper[depth] + 1e-10)
            widest = np.array([each[depth].max() for each in ranges])
            bound = divergence_spread_bound(problem.coefficients, ranges=widest, beta=problem.beta)
            assert np.ptp(own) <= bound + 1e-10
        if size <= 1:
            opposite = [
                soft_values(problem.reference, -row, beta=problem.beta) for row in problem.returns
            ]
            lower = divergence_lower_bound(problem.values, opposite, problem.coefficients)
            assert all(np.all(a >= b - 1e-10) for a, b in zip(divergence, lower, strict=True))


def test_the_lower_bound_refuses_large_coefficients(generator):
    problem = random_problem(generator, coefficients=np.array([1.0, 1.0, 0.0]))
    with pytest.raises(InvalidInputError, match="one or less"):
        divergence_lower_bound(problem.values, problem.values, problem.coefficients)


def test_the_spread_bound_by_hand():
    ranges = np.array([1.0, 2.0])
    # the split form is 0.5 * 1 / 4 + 0.5 * 4 / 2, the general one (0.5 + 2 + (0.5 + 1)^2) / 4
    assert divergence_spread_bound([0.5, -0.5], ranges=ranges, beta=0.5) == pytest.approx(
        min(0.5 * 1 / 4 + 0.5 * 4 / 2, (2.5 + 2.25) / 4)
    )
    # absolute sum 3: only the general one, ((1 + 8) + (1 + 4)^2) / 4
    assert divergence_spread_bound([1.0, -2.0], ranges=ranges, beta=0.5) == pytest.approx(8.5)


def test_dropping_experts_costs_at_most_the_bound_and_two_tokens_reach_it(generator):
    for _ in range(300):
        base, dropped = generator.normal(size=5), generator.normal(size=5) * 2
        full, rest = np.exp(log_softmax(base + dropped)), np.exp(log_softmax(base))
        assert 0.5 * np.abs(full - rest).sum() <= dropping_bound(dropped) + 1e-12
    dropped = np.array([1.0, -1.0])
    full, rest = np.exp(log_softmax(-dropped / 2 + dropped)), np.exp(log_softmax(-dropped / 2))
    assert 0.5 * np.abs(full - rest).sum() == pytest.approx(float(dropping_bound(dropped)))
