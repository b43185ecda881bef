"""Personal vectors are found where they were planted, and not where everybody wants the same."""

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.preferences.personal import (
    Comparisons,
    accuracy_by_user,
    held_out_margins,
    user_vectors,
)


def planted(*, spread: float, n_users: int = 30, n_each: int = 20, seed: int = 0):
    generator = np.random.default_rng(seed)
    vectors = np.array([1.0, 0.0, -0.5]) + spread * generator.normal(size=(n_users, 3))
    users = np.repeat(np.arange(n_users), n_each)
    x = 1.5 * generator.normal(size=(len(users), 3))
    chances = 1 / (1 + np.exp(-(x * vectors[users]).sum(axis=1)))
    labels = (generator.random(len(users)) < chances).astype(float)
    return vectors, Comparisons(x, labels, users, generator.integers(40, size=len(users)))


def gain(comparisons: Comparisons) -> np.ndarray:
    personal, common = held_out_margins(comparisons, generator=np.random.default_rng(1))
    return accuracy_by_user(personal, comparisons) - accuracy_by_user(common, comparisons)


def test_planted_vectors_are_found_by_twenty_comparisons_and_their_intervals_cover() -> None:
    vectors, comparisons = planted(spread=1.5)
    better = gain(comparisons)
    assert better.mean() > 2.5 * better.std() / np.sqrt(len(better))
    prior, means, deviations = user_vectors(comparisons)
    assert np.mean(np.abs(means - vectors) < 1.96 * deviations) == pytest.approx(0.95, abs=0.06)
    assert np.abs(prior.mean - [1.0, 0.0, -0.5]).max() < 0.7


def test_nothing_personal_is_found_where_all_want_the_same() -> None:
    better = gain(planted(spread=0.0, n_users=20)[1])
    assert better.mean() < 2.0 * better.std() / np.sqrt(len(better))


def test_a_comparison_is_predicted_without_its_prompt() -> None:
    users, prompts = np.zeros(20, dtype=int), np.arange(20)
    x = np.eye(20)  # every prompt has a feature of its own, which no other can tell of
    comparisons = Comparisons(x, np.ones(20), users, prompts)
    personal, common = held_out_margins(comparisons, generator=np.random.default_rng(0))
    assert np.array_equal(personal, np.zeros(20))
    assert np.array_equal(common, np.zeros(20))


def test_ties_teach_and_are_not_scored() -> None:
    comparisons = Comparisons(np.eye(2), np.array([0.5, 1.0]), np.array([0, 1]), np.array([0, 1]))
    shares = accuracy_by_user(np.array([3.0, 3.0]), comparisons)
    assert np.isnan(shares[0])
    assert shares[1] == 1.0
    assert accuracy_by_user(np.zeros(2), comparisons)[1] == 0.5


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.zeros(3, dtype=int)
    with pytest.raises(InvalidInputError, match="All comparisons are of one prompt"):
        held_out_margins(
            Comparisons(np.ones((3, 1)), np.ones(3), one, one), generator=np.random.default_rng(0)
        )
    with pytest.raises(InvalidInputError, match="not finite"):
        Comparisons(np.full((3, 1), np.nan), np.ones(3), one, one)
    with pytest.raises(InvalidInputError, match="2 users"):
        Comparisons(np.ones((3, 1)), np.ones(3), one[:2], one)
