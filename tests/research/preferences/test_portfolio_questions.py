from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import update
from research.preferences.portfolio_questions import (
    ColdStart,
    choose_member,
    expected_loss,
    loss_reductions,
    sample_policy_pair,
    select_useful,
)
from research.preferences.simplex_draws import preference_draws
from research.preferences.simplex_mode import normal_on_plane

VALUES = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])


def test_the_expected_loss_reduction_equals_a_computation_by_hand() -> None:
    draws = np.array([[1.0, 0.0], [0.0, 1.0]])
    values = np.array([[1.0, 0.0], [0.0, 0.8]])
    pairs = np.array([[1.0, -1.0], [1.0, 1.0]])
    # before: member 0 is worth 0.5. A perfect answer would give (1 + 0.8) / 2 = 0.9.
    # the first pair is won with p = sigmoid(g) by the first draw and 1 - p by the second:
    p = float(expit(3.0))
    wanted = 0.5 * p + 0.5 * max(p * 0.8, 1 - p) - 0.5
    got = loss_reductions(draws, pairs, values=values, gain=3.0)
    assert got[0] == pytest.approx(wanted)
    assert got[1] == pytest.approx(0.0)  # both draws answer it alike
    assert expected_loss(draws, values) == pytest.approx(0.4)


def test_no_question_gains_more_than_the_bound() -> None:
    draws = preference_draws(normal_on_plane(n_objectives=3))
    pairs = np.random.default_rng(0).normal(size=(200, 3))
    bound = expected_loss(draws, VALUES)
    gains = loss_reductions(draws, pairs, values=VALUES, gain=50.0)
    assert gains.min() >= -1e-12
    assert gains.max() <= bound


def test_the_worst_case_question_lowers_the_quantile_of_the_loss() -> None:
    draws = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    values = np.eye(2)
    pairs = np.array([[1.0, -1.0], [0.0, 0.0]])
    # served member 0: one draw in ten loses 1, so its 95 % quantile is 1, and member 1's too;
    # after a decisive answer the loss is 0 either way
    got = loss_reductions(draws, pairs, values=values, gain=100.0, quantile=0.95)
    assert got == pytest.approx([1.0, 0.0])
    assert select_useful(draws, pairs, values=values, gain=100.0, quantile=0.95) == 0


def test_two_samples_of_the_policy_differ_and_are_both_good() -> None:
    belief = Belief(np.array([1.0, 0.0]), 0.01 * np.eye(2))
    answers = np.array([[1.0, 0.0], [0.9, 0.5], [-1.0, 0.0], [0.0, -1.0]])
    generator = np.random.default_rng(0)
    asked = {sample_policy_pair(belief, answers, generator=generator) for _ in range(50)}
    assert {answer for pair in asked for answer in pair} == {0, 1}
    assert all(first != second for first, second in asked)
    with pytest.raises(InvalidInputError, match="two answers"):
        sample_policy_pair(belief, answers[:1], generator=generator)


def test_before_the_first_answer_the_minimax_member_is_served_with_its_certificate() -> None:
    draws = preference_draws(normal_on_plane(n_objectives=3))
    cold = ColdStart(member=3, certified_loss=0.5)
    choice = choose_member(draws, VALUES, n_answers=0, cold_start=cold, tolerance=0.05)
    assert (choice.member, choice.expected_loss, choice.is_certified) == (3, 0.5, True)
    assert not choice.is_settled
    with pytest.raises(InvalidInputError, match="not among"):
        choose_member(draws, VALUES, n_answers=0, cold_start=ColdStart(9, 0.1), tolerance=0.05)


def test_answers_settle_the_choice() -> None:
    belief = normal_on_plane(n_objectives=3)
    pair = np.array([1.0, -0.5, -0.5])
    cold = ColdStart(member=3, certified_loss=0.5)
    losses: list[float] = []
    for n_answers in range(1, 13):
        belief = update(belief, pair, 1.0, gain=10.0)
        choice = choose_member(
            preference_draws(belief), VALUES, n_answers=n_answers, cold_start=cold, tolerance=0.02
        )
        losses.append(choice.expected_loss)
    assert choice.member == 0
    assert choice.is_settled
    assert losses[-1] < 0.3 * losses[0]
    assert sum(later > earlier for earlier, later in pairwise(losses)) <= 3
