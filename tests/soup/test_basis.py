import itertools

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.soup.basis import (
    active_experts,
    effective_rank,
    expert_spread,
    select_experts,
    tilt_matrix,
    tree_tilt_matrix,
)
from palate.soup.pool import log_softmax
from palate.soup.trees import optimal_policy, state_log_probs, tilts
from soup.problems import random_problem


def test_the_tilt_matrix_by_hand():
    # two tokens of 1/4 and 3/4; a tilt of (4, 0) is centred to (3, -1)
    reference = np.log(np.array([[0.25, 0.75]]))
    matrix = tilt_matrix(reference, np.array([[[4.0, 0.0]]]))
    assert matrix[:, 0] == pytest.approx([0.5 * 3, np.sqrt(0.75) * -1])


def test_a_columns_norm_is_the_standard_deviation_of_the_tilt(generator):
    reference = log_softmax(generator.normal(size=(6, 4)))
    tilt = generator.normal(size=(3, 6, 4))
    chances = np.exp(reference) / 6
    variance = [
        np.sum(chances * (row - np.sum(np.exp(reference) * row, axis=1, keepdims=True)) ** 2)
        for row in tilt
    ]
    assert expert_spread(tilt_matrix(reference, tilt)) == pytest.approx(np.sqrt(variance))


def test_constants_per_state_change_nothing(generator):
    reference = log_softmax(generator.normal(size=(6, 4)))
    tilt = generator.normal(size=(3, 6, 4))
    shifted = tilt + generator.normal(size=(3, 6, 1))
    assert tilt_matrix(reference, shifted) == pytest.approx(tilt_matrix(reference, tilt))


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


def test_the_effective_rank_by_hand():
    # the energies add up to 89, 99.5, 99.95 and 100 %
    matrix = np.diag(np.sqrt([89.0, 10.5, 0.45, 0.05]))
    assert effective_rank(matrix).at == {0.9: 2, 0.99: 2, 0.999: 3}
    assert effective_rank(np.zeros((3, 2))).at == {0.9: 0, 0.99: 0, 0.999: 0}


def test_a_family_of_rewards_in_two_dimensions_has_few_directions(generator):
    problem = random_problem(generator, n_experts=2)
    directions = generator.normal(size=(12, 2))
    experts = [
        optimal_policy(problem.reference, row @ problem.returns, beta=20.0) for row in directions
    ]
    # for a high price of KL tilts are linear in the reward
    rank = effective_rank(tree_tilt_matrix(problem.reference, experts))
    assert rank.at[0.99] == 2


def test_the_chosen_experts_are_the_greedy_determinant_maximisers(generator):
    matrix = generator.normal(size=(40, 6)) * np.array([1, 2, 3, 1, 2, 1])
    chosen: list[int] = []
    for _ in range(4):
        chosen.append(
            max(
                (k for k in range(6) if k not in chosen),
                key=lambda k: np.linalg.det(matrix[:, [*chosen, k]].T @ matrix[:, [*chosen, k]]),
            )
        )
    assert list(select_experts(matrix, n_experts=4)) == chosen


def test_greedy_choice_is_near_the_best_subset(generator):
    matrix = generator.normal(size=(40, 7))

    def log_volume(subset):
        part = matrix[:, list(subset)]
        return np.linalg.slogdet(part.T @ part)[1]

    best = max(log_volume(s) for s in itertools.combinations(range(7), 3))
    assert log_volume(select_experts(matrix, n_experts=3)) >= best - 0.5


def test_duplicates_are_not_chosen_twice(generator):
    matrix = generator.normal(size=(30, 2))[:, [0, 1, 0, 1, 0]]
    assert sorted(matrix[0, list(select_experts(matrix, n_experts=5))]) == sorted(matrix[0, :2])
    with pytest.raises(InvalidInputError, match="1 to all"):
        select_experts(matrix, n_experts=6)


def test_experts_that_hardly_act_are_left_out():
    kept = active_experts([1.0, -0.01, 0.5], spread=np.array([0.5, 1.0, 0.04]))
    assert kept.tolist() == [1.0, 0.0, 0.5]


def test_bad_matrices_are_refused():
    with pytest.raises(InvalidInputError, match="experts, states, vocab"):
        tilt_matrix(np.zeros((2, 3)), np.zeros((1, 3, 2)))
    with pytest.raises(InvalidInputError, match="clip"):
        tilt_matrix(np.log(np.full((1, 2), 0.5)), np.array([[[-np.inf, 0.0]]]))
    with pytest.raises(InvalidInputError, match="finite"):
        effective_rank(np.array([[np.nan]]))
