import numpy as np
import pytest

from palate.preferences.replay import METHODS, replay_votes
from palate.preferences.votes import VoteTable


def simulated_table(*, is_structured: bool = True, seed: int = 0) -> VoteTable:
    generator = np.random.default_rng(seed)
    users, items = generator.normal(size=(120, 2)), generator.normal(size=(2, 36))
    liking = generator.normal(size=36) + (1.5 * users @ items if is_structured else 0.0)
    votes = np.sign(liking + 0.7 * generator.normal(size=(120, 36)))
    votes[generator.random(votes.shape) < 0.25] = np.nan
    return VoteTable("simulated", tuple(map(str, range(36))), votes)


def means(table: VoteTable, n_votes: list[int]) -> dict[str, list[float]]:
    replay = replay_votes(table, n_votes=n_votes, n_folds=3, rank=3)
    assert set(replay.scores) == set(METHODS)
    return {name: np.nanmean(rows, axis=1).tolist() for name, rows in replay.scores.items()}


def test_votes_of_users_with_tastes_foretell_others_and_strangers_do_not() -> None:
    found = means(simulated_table(), [0, 5, 10])
    for name in ("ridge", "ours, random", "ours, chosen"):
        assert found[name][2] > found["population"][2] + 0.05
    assert found["ours, chosen"][1] > found["ours, random"][1]
    assert found["control"][2] < found["population"][2]
    assert found["ours, chosen"][0] == pytest.approx(found["population"][0], abs=0.02)


def test_users_without_tastes_cannot_be_foretold_better_than_the_population() -> None:
    found = means(simulated_table(is_structured=False), [10])
    for name in METHODS:
        assert found[name][0] <= found["population"][0] + 0.015


def test_users_with_too_few_votes_are_left_out() -> None:
    table = simulated_table()
    few = table.votes.copy()
    few[0, 12:] = np.nan  # 12 votes at most: 8 cannot be hidden and 5 shown
    replay = replay_votes(VoteTable("simulated", table.items, few), n_votes=[5], n_folds=3, rank=2)
    assert np.isnan(replay.scores["ridge"][0, 0])
    assert np.isfinite(replay.scores["ridge"][0]).mean() > 0.9


def test_the_same_seed_gives_the_same_scores() -> None:
    table = simulated_table()
    first, second = (replay_votes(table, n_votes=[5], n_folds=3, rank=2, seed=4) for _ in range(2))
    for name in METHODS:
        assert np.array_equal(first.scores[name], second.scores[name], equal_nan=True)
