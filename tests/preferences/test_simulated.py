import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.preferences.simulated import SimulatedUser


def share_of_first(user: SimulatedUser, feature: np.ndarray) -> float:
    generator = np.random.default_rng(0)
    return float(np.mean([user.compare(feature, generator=generator) for _ in range(4000)]))


def test_answers_follow_the_logistic_model() -> None:
    user = SimulatedUser(np.array([1.0, 0.5]), gain=2.0)
    feature = np.array([0.4, -0.2])
    assert share_of_first(user, feature) == pytest.approx(float(expit(0.6)), abs=0.025)


def test_who_always_lapses_answers_at_random() -> None:
    user = SimulatedUser(np.array([1.0, 0.0]), lapse_share=1.0)
    assert share_of_first(user, np.array([5.0, 0.0])) == pytest.approx(0.5, abs=0.025)


def test_impossible_users_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="lapse share"):
        SimulatedUser(np.ones(1), lapse_share=1.5)
