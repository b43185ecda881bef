import numpy as np
import pytest

from palate.core.types import Belief
from palate.preferences.questions import select_informative
from research.preferences.simplex_mode import normal_on_plane
from research.preferences.study import (
    Path,
    Study,
    _most_informative,  # pyright: ignore[reportPrivateUsage]
    follow_users,
    questions_needed,
    study_drift,
    study_questions,
)

SMALL = Study(n_objectives=3, n_users=40, n_questions=40, n_pool=100, seed=3)


def test_chosen_questions_reach_more_with_fewer_and_regions_cover() -> None:
    found = study_questions(SMALL, n_random=40)
    for n in ("5", "10", "20"):
        assert found["gain_share"]["chosen"][n] > found["gain_share"]["random"][n]
    assert found["gain_share"]["chosen"]["40"] > 0.9
    assert 0.8 <= found["mean_coverage"] <= 0.98


def test_a_change_of_taste_is_found_where_it_is_looked_for() -> None:
    found = study_drift(Study(n_objectives=3, n_users=8, change_at=30, seed=2))
    assert found["change, expected"]["after_20"] > found["change, not expected"]["after_20"] + 0.05
    assert found["recovered_share"] > 0.9
    assert found["cost_without_drift"] < 0.02


def test_questions_needed_counts_from_where_the_goal_is_kept() -> None:
    gained = np.array([[0.5], [0.96], [0.9], [0.97], [0.99]])
    path = Path(gained, np.ones((5, 1)), np.ones(5), np.ones((5, 1)))
    assert questions_needed(path) == 4
    assert questions_needed(path, goal=0.995) is None


def test_asking_everybody_at_once_is_asking_each() -> None:
    generator = np.random.default_rng(0)
    prior = normal_on_plane(n_objectives=4)
    pool = generator.normal(size=(30, 4))
    means = prior.mean + 0.1 * (generator.random((5, 4)) - 0.5)
    means -= means.mean(axis=1, keepdims=True) - 0.25
    covariances = np.array([scale * prior.covariance for scale in generator.uniform(0.1, 1, 5)])
    together = _most_informative(means, covariances, pool, gain=4.0)
    alone = [
        select_informative(Belief(mean, covariance), pool, gain=4.0)
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    assert together.tolist() == alone


def test_the_same_seed_gives_the_same_path() -> None:
    short = Study(n_objectives=3, n_users=5, n_questions=6, seed=1)
    first, second = (follow_users(short, asking="random") for _ in range(2))
    assert first.gain_share() == pytest.approx(second.gain_share())
