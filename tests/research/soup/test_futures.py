import numpy as np
import pytest
from scipy.special import logsumexp

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from research.soup.futures import (
    corrected_soup,
    divergence_from_policies,
    divergence_from_values,
    satisfy_any_policy,
)
from research.soup.trees import optimal_policy, policy_from_logits, soft_values, soup_policy
from token_problems import random_problem


def _divergence(problem):
    pooled = soft_values(problem.reference, problem.pooled, beta=problem.beta)
    return divergence_from_values(problem.values, pooled, problem.coefficients)


def _assert_equal(first, second, *, tolerance=1e-10):
    for own, other in zip(first, second, strict=True):
        assert own.ravel() == pytest.approx(np.asarray(other).ravel(), abs=tolerance)


def test_the_divergence_and_the_corrected_soup_of_the_case_file(soup_cases):
    tree = soup_cases["tabular_lm"]
    reference = policy_from_logits([np.array(x) for x in tree["reference_logits"]])
    returns = np.array(tree["expert_rewards"]).reshape(3, -1)
    beta, lam = tree["beta"], np.array(tree["coefficients"])
    experts = [optimal_policy(reference, row, beta=beta) for row in returns]
    divergence = divergence_from_policies(reference, experts, lam, beta=beta)
    _assert_equal(divergence[:3], [np.array(x) for x in tree["D_lambda"]])
    assert np.abs(divergence[3]).max() == 0.0
    corrected = corrected_soup(reference, experts, lam, divergence=divergence, beta=beta)
    _assert_equal(corrected, [np.array(x) for x in tree["corrected_soup_log_probs"]])


def test_both_formulas_agree_and_the_corrected_soup_is_optimal_on_200_random_problems():
    draws = np.random.default_rng(8)
    for _ in range(200):
        problem = random_problem(draws, n_experts=int(draws.integers(1, 5)))
        divergence = _divergence(problem)
        other = divergence_from_policies(
            problem.reference, problem.experts, problem.coefficients, beta=problem.beta
        )
        _assert_equal(divergence, other, tolerance=1e-9)
        corrected = corrected_soup(
            problem.reference,
            problem.experts,
            problem.coefficients,
            divergence=divergence,
            beta=problem.beta,
        )
        best = optimal_policy(problem.reference, problem.pooled, beta=problem.beta)
        _assert_equal(corrected, best, tolerance=1e-9)


def test_on_the_simplex_futures_diverge_upwards_and_for_one_expert_not_at_all():
    draws = np.random.default_rng(9)
    for _ in range(100):
        problem = random_problem(draws, coefficients=draws.dirichlet(np.ones(3)))
        assert min(float(depth.min()) for depth in _divergence(problem)) >= -1e-12
    problem = random_problem(draws, coefficients=np.array([0.0, 1.0, 0.0]))
    assert max(float(np.abs(depth).max()) for depth in _divergence(problem)) < 1e-12


def test_the_plain_soup_is_exact_at_the_last_token(generator):
    problem = random_problem(generator)
    plain = soup_policy(problem.reference, problem.experts, problem.coefficients)
    best = optimal_policy(problem.reference, problem.pooled, beta=problem.beta)
    assert plain[-1] == pytest.approx(best[-1], abs=1e-10)
    assert np.abs(plain[0] - best[0]).max() > 1e-3


def test_for_large_beta_the_divergence_is_a_difference_of_variances(generator):
    problem = random_problem(generator, vocab=2, length=2)
    beta = 1e4
    p0 = np.exp(problem.reference[0].ravel()[:, None] + problem.reference[1]).ravel()

    def variance(values):
        return p0 @ values**2 - (p0 @ values) ** 2

    expected = (
        problem.coefficients @ [variance(row) for row in problem.returns] - variance(problem.pooled)
    ) / (2 * beta)
    experts = [optimal_policy(problem.reference, row, beta=beta) for row in problem.returns]
    divergence = divergence_from_policies(
        problem.reference, experts, problem.coefficients, beta=beta
    )
    assert divergence[0][0] == pytest.approx(expected, rel=1e-2)


def test_satisfying_any_is_a_linear_pool_with_posterior_shares(generator):
    problem = random_problem(generator)
    shares = np.array([0.2, 0.0, 0.5])
    policy = satisfy_any_policy(problem.experts, shares, values=problem.values, beta=problem.beta)
    returns = problem.beta * logsumexp(
        problem.returns[[0, 2]] / problem.beta, axis=0, b=shares[[0, 2], None]
    )
    best = optimal_policy(problem.reference, returns, beta=problem.beta)
    _assert_equal(policy, best)
    with pytest.raises(InvalidInputError, match="not all zero"):
        satisfy_any_policy(problem.experts, [-0.1, 0, 1], values=problem.values, beta=1.0)


def test_coefficients_that_do_not_fit_are_refused(generator):
    problem = random_problem(generator)
    with pytest.raises(InvalidCoefficientsError):
        divergence_from_policies(problem.reference, problem.experts, [1.0], beta=1.0)
    with pytest.raises(InvalidInputError, match="beta"):
        divergence_from_policies(problem.reference, problem.experts, [1, 0, 0], beta=0.0)
