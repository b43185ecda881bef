import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import update
from palate.preferences.questions import (
    information_gains,
    select_informative,
    verdict_information,
)


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
