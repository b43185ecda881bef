import itertools

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.soup.basis import effective_rank
from research.soup.trees import (
    answer_log_probs,
    answer_sums,
    answer_tokens,
    objective,
    optimal_policy,
    policy_from_logits,
    sample_answers,
    soft_values,
    soup_policy,
    state_log_probs,
    tilts,
    tree_tilt_matrix,
)
from token_problems import random_problem


@pytest.fixture
def case(soup_cases):
    tree = soup_cases["tabular_lm"]
    reference = policy_from_logits([np.array(x) for x in tree["reference_logits"]])
    returns = np.array(tree["expert_rewards"]).reshape(3, -1)
    return tree, reference, returns


def test_experts_and_values_of_the_case_file(case):
    tree, reference, returns = case
    for row, expected, root in zip(
        returns, tree["expert_log_probs"], tree["expert_values_root"], strict=True
    ):
        expert = optimal_policy(reference, row, beta=tree["beta"])
        for own, table in zip(expert, expected, strict=True):
            assert own.ravel() == pytest.approx(np.array(table).ravel(), abs=1e-10)
        value = soft_values(reference, row, beta=tree["beta"])[0][0]
        assert value == pytest.approx(root, abs=1e-10)
        # S1: the best objective is the soft value of the root
        best = objective(expert, reference=reference, returns=row, beta=tree["beta"])
        assert best == pytest.approx(root, abs=1e-10)


def test_the_plain_soup_of_the_case_file_and_what_it_is_worth(case):
    tree, reference, returns = case
    experts = [optimal_policy(reference, row, beta=tree["beta"]) for row in returns]
    soup = soup_policy(reference, experts, tree["coefficients"])
    for own, table in zip(soup, tree["plain_soup_log_probs"], strict=True):
        assert own.ravel() == pytest.approx(np.array(table).ravel(), abs=1e-10)
    pooled = np.array(tree["coefficients"]) @ returns
    worth = objective(soup, reference=reference, returns=pooled, beta=tree["beta"])
    assert worth == pytest.approx(tree["J_plain"], abs=1e-10)


def test_answers_are_counted_by_enumeration(generator):
    problem = random_problem(generator, vocab=3, length=3)
    policy = problem.experts[0]
    expected = []
    for tokens in itertools.product(range(3), repeat=3):
        total, state = 0.0, 0
        for depth, token in enumerate(tokens):
            total += policy[depth][state, token]
            state = 3 * state + token
        expected.append(total)
    assert answer_log_probs(policy) == pytest.approx(expected, abs=1e-12)
    assert np.exp(expected).sum() == pytest.approx(1.0)
    assert answer_tokens(policy).tolist() == [
        list(t) for t in itertools.product(range(3), repeat=3)
    ]


def test_the_objective_by_enumeration(generator):
    problem = random_problem(generator)
    p, p0 = (np.exp(answer_log_probs(x)) for x in (problem.experts[1], problem.reference))
    expected = sum(
        chance * (reward - problem.beta * np.log(chance / base))
        for chance, base, reward in zip(p, p0, problem.returns[0], strict=True)
    )
    worth = objective(
        problem.experts[1],
        reference=problem.reference,
        returns=problem.returns[0],
        beta=problem.beta,
    )
    assert worth == pytest.approx(expected, abs=1e-12)


def test_the_tilt_of_an_optimal_policy_is_its_advantage(generator):
    problem = random_problem(generator)
    tilt = answer_sums(tilts(problem.experts[0], reference=problem.reference))
    expected = (problem.returns[0] - problem.values[0][0][0]) / problem.beta
    assert tilt == pytest.approx(expected, abs=1e-10)


def test_no_policy_beats_the_optimal_one(generator):
    problem = random_problem(generator)
    for _ in range(30):
        other = policy_from_logits([generator.normal(size=x.shape) for x in problem.reference])
        worth = objective(
            other, reference=problem.reference, returns=problem.returns[0], beta=problem.beta
        )
        assert worth < problem.values[0][0][0]


def test_sampled_answers_are_as_likely_as_their_policy_says(generator):
    policy = random_problem(generator, vocab=2, length=3).reference
    counts = np.bincount(sample_answers(policy, n_answers=40_000, generator=generator), minlength=8)
    assert counts / 40_000 == pytest.approx(np.exp(answer_log_probs(policy)), abs=0.012)


def test_forbidden_tokens_of_the_reference_have_no_tilt_and_of_experts_are_refused():
    closed = policy_from_logits([np.array([0.0, -np.inf, 0.0])])
    narrow = policy_from_logits([np.array([0.0, -np.inf, -np.inf])])
    assert tilts(closed, reference=closed)[0].tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(InvalidInputError, match="forbids a token"):
        tilts(narrow, reference=closed)


def test_bad_trees_are_refused(generator):
    problem = random_problem(generator)
    with pytest.raises(InvalidInputError, match="Depth 1 has 3 logits"):
        policy_from_logits([np.zeros(3), np.zeros(3)])
    with pytest.raises(InvalidInputError, match="27 answers"):
        soft_values(problem.reference, np.zeros(26), beta=1.0)
    with pytest.raises(InvalidInputError, match="beta"):
        soft_values(problem.reference, np.zeros(27), beta=0.0)


def test_states_of_a_tree_count_as_often_as_they_are_reached(generator):
    problem = random_problem(generator)
    matrix = tree_tilt_matrix(problem.reference, problem.experts)
    reached = state_log_probs(problem.reference)
    expected = 0.0
    for depth, tilt in enumerate(tilts(problem.experts[1], reference=problem.reference)):
        chances = np.exp(problem.reference[depth])
        mean = np.sum(chances * tilt, axis=1, keepdims=True)
        expected += np.exp(reached[depth]) @ np.sum(chances * (tilt - mean) ** 2, axis=1)
    assert np.sum(matrix[:, 1] ** 2) == pytest.approx(expected)
    assert len(matrix) == 3 + 9 + 27


def test_a_family_of_rewards_in_two_dimensions_has_few_directions(generator):
    problem = random_problem(generator, n_experts=2)
    directions = generator.normal(size=(12, 2))
    experts = [
        optimal_policy(problem.reference, row @ problem.returns, beta=20.0) for row in directions
    ]
    # for a high price of KL tilts are linear in the reward
    rank = effective_rank(tree_tilt_matrix(problem.reference, experts))
    assert rank[0.99] == 2
