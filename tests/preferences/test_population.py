import numpy as np
import pytest
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.population import fit_population, pool_beliefs
from research.preferences.one_user import fit


def test_many_users_give_back_the_distribution_they_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    mean = np.array([0.5, -0.3, 0.0])
    covariance = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.2]])
    users = generator.multivariate_normal(mean, covariance, size=400)
    features = generator.normal(size=(400, 200, 3))
    labels = (generator.random((400, 200)) < expit(np.einsum("pnf,pf->pn", features, users))) * 1.0
    population = fit_population(features, labels)
    assert population.mean == pytest.approx(mean, abs=0.15)
    assert population.covariance == pytest.approx(covariance, abs=0.25)
    assert population.n_observations == 400


def test_few_comparisons_do_not_make_users_look_alike() -> None:
    generator = np.random.default_rng(4)
    users = generator.multivariate_normal([1.0, 0.0, -0.5], np.diag([4.0, 1.0, 0.25]), size=500)
    features = generator.normal(size=(500, 10, 3))
    labels = (generator.random((500, 10)) < expit(np.einsum("pnf,pf->pn", features, users))) * 1.0
    variances = np.diag(fit_population(features, labels).covariance)
    # the modes' spread gave less than half of these
    assert variances == pytest.approx([4.0, 1.0, 0.25], rel=0.35)


def test_the_prior_predicts_new_users_better_than_a_standard_normal() -> None:
    generator = np.random.default_rng(1)
    users = generator.multivariate_normal([1.0, 0.0, 0.0], np.diag([0.1, 2.0, 0.01]), size=200)
    features = generator.normal(size=(200, 15, 3))
    labels = (generator.random((200, 15)) < expit(np.einsum("pnf,pf->pn", features, users))) * 1.0
    prior = fit_population(features[:150], labels[:150])

    def evidence(**arguments: object) -> float:
        own = {"prior": prior} | arguments
        pairs = zip(features[150:], labels[150:], strict=True)
        return sum(fit(x, y, **own).log_evidence for x, y in pairs)  # type: ignore[arg-type]

    assert evidence() > evidence(prior=Belief(np.zeros(3), np.eye(3))) + 5.0


def test_users_who_said_nothing_do_not_count() -> None:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(30, 8, 2))
    labels = generator.integers(0, 2, size=(30, 8)) * 1.0
    padded = np.concatenate([features, np.zeros((5, 8, 2))])
    padded_labels = np.concatenate([labels, np.zeros((5, 8))])
    discounts = np.concatenate([np.ones((30, 8)), np.zeros((5, 8))])
    alone = fit_population(features, labels)
    mixed = fit_population(padded, padded_labels, discounts=discounts)
    assert mixed.n_observations == 30
    assert mixed.mean == pytest.approx(alone.mean)


def test_pooling_adds_the_spread_of_the_means_to_the_mean_covariance() -> None:
    means = np.array([[1.0, 0.0], [-1.0, 0.0]])
    belief = pool_beliefs(means, np.array([0.5 * np.eye(2)] * 2))
    assert belief.mean.tolist() == [0.0, 0.0]
    assert belief.covariance == pytest.approx(np.diag([1.5, 0.5]) + 1e-4 * np.eye(2))


def test_a_population_of_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 2"):
        fit_population(np.ones((1, 3, 2)), np.ones((1, 3)))
