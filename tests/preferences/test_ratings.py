import json
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.preferences.ratings import fit_ratings


def test_ratings_equal_the_recorded_ridge_estimate(shared_folder: Path) -> None:
    path = shared_folder / "methods" / "cases" / "bradley_terry.json"
    case = json.loads(path.read_text())["ratings"]
    belief = fit_ratings(
        np.array(case["features"]),
        np.array(case["ratings"]),
        groups=case["prompt_ids"],
        ridge=case["ridge"],
    )
    assert belief.mean == pytest.approx(np.array(case["coefficients"]), abs=1e-8)


def test_a_constant_for_each_prompt_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    features, ratings = generator.normal(size=(12, 3)), generator.normal(size=12)
    groups = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    shift = np.array([5.0, -2.0, 0.0, 9.0])[groups]
    first = fit_ratings(features, ratings, groups=groups)
    second = fit_ratings(features + shift[:, None], ratings - shift, groups=groups)
    assert first.mean == pytest.approx(second.mean, abs=1e-10)


def test_the_covariance_is_that_of_linear_regression() -> None:
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    belief = fit_ratings(features, np.zeros(4), groups=[0, 0, 0, 0], ridge=1.0, noise=3.0)
    # X'X = diag(2, 8), so the covariance is 9 diag(1/3, 1/9)
    assert belief.covariance == pytest.approx(np.diag([3.0, 1.0]))
    assert belief.n_observations == 4


def test_one_rating_for_each_prompt_returns_the_prior_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="prior"):
        belief = fit_ratings(np.eye(3), np.array([1.0, 2.0, 3.0]), groups=["a", "b", "c"])
    assert belief.mean.tolist() == [0.0, 0.0, 0.0]


def test_bad_ratings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="above 0"):
        fit_ratings(np.eye(2), np.ones(2), groups=[0, 0], ridge=0.0)
    with pytest.raises(InvalidInputError, match="disagree"):
        fit_ratings(np.eye(2), np.ones(2), groups=[0])
    with pytest.raises(InvalidInputError, match="not finite"):
        fit_ratings(np.eye(2), np.array([1.0, np.nan]), groups=[0, 0])
