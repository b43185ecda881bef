import numpy as np
import pytest

from palate.preferences.ridge_tastes import RidgeTable, fit_ridge_table, predict_ridge


def test_new_users_are_ridge_regressions_on_the_items() -> None:
    generator = np.random.default_rng(0)
    table = RidgeTable(generator.normal(size=5), generator.normal(size=(5, 2)), 3.0)
    votes = generator.normal(size=(1, 5))
    votes[0, 2] = np.nan
    seen = np.isfinite(votes[0])
    x, y = table.loadings[seen], (votes[0] - table.offset)[seen]
    taste = np.linalg.solve(x.T @ x + 3.0 * np.eye(2), x.T @ y)
    assert predict_ridge(table, votes)[0] == pytest.approx(table.offset + table.loadings @ taste)


def test_the_baseline_fills_a_low_rank_table() -> None:
    generator = np.random.default_rng(1)
    expected = generator.normal(size=(150, 2)) @ generator.normal(size=(2, 30))
    votes = expected + 0.3 * generator.normal(size=expected.shape)
    votes[generator.random(votes.shape) > 0.5] = np.nan
    table = fit_ridge_table(votes, rank=2, ridge=1.0, generator=generator)
    error = (predict_ridge(table, votes) - expected)[np.isnan(votes)]
    assert error.std() < 0.4 * expected.std()
