from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import reference_plan
from palate.core.types import Belief
from palate.soup.basis_file import SoupBasis
from palate.soup.settings import SoupSettings
from palate.soup.spectral import personal_soup, predicted_gain
from palate.soup.states import States, kl_divergence, log_softmax
from research.soup.explicit import pool_log_linear


@pytest.fixture
def states(generator):
    reference = log_softmax(generator.normal(size=(20, 6)))
    experts = log_softmax(generator.normal(size=(3, 20, 6)))
    return States(reference, np.moveaxis(experts - reference, 0, -1))


@pytest.fixture
def basis():
    return SoupBasis(
        base="abc",
        experts=("a", "b", "c"),
        objectives=("x", "y", "z"),
        anchors=np.eye(3),
        beta=0.2,
        feature_means=np.zeros(3),
        feature_scales=np.array([1.0, 2.0, 0.5]),
        effective_rank={},
        prior=Belief(np.array([0.3, 0.3, 0.3]), np.eye(3)),
    )


def _pooled(states, lam):
    experts = np.moveaxis(states.tilts, -1, 0) + states.reference
    return pool_log_linear(states.reference, experts, lam).log_probs


def test_without_feedback_the_base_model_answers(basis, states):
    soup = personal_soup(basis.unscaled(basis.prior), states=states, method="output-soup")
    assert soup.plan == reference_plan(n_experts=3)
    gain, _ = predicted_gain(soup.coefficients, states, believed=soup.belief, beta=basis.beta)
    assert (soup.kl, gain) == (pytest.approx(0.0), pytest.approx(0.0))


def test_a_small_preference_is_served_as_it_is_believed(basis, states):
    belief = Belief(np.array([0.1, -0.2, 0.05]), 0.04 * np.eye(3), 30)
    soup = personal_soup(basis.unscaled(belief), states=states, method="soup")
    assert soup.scale == 1.0
    assert soup.belief.mean == pytest.approx([0.1, -0.1, 0.1])
    assert soup.standard_errors == pytest.approx([0.2, 0.1, 0.4])
    assert soup.plan.rows[0].coefficients == pytest.approx((0.1, -0.1, 0.1))
    assert soup.belief.n_observations == 30


@pytest.mark.parametrize(("n", "budget"), [(3, 0.1), (30, 0.2)])
def test_a_large_preference_is_shrunk_more_after_little_feedback(basis, states, n, budget):
    belief = Belief(np.array([3.0, -2.0, 1.0]), np.eye(3), n)
    soup = personal_soup(basis.unscaled(belief), states=states, method="output-soup")
    assert soup.kl == pytest.approx(budget, abs=1e-9)
    kl = kl_divergence(_pooled(states, soup.coefficients), states.reference).mean()
    assert kl == pytest.approx(budget, abs=1e-8)


def test_experts_that_hardly_act_are_not_run_and_a_floor_always_is(basis, states):
    belief = Belief(np.array([0.3, 0.002, 0.0]), np.eye(3), 30)
    soup = personal_soup(basis.unscaled(belief), states=states, method="output-soup")
    assert len(soup.plan.rows) == 2
    safe = personal_soup(
        basis.unscaled(belief), states=states, method="output-soup", floor=(2, 0.01)
    )
    assert safe.coefficients[2] == 0.01
    assert len(safe.plan.rows) == 3


@pytest.mark.parametrize("method", ["soup", "output-soup"])
def test_no_threshold_drops_the_floors_expert(basis, states, method):
    settings = SoupSettings(active_threshold=10.0)
    belief = Belief(np.array([0.3, 0.2, -0.4]), np.eye(3), 30)
    for floor in ((0, 0.01), (2, 0.05)):
        soup = personal_soup(
            basis.unscaled(belief), states=states, method=method, settings=settings, floor=floor
        )
        others = np.delete(soup.coefficients, floor[0])
        assert soup.coefficients[floor[0]] >= floor[1]
        assert np.all(others == 0.0)
        served = sum(
            np.array(row.coefficients) * c
            for row, c in zip(soup.plan.rows, soup.plan.pool.coefficients or (1.0,), strict=True)
        )
        assert served[floor[0]] == pytest.approx(soup.coefficients[floor[0]])


def test_what_is_shown_is_the_posterior_and_what_is_served_stays(basis, states):
    mode = Belief(np.array([0.1, -0.2, 0.05]), 0.04 * np.eye(3), 30)
    posterior = Belief(np.array([0.2, -0.3, 0.1]), np.diag([0.04, 0.16, 0.01]), 30)
    soup = personal_soup(basis.unscaled(mode), states=states, method="soup")
    shown = replace(soup, belief=basis.unscaled(posterior))
    assert shown.belief.mean == pytest.approx([0.2, -0.15, 0.2])  # divided by the scales
    assert shown.standard_errors == pytest.approx([0.2, 0.2, 0.2])
    assert (shown.plan, shown.kl, shown.scale) == (soup.plan, soup.kl, soup.scale)
    believed = Belief(shown.belief.mean, 0.04 * np.eye(3))
    gain = predicted_gain(soup.coefficients, states, believed=believed, beta=0.2)
    own = predicted_gain(shown.coefficients, states, believed=shown.belief, beta=0.2)
    assert own == pytest.approx(gain)


def test_the_predicted_gain_is_the_soups_advantage_less_its_kl(states):
    served, coefficients = np.array([0.3, -0.2, 0.1]), np.array([1.0, 0.5, -0.4])
    believed = Belief(coefficients, np.diag([0.1, 0.2, 0.3]))
    gain, error = predicted_gain(served, states, believed=believed, beta=0.2)
    soup, base = np.exp(_pooled(states, served)), np.exp(states.reference)
    value = 0.2 * states.tilts @ coefficients
    kl = kl_divergence(np.log(soup), states.reference).mean()
    expected = np.mean(np.sum((soup - base) * value, axis=1)) - 0.2 * kl
    assert gain == pytest.approx(expected)
    draws = np.random.default_rng(1).multivariate_normal(
        coefficients, believed.covariance, size=20_000
    )
    gains = [
        np.mean(np.sum((soup - base) * (0.2 * states.tilts @ row), axis=1)) - 0.2 * kl
        for row in draws[:2000]
    ]
    half = 1.959964 * error
    assert (gain - half, gain + half) == pytest.approx(
        tuple(np.quantile(gains, [0.025, 0.975])), abs=0.1 * 2.0 * half
    )


def test_no_soup_is_believed_to_gain_more_than_what_is_believed(states, generator):
    coefficients = np.array([0.6, -0.3, 0.5])
    believed = Belief(coefficients, np.eye(3))
    best, _ = predicted_gain(coefficients, states, believed=believed, beta=0.2)
    for _ in range(50):
        other, _ = predicted_gain(generator.normal(size=3), states, believed=believed, beta=0.2)
        assert other <= best


def test_what_does_not_fit_is_refused(basis, states):
    belief = Belief(np.ones(3), np.eye(3), 5)
    with pytest.raises(InvalidInputError, match="one library"):
        personal_soup(Belief(np.ones(2), np.eye(2), 5), states=states, method="soup")
    with pytest.raises(InvalidCoefficientsError, match="floor"):
        personal_soup(basis.unscaled(belief), states=states, method="soup", floor=(9, 1.0))
    with pytest.raises(InvalidInputError, match="budget"):
        SoupSettings.checked({"budget": -1}, source="test")


def test_bounded_coefficients_are_enlarged_up_to_the_bound_only(basis, states):
    belief = Belief(np.array([0.1, -0.2, 0.05]), 0.04 * np.eye(3), 30)
    bounded = SoupSettings(
        budget=9.0, largest_scale=20.0, least_coefficient=0.0, most_coefficient=0.5
    )
    soup = personal_soup(basis.unscaled(belief), states=states, method="soup", settings=bounded)
    # believed 0.1, -0.1, 0.1 with independent errors: the second is cut, the others stay
    assert soup.belief.mean == pytest.approx([0.1, -0.1, 0.1])
    assert soup.allowed == pytest.approx([0.1, 0.0, 0.1])
    assert soup.scale == pytest.approx(5.0)
    assert soup.coefficients == pytest.approx([0.5, 0.0, 0.5])
