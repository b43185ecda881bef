"""The value head: exact on token trees, where its features can tell every state apart."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.errors import InvalidInputError
from palate.soup.states import States
from research.soup.futures import corrected_soup, divergence_from_policies
from research.soup.trees import (
    answer_log_probs,
    optimal_policy,
    policy_from_logits,
    state_log_probs,
    tilts,
)
from research.soup.value_head import (
    Paths,
    corrected_coefficients,
    fit_head,
    matched_coefficients,
)
from token_problems import random_problem


def _paths(reference, experts):
    """Every answer of a tree with its probability, and one feature a state."""
    vocab, length = reference[0].shape[1], len(reference)
    answers = np.arange(vocab**length)
    offsets = np.cumsum([0, *(vocab**depth for depth in range(length))])
    tables = [tilts(expert, reference=reference) for expert in experts]
    columns = {"state": [], "tilt": [], "base": [], "own": []}
    for depth in range(length):
        at, token = answers // vocab ** (length - depth), answers // vocab ** (length - depth - 1)
        tilt = np.stack([table[depth] for table in tables], axis=-1)
        columns["state"].append(offsets[depth] + at)
        columns["tilt"].append(tilt[at, token % vocab])
        columns["base"].append(reference[depth][at])
        columns["own"].append(tilt[at])
    state, tilt, base, own = (
        np.stack(column, axis=1).reshape(len(answers) * length, *column[0].shape[1:])
        for column in columns.values()
    )
    shares = np.repeat(np.exp(answer_log_probs(reference)), length)
    features = np.eye(offsets[-1])[state][:, 1:]  # the root is the constant
    places = np.repeat(answers, length)
    return Paths(features, tilt, places, shares, States(base, own)), state


def _case(soup_cases):
    tree = soup_cases["tabular_lm"]
    reference = policy_from_logits([np.array(x) for x in tree["reference_logits"]])
    returns = np.array(tree["expert_rewards"]).reshape(3, -1)
    experts = [optimal_policy(reference, row, beta=tree["beta"]) for row in returns]
    return tree, reference, experts, np.array(tree["coefficients"])


def test_the_head_learns_the_divergence_of_the_case_file(soup_cases):
    tree, reference, experts, lam = _case(soup_cases)
    paths, state = _paths(reference, experts)
    values = paths.design @ fit_head(paths, lam, ridge=0.0)
    known = np.concatenate([np.array(x).ravel() for x in tree["D_lambda"]])
    assert -tree["beta"] * values == pytest.approx(known[state], abs=1e-4)


def test_matched_coefficients_are_the_closest_plain_soup_to_the_optimum():
    """A second way: the KL of the corrected soup to plain soups, counted over all states."""
    problem = random_problem(np.random.default_rng(3), vocab=3, length=3, n_experts=2)
    reference, experts, lam = problem.reference, problem.experts, problem.coefficients
    paths, state = _paths(reference, experts)
    divergence = divergence_from_policies(reference, experts, lam, beta=problem.beta)
    values = -np.concatenate([depth.ravel() for depth in divergence[:3]])[state] / problem.beta
    found = matched_coefficients(paths, lam, values)
    best = corrected_soup(reference, experts, lam, divergence=divergence, beta=problem.beta)
    reached = [np.exp(depth) for depth in state_log_probs(reference)]

    def distance(c):
        total = 0.0
        for depth, table in enumerate(reference):
            tilt = sum(
                x * tilts(e, reference=reference)[depth] for x, e in zip(c, experts, strict=True)
            )
            plain = table + tilt
            plain = plain - np.log(np.exp(plain).sum(axis=1, keepdims=True))
            total += reached[depth] @ (np.exp(best[depth]) * (best[depth] - plain)).sum(axis=1)
        return total

    counted = minimize(distance, lam, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    assert found == pytest.approx(counted.x, abs=1e-4)
    assert np.abs(found - lam).max() > 0.01  # there was something to correct
    assert distance(found) < distance(lam)


def test_an_expert_alone_needs_no_correction(soup_cases):
    _, reference, experts, _ = _case(soup_cases)
    paths, _ = _paths(reference, experts)
    alone = np.array([0.0, 1.0, 0.0])
    values = paths.design @ fit_head(paths, alone, ridge=0.0)
    assert values == pytest.approx(np.zeros(len(values)), abs=1e-4)
    assert matched_coefficients(paths, alone, np.zeros(len(values))) == pytest.approx(
        alone, abs=1e-5
    )


def _sampled(paths, generator, *, n):
    """Answers that the base draws, each of the same weight."""
    first = np.flatnonzero(np.append(True, np.diff(paths.answers) != 0))
    length = len(paths.answers) // len(first)
    chances = paths.shares[first] / paths.shares[first].sum()
    drawn = first[generator.choice(len(first), size=n, p=chances)]
    rows = (drawn[:, None] + np.arange(length)).ravel()
    return Paths(
        paths.features[rows],
        paths.tilts[rows],
        np.repeat(np.arange(n), length),
        np.ones(len(rows)),
        States(paths.states.reference[rows], paths.states.tilts[rows]),
    )


def test_from_sampled_answers_coefficients_come_near_to_those_of_the_whole_tree(generator):
    problem = random_problem(np.random.default_rng(3), vocab=3, length=3, n_experts=2)
    paths, _ = _paths(problem.reference, problem.experts)
    lam = problem.coefficients
    exact = matched_coefficients(paths, lam, paths.design @ fit_head(paths, lam, ridge=0.0))
    found = corrected_coefficients(_sampled(paths, generator, n=3000), lam)
    assert np.linalg.norm(found - exact) < 0.35 * np.linalg.norm(lam - exact)


def test_a_head_that_predicts_left_out_answers_no_better_than_a_constant_is_not_used(generator):
    problem = random_problem(np.random.default_rng(3), vocab=3, length=3, n_experts=2)
    paths, _ = _paths(problem.reference, problem.experts)
    sampled = _sampled(paths, generator, n=300)
    blind = replace(sampled, features=generator.normal(size=(len(sampled.answers), 12)))
    assert corrected_coefficients(blind, problem.coefficients) is problem.coefficients


def test_futures_are_sums_within_an_answer():
    states = States(np.zeros((5, 1)), np.zeros((5, 1, 1)))
    tilt = np.array([[1.0], [2.0], [4.0], [8.0], [16.0]])
    paths = Paths(np.zeros((5, 1)), tilt, np.array([0, 0, 0, 7, 7]), np.ones(5), states)
    assert paths.futures(np.array([1.0])).tolist() == [7, 6, 4, 24, 16]


def test_rows_that_do_not_fit_and_a_single_answer_are_refused():
    states = States(np.zeros((2, 1)), np.zeros((2, 1, 1)))
    ones = np.ones((2, 1))
    with pytest.raises(InvalidInputError, match="at least two answers"):
        Paths(ones, ones, np.array([0, 0]), np.ones(2), states)
    with pytest.raises(InvalidInputError, match="give one row a token"):
        Paths(ones[:1], ones, np.array([0, 1]), np.ones(2), states)
