import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import (
    Fit,
    fit_batch,
    update,
    update_batch,
)
from palate.preferences.newton import moderate
from research.preferences.one_user import fit

NAMES = [
    "ridge",
    "ridge_weak",
    "population_prior",
    "discounted",
    "ties",
    "separable",
    "no_data",
    "duplicated_expert",
]


@pytest.fixture(scope="module")
def cases(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods" / "cases" / "bradley_terry.json").read_text())


def fit_of(case: dict[str, Any]) -> tuple[Fit, Belief]:
    precision = np.array(case["prior_precision"])
    prior = Belief(np.array(case["prior_mean"]), np.linalg.inv(precision))
    features = np.array(case["features"]).reshape(-1, len(prior.mean))
    result = fit(
        features,
        np.array(case["labels"]),
        prior=prior,
        gain=case["gain"],
        discounts=np.array(case["discounts"]),
    )
    return result, prior


@pytest.mark.parametrize("name", NAMES)
def test_fit_equals_the_recorded_mode_covariance_and_evidence(
    cases: dict[str, Any], name: str
) -> None:
    case = next(case for case in cases["cases"] if case["name"] == name)
    result, _ = fit_of(case)
    assert result.mean == pytest.approx(np.array(case["map"]), abs=1e-8)
    assert result.covariance == pytest.approx(np.array(case["laplace_covariance"]), abs=1e-8)
    assert result.objective == pytest.approx(case["objective"], abs=1e-10)
    assert result.log_evidence == pytest.approx(case["log_evidence"], abs=1e-8)
    assert np.sqrt(np.diag(result.covariance)) == pytest.approx(
        np.array(case["standard_errors"]), abs=1e-8
    )
    wanted = case["prediction"]
    feature = case["gain"] * np.array(wanted["feature"])
    margin, variance = feature @ result.mean, feature @ result.covariance @ feature
    assert margin == pytest.approx(wanted["margin_mean"], abs=1e-8)
    assert variance == pytest.approx(wanted["margin_variance"], abs=1e-8)
    assert moderate(margin, variance) == pytest.approx(wanted["probability_moderated"], abs=1e-8)
    assert expit(margin) == pytest.approx(wanted["probability_plug_in"], abs=1e-8)


def test_every_recorded_case_is_tested(cases: dict[str, Any]) -> None:
    assert [case["name"] for case in cases["cases"]] == NAMES


def test_one_comparison_at_a_time_equals_the_recorded_path(cases: dict[str, Any]) -> None:
    online = cases["online_updates"]
    belief = Belief(np.array(online["prior_mean"]), np.array(online["prior_covariance"]))
    wanted = {step["after"]: step for step in online["updates"]}
    pairs = zip(online["features"], online["labels"], strict=True)
    for count, (feature, label) in enumerate(pairs, start=1):
        before = belief.mean @ np.array(feature)
        belief = update(belief, np.array(feature), label, gain=online["gain"])
        if count in wanted:
            step = wanted.pop(count)
            assert belief.mean == pytest.approx(np.array(step["mean"]), abs=1e-8)
            assert belief.covariance == pytest.approx(np.array(step["covariance"]), abs=1e-8)
            assert before == pytest.approx(step["margin_before"], abs=1e-8)
            assert belief.mean @ np.array(feature) == pytest.approx(step["margin_after"], abs=1e-8)
    assert belief.n_observations == 12
    assert not wanted


def test_fit_agrees_with_a_general_minimiser() -> None:
    generator = np.random.default_rng(5)
    features = generator.normal(size=(40, 4))
    labels = generator.choice([0.0, 0.5, 1.0], size=40)
    spread = generator.normal(size=(4, 4))
    prior = Belief(generator.normal(size=4), spread @ spread.T + np.eye(4))
    precision = np.linalg.inv(prior.covariance)

    def loss(mean: np.ndarray) -> float:
        margins = 1.7 * features @ mean
        data = labels * np.log1p(np.exp(-margins)) + (1 - labels) * np.log1p(np.exp(margins))
        return float(data.sum() + 0.5 * (mean - prior.mean) @ precision @ (mean - prior.mean))

    best = minimize(loss, prior.mean, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    result = fit(features, labels, prior=prior, gain=1.7)
    assert result.mean == pytest.approx(best.x, abs=1e-5)
    assert result.objective == pytest.approx(best.fun, abs=1e-9)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_the_evidence_is_the_integral_of_likelihood_and_prior(gain: float) -> None:
    """Where the posterior is nearly normal Laplace's approximation is the integral itself."""
    features, labels = np.full((6, 1), 0.3), np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.5])
    prior = Belief(np.array([0.4]), np.array([[0.5]]))
    m = np.linspace(-6.0, 6.0, 40_001)
    density = np.exp(-0.5 * (m - 0.4) ** 2 / 0.5) / np.sqrt(2 * np.pi * 0.5)
    for label in labels:
        win = expit(gain * 0.3 * m)
        density = density * win**label * (1 - win) ** (1 - label)
    expected = np.log(density.sum() * (m[1] - m[0]))
    found = fit(features, labels, prior=prior, gain=gain).log_evidence
    assert found == pytest.approx(expected, abs=2e-3)


def test_a_moderated_probability_averages_over_the_belief() -> None:
    belief = Belief(np.array([0.5, -1.0]), np.array([[0.6, 0.2], [0.2, 0.9]]))
    feature, gain = np.array([0.8, -0.4]), 1.7
    # 0.64 * 0.6 - 2 * 0.32 * 0.2 + 0.16 * 0.9 = 0.4
    probability = moderate(gain * (0.4 + 0.4), gain**2 * 0.4)
    draws = np.random.default_rng(0).multivariate_normal(belief.mean, belief.covariance, 200_000)
    assert probability == pytest.approx(expit(gain * draws @ feature).mean(), abs=0.01)


def test_a_batch_answers_each_user_as_alone() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 12, 3))
    labels = generator.integers(0, 2, size=(50, 12)).astype(float)
    discounts = (generator.random((50, 12)) < 0.7).astype(float)
    gains = generator.uniform(0.5, 3.0, size=50)
    prior = Belief(np.array([0.2, 0.0, -0.1]), np.diag([1.0, 2.0, 0.5]))
    batch = fit_batch(features, labels, prior=prior, gain=gains, discounts=discounts)
    for user in range(50):
        kept = discounts[user] > 0
        alone = fit(features[user][kept], labels[user][kept], prior=prior, gain=float(gains[user]))
        assert batch.mean[user] == pytest.approx(alone.mean, abs=1e-9)
        assert batch.covariance[user] == pytest.approx(alone.covariance, abs=1e-9)
        assert batch.log_evidence[user] == pytest.approx(alone.log_evidence, abs=1e-9)
        assert batch.n_observations[user] == kept.sum()


def test_a_batched_update_answers_each_user_as_alone() -> None:
    generator = np.random.default_rng(1)
    means = generator.normal(size=(20, 5))
    covariances = np.array([np.diag(row) for row in generator.uniform(0.1, 9.0, size=(20, 5))])
    features = 3 * generator.normal(size=(20, 5))
    labels = generator.random(20)
    got_means, got_covariances = update_batch(means, covariances, features, labels, gain=2.0)
    for user in range(20):
        alone = update(
            Belief(means[user], covariances[user]), features[user], labels[user], gain=2.0
        )
        assert got_means[user] == pytest.approx(alone.mean, abs=1e-9)
        assert got_covariances[user] == pytest.approx(alone.covariance, abs=1e-9)


def test_updating_in_place_gives_the_same() -> None:
    generator = np.random.default_rng(2)
    means, covariances = generator.normal(size=(7, 3)), np.tile(2.0 * np.eye(3), (7, 1, 1))
    features, labels = generator.normal(size=(7, 3)), generator.random(7)
    wanted = update_batch(means, covariances, features, labels)
    got = update_batch(means, covariances, features, labels, out=(means, covariances))
    assert got[1] is covariances
    assert np.array_equal(means, wanted[0])
    assert np.array_equal(covariances, wanted[1])


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(1e-3, 30.0),
    label=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_an_update_is_the_exact_mode_of_its_comparison(
    scale: float, label: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(3, 3))
    prior = Belief(generator.normal(size=3), root @ root.T + 0.1 * np.eye(3))
    feature = scale * generator.normal(size=3)
    after = update(prior, feature, label)
    residual = label - expit(feature @ after.mean)
    wanted = prior.mean + prior.covariance @ feature * residual  # stationarity of the objective
    assert after.mean == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    curvature = expit(feature @ after.mean) * expit(-feature @ after.mean)
    precision = np.linalg.inv(prior.covariance) + curvature * np.outer(feature, feature)
    assert after.covariance @ precision == pytest.approx(np.eye(3), abs=1e-5)


def test_any_order_of_the_history_gives_the_same_fit() -> None:
    generator = np.random.default_rng(3)
    features, labels = generator.normal(size=(30, 4)), generator.random(30)
    prior = Belief(np.zeros(4), np.eye(4))
    order = generator.permutation(30)
    first = fit(features, labels, prior=prior)
    second = fit(features[order], labels[order], prior=prior)
    assert first.mean == pytest.approx(second.mean, abs=1e-10)


def test_swapping_the_two_answers_and_the_label_changes_nothing() -> None:
    generator = np.random.default_rng(4)
    features, labels = generator.normal(size=(30, 4)), generator.random(30)
    prior = Belief(np.zeros(4), np.eye(4))
    swapped = fit(-features, 1.0 - labels, prior=prior)
    assert fit(features, labels, prior=prior).mean == pytest.approx(swapped.mean, abs=1e-10)


def test_huge_margins_still_settle() -> None:
    generator = np.random.default_rng(6)
    features = 1e4 * generator.normal(size=(50, 3))
    prior = Belief(np.zeros(3), np.eye(3))
    labels = generator.integers(0, 2, size=50).astype(float)
    result = fit(features, labels, prior=prior)
    slope = features.T @ (expit(features @ result.mean) - labels) + result.mean
    assert np.abs(slope).max() < 1e-4 * 1e4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": np.array([1.5])}, "label 1.5"),
        ({"labels": np.array([np.nan])}, "label nan"),
        ({"features": np.array([[np.inf, 0.0]])}, "not finite"),
        ({"features": np.zeros((2, 2))}, "disagree"),
        ({"gain": 0.0}, "gain"),
        ({"discounts": np.array([-0.1])}, "discount"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    arguments: dict[str, Any] = {
        "features": np.ones((1, 2)),
        "labels": np.ones(1),
        "prior": Belief(np.zeros(2), np.eye(2)),
        **changes,
    }
    with pytest.raises(InvalidInputError, match=sentence):
        fit(**arguments)


def test_a_prior_without_width_is_refused() -> None:
    flat = Belief(np.zeros(2), np.ones((2, 2)))
    with pytest.raises(InvalidCoefficientsError, match="positive definite"):
        fit(np.ones((1, 2)), np.ones(1), prior=flat)
