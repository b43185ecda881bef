import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.preferences.simulated import SimulatedUser, simulate_users


def share_of_first(user: SimulatedUser, feature: np.ndarray, *, n_answers: int = 0) -> float:
    generator = np.random.default_rng(0)
    labels = [user.compare(feature, n_answers=n_answers, generator=generator) for _ in range(4000)]
    return float(np.mean(labels))


def test_answers_follow_the_logistic_model() -> None:
    user = SimulatedUser(np.array([1.0, 0.5]), gain=2.0)
    feature = np.array([0.4, -0.2])
    assert share_of_first(user, feature) == pytest.approx(float(expit(0.6)), abs=0.025)


def test_lapses_adversaries_and_ties() -> None:
    feature = np.array([5.0, 0.0])
    taste = np.array([1.0, 0.0])
    assert share_of_first(SimulatedUser(taste, lapse_share=1.0), feature) == pytest.approx(
        0.5, abs=0.025
    )
    assert share_of_first(SimulatedUser(taste, gain=3.0, is_adversary=True), feature) < 0.01
    tied = SimulatedUser(taste, tie_width=10.0)
    assert tied.compare(feature, generator=np.random.default_rng(0)) == 0.5


def test_a_change_of_taste_happens_at_its_moment() -> None:
    user = SimulatedUser(np.array([1.0]), gain=20.0, change_at=3, later_taste=np.array([-1.0]))
    assert [float(user.taste_at(n)[0]) for n in range(5)] == [1.0, 1.0, 1.0, -1.0, -1.0]
    assert share_of_first(user, np.array([1.0]), n_answers=2) > 0.99
    assert share_of_first(user, np.array([1.0]), n_answers=3) < 0.01


def test_simulated_preferences_lie_on_the_simplex() -> None:
    users = simulate_users(50, n_objectives=5, change_at=10, generator=np.random.default_rng(0))
    for user in users:
        assert user.taste.sum() == pytest.approx(1.0)
        assert user.taste_at(10).min() >= 0
        assert not np.array_equal(user.taste, user.taste_at(10))


def test_impossible_users_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="lapse share"):
        SimulatedUser(np.ones(1), lapse_share=1.5)
    with pytest.raises(InvalidInputError, match="later taste"):
        SimulatedUser(np.ones(1), change_at=5)
