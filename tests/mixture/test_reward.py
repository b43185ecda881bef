"""The training reward against the exact case, and its laws."""

from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.mixture.reward import (
    combined_reward,
    raw_reward,
    unsaturated_fraction,
    win_probabilities,
)


def test_the_exact_case_is_met(mope_cases: dict[str, Any]) -> None:
    case = mope_cases["win_probability_reward"]
    wins = win_probabilities(np.array([case["r"]]), np.array([case["r_reference"]]))
    assert np.allclose(wins[0], case["win_probability"], atol=1e-12)
    for asked in case["requested"]:
        strengths = np.zeros((1, 3))
        strengths[0, asked["objectives"]] = 1 / len(asked["objectives"])
        found = combined_reward(wins, strengths, is_ended=np.array([True]))
        assert found[0] == pytest.approx(asked["R"], abs=1e-12)
        assert combined_reward(wins, strengths, is_ended=np.array([False]))[0] == case["no_eos"]
    slider = np.array([case["slider"]["preference"]])
    found = combined_reward(wins, slider, is_ended=np.array([True]))
    assert found[0] == pytest.approx(case["slider"]["R"], abs=1e-12)


def test_shifting_the_scores_of_a_prompt_changes_nothing_and_equal_answers_get_half() -> None:
    scores, reference = np.array([[1.0, -3.0]]), np.array([[0.2, 4.0]])
    shifted = win_probabilities(scores + 7.5, reference + 7.5)
    assert np.allclose(shifted, win_probabilities(scores, reference), atol=1e-12)
    assert win_probabilities(scores, scores).tolist() == [[0.5, 0.5]]


def test_objectives_that_are_not_requested_are_not_read() -> None:
    wins, strengths = np.array([[0.4, np.nan]]), np.array([[1.0, 0.0]])
    assert combined_reward(wins, strengths, is_ended=np.array([True])).tolist() == [0.4]
    with pytest.raises(InvalidInputError, match="give its reward model"):
        combined_reward(wins, np.array([[0.5, 0.5]]), is_ended=np.array([True]))


def test_saturated_wins_are_counted() -> None:
    wins, strengths = np.array([[0.5, 0.99], [0.01, 0.9]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    assert unsaturated_fraction(wins, strengths) == 0.5


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="same objectives"):
        win_probabilities(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(InvalidInputError, match="not finite"):
        win_probabilities(np.array([[np.inf]]), np.zeros((1, 1)))
    with pytest.raises(InvalidInputError, match="simplex"):
        combined_reward(np.ones((1, 2)), np.array([[0.5, 0.4]]), is_ended=np.array([True]))


def test_the_raw_reward_is_the_tangent_of_the_win_probability_and_cut_answers_earn_least() -> None:
    margins = np.array([[0.01, -0.02, 9.0], [8.0, -4.0, 9.0], [-1.0, -1.0, 9.0]])
    strengths = np.tile([0.5, 0.5, 0.0], (3, 1))
    found = raw_reward(margins, strengths, is_ended=np.array([True, True, True]))
    wins = win_probabilities(margins, np.zeros_like(margins))
    squashed = combined_reward(wins, strengths, is_ended=np.array([True] * 3))
    assert found[0] == pytest.approx(squashed[0], abs=1e-6)
    assert found.tolist() == pytest.approx([0.49875, 1.0, 0.25])
    cut = raw_reward(margins, strengths, is_ended=np.array([True, False, True]))
    assert cut.tolist() == pytest.approx([0.49875, 0.25, 0.25])
