import numpy as np
import pytest
from scipy.special import expit

from palate.core.types import Belief
from palate.people.noise import fit_gain, fit_gains
from palate.people.population import fit_population

PRIOR = Belief(np.zeros(4), np.eye(4))


def voters(
    n: int, *, gain: float, seed: int, n_comparisons: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    tastes = generator.normal(size=(n, 4))
    features = generator.normal(size=(n, n_comparisons, 4))
    chance = expit(gain * np.einsum("pnf,pf->pn", features, tastes))
    return features, (generator.random(chance.shape) < chance).astype(float)


def test_without_labels_a_person_is_an_average_one() -> None:
    assert fit_gain(np.zeros((0, 4)), np.zeros(0), prior=PRIOR, gain=2.5) == 2.5
    silent = fit_gain(np.ones((3, 4)), np.ones(3), prior=PRIOR, gain=2.5, discounts=np.zeros(3))
    assert silent == pytest.approx(2.5)


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
def test_the_gain_of_careful_and_careless_people_is_told_apart(gain: float) -> None:
    features, labels = voters(40, gain=gain, seed=0)
    typical = float(np.exp(np.log(fit_gains(features, labels, prior=PRIOR)).mean()))
    assert gain / 1.8 < typical < gain * 1.8


def test_random_voters_get_next_to_no_gain() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(20, 80, 4))
    labels = generator.integers(0, 2, size=(20, 80)).astype(float)
    assert np.median(fit_gains(features, labels, prior=PRIOR)) < 0.3


def test_with_own_gains_random_voters_spoil_the_population_less() -> None:
    generator = np.random.default_rng(2)
    tastes = generator.multivariate_normal([1.5, -1.0, 0.0, 0.0], 0.2 * np.eye(4), size=60)
    features = generator.normal(size=(120, 40, 4))
    labels = generator.integers(0, 2, size=(120, 40)).astype(
        float
    )  # the second half votes at random
    chance = expit(np.einsum("pnf,pf->pn", features[:60], tastes))
    labels[:60] = generator.random((60, 40)) < chance
    plain = fit_population(features, labels)
    gains = fit_gains(features, labels, prior=Belief(np.zeros(4), 2.0 * np.eye(4)))
    aware = fit_population(features, labels, gain=gains)
    true_mean = np.array([1.5, -1.0, 0.0, 0.0])
    away = [float(np.linalg.norm(p.prior.mean - true_mean)) for p in (plain, aware)]
    assert away[1] < 0.9 * away[0]
