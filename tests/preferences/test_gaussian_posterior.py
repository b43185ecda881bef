import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import chi2

from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.preferences.comparisons import RootedPrior
from palate.preferences.gaussian_posterior import average_fit, average_fits, logistic_averages
from palate.preferences.noise import average_over_gain
from palate.preferences.settings import LearningSettings
from research.preferences.one_user import fit


def test_without_comparisons_the_prior_comes_back() -> None:
    prior = Belief(np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 1.0]]))
    found = average_fit(np.empty((0, 2)), np.empty(0), prior=prior)
    assert np.allclose(found.mean, prior.mean, atol=1e-12)
    assert np.allclose(found.covariance, prior.covariance, atol=1e-12)


def test_one_number_is_closer_to_the_exact_mean_and_spread_than_laplace() -> None:
    features, labels = np.array([[1.5], [2.0], [1.0], [2.5]]), np.ones(4)
    prior = Belief(np.zeros(1), np.eye(1))

    def density(w: float) -> float:
        return float(np.exp(-0.5 * w * w) * np.prod(expit(features[:, 0] * w)))

    mass, mean, square = (quad(lambda w, k=k: w**k * density(w), -9, 9)[0] for k in range(3))
    exact_mean, exact_variance = mean / mass, square / mass - (mean / mass) ** 2
    laplace = fit(features, labels, prior=prior)
    found = average_fit(features, labels, prior=prior)
    assert abs(found.mean[0] - exact_mean) < 0.02 < abs(laplace.mean[0] - exact_mean)
    assert abs(found.covariance[0, 0] - exact_variance) < abs(
        laplace.covariance[0, 0] - exact_variance
    )


def test_the_bound_lies_just_below_the_exact_evidence() -> None:
    features, labels = np.array([[1.5], [-2.0], [1.0]]), np.array([1.0, 1.0, 0.0])

    def likelihood(w: float) -> float:
        margin = features[:, 0] * w
        return float(np.prod(expit(np.where(labels == 1.0, margin, -margin))))

    exact = np.log(
        quad(lambda w: likelihood(w) * np.exp(-0.5 * w * w) / np.sqrt(2 * np.pi), -9, 9)[0]
    )
    _, _, bound, _ = average_fits(
        features[None], labels[None], prior=Belief(np.zeros(1), np.eye(1))
    )
    assert exact - 0.02 < bound[0] < exact


def test_at_the_answer_averaged_slope_and_curvature_balance_the_prior() -> None:
    generator = np.random.default_rng(3)
    features, labels = generator.normal(size=(12, 3)), generator.integers(2, size=12).astype(float)
    discounts = generator.random(12)
    found = average_fit(
        features, labels, prior=Belief(np.zeros(3), np.eye(3)), gain=2.0, discounts=discounts
    )
    draws = generator.multivariate_normal(found.mean, found.covariance, size=200_000)
    chance = expit(2.0 * draws @ features.T)
    slope = (discounts * (chance.mean(axis=0) - labels)) @ (2.0 * features) + found.mean
    assert np.abs(slope).max() < 0.02  # 200,000 draws: a standard error of about 0.004
    weight = discounts * (chance * (1 - chance)).mean(axis=0)
    precision = np.eye(3) + (4.0 * features.T * weight) @ features
    assert np.allclose(np.linalg.inv(found.covariance), precision, rtol=0.02, atol=0.02)


def test_directions_that_are_known_stay_known() -> None:
    prior = RootedPrior(np.array([0.5, 0.5]), np.array([[1.0], [-1.0]]))
    found = average_fit(np.array([[1.0, 0.0]]), np.array([1.0]), prior=prior)
    assert found.mean.sum() == pytest.approx(1.0)
    assert found.mean[0] > 0.5


def test_extreme_margins_settle() -> None:
    generator = np.random.default_rng(0)
    features = 30.0 * generator.normal(size=(5, 40, 4))
    mean, covariance, *_ = average_fits(
        features, np.ones((5, 40)), prior=Belief(np.zeros(4), np.eye(4))
    )
    assert np.isfinite(mean).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_margins_that_are_large_and_separable_settle_where_both_equations_hold() -> None:
    """Whole steps swing here for ever: 20 comparisons, 8 features, margins of about 20."""
    generator = np.random.default_rng([0, 8, 20])
    users = generator.normal(size=(100, 8))
    features = 8.0 * generator.normal(size=(100, 20, 8))
    labels = (np.einsum("pnf,pf->pn", features, users) > 0).astype(float)
    mean, covariance, *_ = average_fits(features, labels, prior=Belief(np.zeros(8), np.eye(8)))
    margins = np.einsum("pnf,pf->pn", features, mean)
    deviations = np.sqrt(np.einsum("pnf,pfg,png->pn", features, covariance, features))
    draws = margins + deviations * generator.standard_normal((20_000, *margins.shape))
    chance = expit(draws).mean(axis=0)
    slope = np.einsum("pn,pnf->pf", chance - labels, features) + mean
    assert np.abs(slope).max() < 0.3  # features of 8: errors of 20,000 draws add up to about 0.1


@pytest.mark.parametrize("n_features", [8, 16])
def test_regions_of_many_coefficients_cover_where_laplace_falls_short(n_features: int) -> None:
    generator = np.random.default_rng(1)
    users = generator.normal(size=(1500, n_features))
    features = 0.7 * generator.normal(size=(1500, 30, n_features))
    chance = expit(np.einsum("pnf,pf->pn", features, users))
    labels = (generator.random(chance.shape) < chance).astype(float)
    prior = Belief(np.zeros(n_features), np.eye(n_features))
    mean, covariance, *_ = average_fits(features, labels, prior=prior)
    away = users - mean
    solved = np.linalg.solve(covariance, away[..., None])[..., 0]
    squares = np.einsum("pf,pf->p", away, solved)
    # 1,500 users: two standard errors are 1.6 points
    assert 0.86 <= np.mean(squares <= chi2.ppf(0.9, n_features)) <= 0.92


def test_a_learner_gives_the_posterior_of_its_whole_history() -> None:
    teacher = Learner(
        Belief(np.zeros(2), np.eye(2)), settings=LearningSettings(is_gain_fitted=False)
    )
    history = [
        Feedback("p", "comparison", (1.0, float(n)), label=float(n % 2), key=str(n))
        for n in range(5)
    ]
    found = teacher.posterior(history)
    expected = average_fit(
        np.array([item.features for item in history]),
        np.array([item.label for item in history]),
        prior=teacher.prior,
    )
    assert found.n_observations == 5
    assert np.allclose(found.mean, expected.mean)
    assert np.allclose(found.covariance, expected.covariance)


def test_a_learner_that_fits_gains_averages_over_them_from_the_first_comparison_on() -> None:
    teacher = Learner(Belief(np.zeros(2), np.eye(2)), settings=LearningSettings(gain=2.0))
    history = [Feedback("p", "comparison", (1.5, -1.0), label=1.0)]
    found = teacher.posterior(history)
    expected = average_over_gain(
        np.array([[1.5, -1.0]]), np.array([1.0]), prior=teacher.prior, gain=2.0
    )
    assert np.allclose(found.mean, expected.mean)
    assert np.allclose(found.covariance, expected.covariance)
    plain = average_fit(np.array([[1.5, -1.0]]), np.array([1.0]), prior=teacher.prior, gain=2.0)
    assert not np.allclose(found.covariance, plain.covariance, rtol=1e-3)


def test_ratings_alone_give_the_exact_normal() -> None:
    teacher = Learner(Belief(np.zeros(2), np.eye(2)), LearningSettings(is_rating_scaled=False))
    rows = [((1.0, 0.0), 2.0), ((0.0, 1.0), -1.0), ((1.0, 1.0), 0.5)]
    history = [Feedback("p", "rating", x, label=value, group="g") for x, value in rows]
    found, stored = teacher.posterior(history), teacher.rebuild(history)
    x, y = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    x, y = x - x.mean(axis=0), y - y.mean()
    exact = np.linalg.inv(x.T @ x + np.eye(2))
    for belief in (found, stored):
        assert np.allclose(belief.covariance, exact)
        assert np.allclose(belief.mean, exact @ x.T @ y)


def test_everybody_can_have_a_gain_of_their_own() -> None:
    generator = np.random.default_rng(6)
    features, labels = generator.normal(size=(2, 6, 3)), np.ones((2, 6))
    prior = Belief(np.zeros(3), np.eye(3))
    mean, covariance, *_ = average_fits(features, labels, prior=prior, gain=np.array([0.5, 3.0]))
    for place, gain in enumerate((0.5, 3.0)):
        alone = average_fit(features[place], labels[place], prior=prior, gain=gain)
        assert np.allclose(mean[place], alone.mean, atol=1e-9)
        assert np.allclose(covariance[place], alone.covariance, atol=1e-9)


def test_without_spread_they_are_the_curves() -> None:
    margins = np.linspace(-40.0, 40.0, 4001)
    softplus, sigmoid, slope = logistic_averages(margins, np.zeros_like(margins))
    chance = expit(margins)
    assert np.abs(sigmoid - chance).max() < 5e-9
    assert np.abs(softplus - np.logaddexp(0.0, margins)).max() < 1e-8
    assert np.abs(slope - chance * (1.0 - chance)).max() < 2e-8


@pytest.mark.parametrize(("mean", "deviation"), [(0.7, 0.5), (-3.0, 2.0), (40.0, 60.0)])
def test_averages_agree_with_integration_at_any_width(mean: float, deviation: float) -> None:
    def average(curve) -> float:
        def weighted(m: float) -> float:
            z = (m - mean) / deviation
            return float(curve(m) * np.exp(-0.5 * z * z) / (deviation * np.sqrt(2 * np.pi)))

        ends = (mean - 12 * deviation, mean + 12 * deviation)
        return quad(weighted, *ends, points=[0.0, mean], limit=500)[0]

    softplus, sigmoid, slope = logistic_averages(np.array(mean), np.array(deviation**2))
    assert sigmoid == pytest.approx(average(expit), abs=2e-8)
    assert slope == pytest.approx(average(lambda m: expit(m) * expit(-m)), abs=2e-8)
    assert softplus == pytest.approx(average(lambda m: np.logaddexp(0.0, m)), abs=1e-7)
