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
)
from palate.soup.states import log_softmax


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


def test_the_effective_rank_by_hand():
    # the energies add up to 89, 99.5, 99.95 and 100 %
    matrix = np.diag(np.sqrt([89.0, 10.5, 0.45, 0.05]))
    assert effective_rank(matrix) == {0.9: 2, 0.99: 2, 0.999: 3}
    assert effective_rank(np.zeros((3, 2))) == {0.9: 0, 0.99: 0, 0.999: 0}


def test_the_selected_experts_are_the_greedy_determinant_maximisers(generator):
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
    kept = active_experts([1.0, -0.01, 0.5], spread=np.array([0.5, 1.0, 0.04]), threshold=0.02)
    assert kept.tolist() == [1.0, 0.0, 0.5]


def test_bad_matrices_are_refused():
    with pytest.raises(InvalidInputError, match="experts, states, vocab"):
        tilt_matrix(np.zeros((2, 3)), np.zeros((1, 3, 2)))
    with pytest.raises(InvalidInputError, match="clip"):
        tilt_matrix(np.log(np.full((1, 2), 0.5)), np.array([[[-np.inf, 0.0]]]))
    with pytest.raises(InvalidInputError, match="finite"):
        effective_rank(np.array([[np.nan]]))
