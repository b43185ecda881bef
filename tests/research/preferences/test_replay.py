import numpy as np
import pytest

from research.preferences.replay import (
    METHODS,
    RidgeTable,
    fit_ridge_table,
    predict_ridge,
    replay_votes,
)
from research.preferences.votes import VoteTable


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


def test_votes_of_users_with_factors_predict_others_and_strangers_do_not() -> None:
    found = means(simulated_table(), [0, 5, 10])
    for name in ("ridge", "ours, random", "ours, chosen"):
        assert found[name][2] > found["population"][2] + 0.05
    assert found["ours, chosen"][1] > found["ours, random"][1]
    assert found["control"][2] < found["population"][2]
    assert found["ours, chosen"][0] == pytest.approx(found["population"][0], abs=0.02)


def test_users_without_factors_cannot_be_predicted_better_than_the_population() -> None:
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


def test_new_users_are_ridge_regressions_on_the_items() -> None:
    generator = np.random.default_rng(0)
    table = RidgeTable(generator.normal(size=5), generator.normal(size=(5, 2)), 3.0)
    votes = generator.normal(size=(1, 5))
    votes[0, 2] = np.nan
    seen = np.isfinite(votes[0])
    x, y = table.loadings[seen], (votes[0] - table.offset)[seen]
    coefficients = np.linalg.solve(x.T @ x + 3.0 * np.eye(2), x.T @ y)
    assert predict_ridge(table, votes)[0] == pytest.approx(
        table.offset + table.loadings @ coefficients
    )


def test_the_baseline_fills_a_low_rank_table() -> None:
    generator = np.random.default_rng(1)
    expected = generator.normal(size=(150, 2)) @ generator.normal(size=(2, 30))
    votes = expected + 0.3 * generator.normal(size=expected.shape)
    votes[generator.random(votes.shape) > 0.5] = np.nan
    table = fit_ridge_table(votes, rank=2, ridge=1.0, generator=generator)
    error = (predict_ridge(table, votes) - expected)[np.isnan(votes)]
    assert error.std() < 0.4 * expected.std()
