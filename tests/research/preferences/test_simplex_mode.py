import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.preferences.bradley_terry import update
from research.preferences.simplex_mode import (
    fit_plane,
    fit_preference,
    normal_on_plane,
)


@pytest.mark.parametrize("name", ["interior", "boundary"])
def test_the_mode_on_the_simplex_equals_the_recorded_one(shared_folder: Path, name: str) -> None:
    path = shared_folder / "methods" / "cases" / "bradley_terry.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text())["preference_on_simplex"]["cases"]
    case = next(case for case in cases if case["name"] == name)
    prior = normal_on_plane(
        n_objectives=3, sd=case["prior_sd"], center=np.array(case["prior_mean"])
    )
    result = fit_preference(
        np.array(case["features"]), np.array(case["labels"]), prior=prior, gain=case["gain"]
    )
    assert result.mean == pytest.approx(np.array(case["map"]), abs=1e-8)
    assert result.objective == pytest.approx(case["objective"], abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_objectives=st.integers(2, 7), n=st.integers(0, 30))
def test_the_mode_meets_the_optimality_conditions(seed: int, n_objectives: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, n_objectives))
    labels = generator.random(n).round()
    result = fit_preference(
        features, labels, prior=normal_on_plane(n_objectives=n_objectives, sd=0.5), gain=4.0
    )
    w = result.mean
    slope = 4.0 * features.T @ (expit(4.0 * features @ w) - labels) + (w - 1 / n_objectives) / 0.25
    price = slope[w > 0].mean()
    assert w.sum() == pytest.approx(1.0)
    assert slope[w > 0] == pytest.approx(price, abs=1e-6)
    assert (slope[w == 0] >= price - 1e-6).all()


def test_the_tangent_covariance_is_the_inverse_of_a_numerical_curvature() -> None:
    generator = np.random.default_rng(2)
    features, labels = generator.normal(size=(15, 3)), generator.random(15)
    result = fit_preference(features, labels, prior=normal_on_plane(n_objectives=3, sd=0.4))

    def loss(free: np.ndarray) -> float:  # the last share makes the sum one
        w = np.array([free[0], free[1], 1.0 - free.sum()])
        margins = features @ w
        data = labels * np.log1p(np.exp(-margins)) + (1 - labels) * np.log1p(np.exp(margins))
        return float(data.sum() + ((w - 1 / 3) ** 2).sum() / 0.32)

    step = 1e-4
    axes = step * np.eye(2)
    at = result.mean[:2]
    curvature = np.array(
        [
            [
                (loss(at + a + b) - loss(at + a - b) - loss(at - a + b) + loss(at - a - b))
                / (4 * step**2)
                for b in axes
            ]
            for a in axes
        ]
    )
    assert result.covariance[:2, :2] == pytest.approx(np.linalg.inv(curvature), rel=1e-4)


def test_without_comparisons_the_prior_comes_back() -> None:
    prior = normal_on_plane(n_objectives=4, sd=0.3)
    for fitted in (
        fit_plane(np.zeros((0, 4)), np.zeros(0), prior=prior),
        fit_preference(np.zeros((0, 4)), np.zeros(0), prior=prior),
    ):
        assert fitted.mean == pytest.approx(np.full(4, 0.25))
        assert fitted.covariance == pytest.approx(prior.covariance, abs=1e-12)
        assert fitted.log_evidence == pytest.approx(0.0, abs=1e-12)


def test_updates_stay_on_the_plane_and_near_the_refit() -> None:
    generator = np.random.default_rng(3)
    features, labels = 0.3 * generator.normal(size=(10, 4)), generator.random(10).round()
    belief = normal_on_plane(n_objectives=4)
    for feature, label in zip(features, labels, strict=True):
        belief = update(belief, feature, label, gain=5.0)
    refit = fit_plane(features, labels, prior=normal_on_plane(n_objectives=4), gain=5.0)
    assert belief.mean.sum() == pytest.approx(1.0)
    assert belief.mean == pytest.approx(refit.mean, abs=0.05)
    assert belief.covariance @ np.ones(4) == pytest.approx(np.zeros(4), abs=1e-9)


def test_bad_comparisons_and_priors_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="disagree"):
        fit_preference(np.ones((2, 3)), np.ones(3), prior=normal_on_plane(n_objectives=3))
    with pytest.raises(InvalidInputError, match="sd"):
        normal_on_plane(n_objectives=3, sd=0.0)
