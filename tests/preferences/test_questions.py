from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import update
from palate.preferences.preference import normal_on_plane
from palate.preferences.questions import (
    ColdStart,
    choose_member,
    expected_loss,
    information_gains,
    loss_reductions,
    sample_policy_pair,
    select_informative,
    select_useful,
    verdict_information,
)
from palate.preferences.simplex_draws import preference_draws

VALUES = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])


def test_the_information_gain_is_the_fall_of_entropy_of_an_update() -> None:
    belief = Belief(np.zeros(2), np.diag([2.0, 0.5]))
    pair = np.array([0.3, 0.1])
    # a margin of mean zero: both answers are as likely and shrink the belief by about the same
    after = update(belief, pair, 1.0, gain=1.5)
    fall = 0.5 * (np.linalg.slogdet(belief.covariance)[1] - np.linalg.slogdet(after.covariance)[1])
    assert information_gains(belief, pair[None], gain=1.5)[0] == pytest.approx(fall, rel=0.02)


@pytest.mark.parametrize("mean", [0.0, 1.3, -4.0])
@pytest.mark.parametrize("spread", [0.05, 1.0, 3.0])
def test_what_a_verdict_tells_is_the_mutual_information(mean: float, spread: float) -> None:
    """Against sums over a fine grid of the joint density of margin and verdict."""
    belief = Belief(np.array([mean / 2, 0.7]), np.diag([(spread / 2) ** 2, 1.0]))
    margin = np.linspace(mean - 9 * spread, mean + 9 * spread, 200_001)
    density = np.exp(-0.5 * ((margin - mean) / spread) ** 2)
    density /= density.sum()
    joint = np.stack([density * expit(margin), density * expit(-margin)])
    apart = joint.sum(axis=1, keepdims=True) * density
    expected = (joint * np.log(joint / apart)).sum()
    found = verdict_information(belief, np.array([1.0, 0.0]), gain=2.0)
    assert found == pytest.approx(expected, rel=5e-3)


def test_a_verdict_between_two_tells_log_2_at_most() -> None:
    wide = Belief(np.zeros(2), np.diag([1e8, 1.0]))
    assert 0.69 < verdict_information(wide, np.array([1.0, 0.0])) <= np.log(2)
    assert verdict_information(wide, np.zeros(2)) == 0.0


def test_the_most_informative_pair_asks_about_what_is_uncertain_and_undecided() -> None:
    belief = Belief(np.array([0.0, 0.0, 5.0]), np.diag([4.0, 0.01, 4.0]))
    pairs = np.eye(3)
    assert select_informative(belief, pairs) == 0  # 1 is known, 2 is decided
    with pytest.raises(InvalidInputError, match="no pair"):
        select_informative(belief, np.zeros((0, 3)))


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
    choice = choose_member(draws, VALUES, n_asked=0, cold_start=cold, tolerance=0.05)
    assert (choice.member, choice.expected_loss, choice.is_certified) == (3, 0.5, True)
    assert not choice.is_settled
    with pytest.raises(InvalidInputError, match="not among"):
        choose_member(draws, VALUES, n_asked=0, cold_start=ColdStart(9, 0.1), tolerance=0.05)


def test_answers_settle_the_choice() -> None:
    belief = normal_on_plane(n_objectives=3)
    pair = np.array([1.0, -0.5, -0.5])
    cold = ColdStart(member=3, certified_loss=0.5)
    losses: list[float] = []
    for n_asked in range(1, 13):
        belief = update(belief, pair, 1.0, gain=10.0)
        choice = choose_member(
            preference_draws(belief), VALUES, n_asked=n_asked, cold_start=cold, tolerance=0.02
        )
        losses.append(choice.expected_loss)
    assert choice.member == 0
    assert choice.is_settled
    assert losses[-1] < 0.3 * losses[0]
    assert sum(later > earlier for earlier, later in pairwise(losses)) <= 3
