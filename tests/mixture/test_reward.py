"""The training reward against the exact case, and its laws."""

from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.mixture.rollout import (
    Judge,
    References,
    combined_reward,
    raw_reward,
    win_probabilities,
)
from palate.mixture.wording import MixtureRequest


def test_the_exact_case_is_met(mope_cases: dict[str, Any]) -> None:
    case = mope_cases["win_probability_reward"]
    wins = win_probabilities(np.array([case["r"]]) - np.array([case["r_reference"]]))
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


class Scores:
    """Log-odds by text."""

    def __init__(self, **scores: list[float]) -> None:
        self.scores = scores

    def log_odds(self, prompts, answers):
        return np.array([self.scores[answer] for answer in answers])


class OneReference(References):
    """The same reference answer to everything."""

    def __init__(self) -> None:
        pass

    def answers(self, requests):
        return ["reference"] * len(requests)


REQUEST = MixtureRequest("Why?", (0.5, 0.5))


def margins(*, shift: float = 0.0, temperature: float = 1.0, **scores: list[float]) -> np.ndarray:
    shifted = {name: [value + shift for value in row] for name, row in scores.items()}
    judge = Judge(Scores(**shifted), OneReference(), temperature=temperature)
    return judge.margins([REQUEST], ["own"])


def test_shifting_the_scores_of_a_prompt_changes_nothing_and_equal_answers_get_half() -> None:
    scores = {"own": [1.0, -3.0], "reference": [0.2, 4.0]}
    assert np.allclose(margins(**scores, shift=7.5), margins(**scores), atol=1e-12)
    assert np.allclose(margins(**scores, temperature=2.0), [[0.4, -3.5]])
    assert win_probabilities(np.zeros((1, 2))).tolist() == [[0.5, 0.5]]


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not finite"):
        margins(own=[np.inf, 0.0], reference=[0.0, 0.0])


def test_objectives_that_are_not_requested_are_not_read() -> None:
    wins, strengths = np.array([[0.4, np.nan]]), np.array([[1.0, 0.0]])
    assert combined_reward(wins, strengths, is_ended=np.array([True])).tolist() == [0.4]


def test_the_raw_reward_is_the_tangent_of_the_win_probability_and_cut_answers_earn_least() -> None:
    margins = np.array([[0.01, -0.02, 9.0], [8.0, -4.0, 9.0], [-1.0, -1.0, 9.0]])
    strengths = np.tile([0.5, 0.5, 0.0], (3, 1))
    found = raw_reward(margins, strengths, is_ended=np.array([True, True, True]))
    wins = win_probabilities(margins)
    squashed = combined_reward(wins, strengths, is_ended=np.array([True] * 3))
    assert found[0] == pytest.approx(squashed[0], abs=1e-6)
    assert found.tolist() == pytest.approx([0.49875, 1.0, 0.25])
    cut = raw_reward(margins, strengths, is_ended=np.array([True, False, True]))
    assert cut.tolist() == pytest.approx([0.49875, 0.25, 0.25])
