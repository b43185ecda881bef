import numpy as np
import pytest
from scipy.optimize import minimize

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.soup.settings import settings_for
from palate.soup.states import States, kl_divergence, log_softmax
from palate.soup.trust import expert_kls, mode_within, trust_region
from research.soup.explicit import pool_log_linear


def _states(draws, *, n_states=8, vocab=5, n_experts=3):
    reference = log_softmax(draws.normal(size=(n_states, vocab)))
    experts = log_softmax(draws.normal(size=(n_experts, n_states, vocab)))
    return States(reference, np.moveaxis(experts - reference, 0, -1)), experts


def test_the_trust_region_of_the_case_file(soup_cases):
    rows, case = soup_cases["log_linear"], soup_cases["trust_region"]
    reference = log_softmax(np.array(rows["reference_logits"]))
    experts = log_softmax(np.array(rows["expert_logits"]))
    states = States(reference[None], (experts - reference).T[None])
    trusted = trust_region(case["coefficients"], states, budget=case["kappa"])
    assert trusted.kl_before == pytest.approx(case["kl_before"], abs=1e-10)
    assert trusted.scale == pytest.approx(case["scale"], abs=1e-9)
    assert trusted.coefficients == pytest.approx(case["coefficients_after"], abs=1e-9)
    assert trusted.kl == pytest.approx(case["kl_after"], abs=1e-9)
    pooled = pool_log_linear(reference, experts, trusted.coefficients)
    assert pooled.log_probs == pytest.approx(case["log_probs"], abs=1e-9)


def test_the_budget_is_kept_and_used_up_when_it_is_too_small(generator):
    for _ in range(50):
        states, experts = _states(generator)
        lam = generator.normal(size=3) * 2
        trusted = trust_region(lam, states, budget=0.05)
        pooled = pool_log_linear(states.reference, experts, trusted.coefficients).log_probs
        kl = kl_divergence(pooled, states.reference).mean()
        assert trusted.kl == pytest.approx(kl, abs=1e-10)
        assert trusted.kl <= 0.05
        if trusted.kl_before > 0.05:
            assert kl == pytest.approx(0.05, abs=1e-9)
        else:
            assert trusted.scale == 1.0
            assert trusted.coefficients == pytest.approx(lam)


def test_kl_grows_along_the_ray_at_the_rate_of_the_variance(generator):
    states, experts = _states(generator, n_states=1)
    lam = generator.normal(size=3)
    tilt = states.tilts[0] @ lam

    def kl(scale):
        pooled = pool_log_linear(states.reference, experts, scale * lam).log_probs
        return float(kl_divergence(pooled, states.reference)[0]), np.exp(pooled[0])

    for scale in (0.3, 1.0, 2.5):
        slope = (kl(scale + 1e-5)[0] - kl(scale - 1e-5)[0]) / 2e-5
        chances = kl(scale)[1]
        variance = chances @ tilt**2 - (chances @ tilt) ** 2
        assert slope == pytest.approx(scale * variance, abs=1e-7)
        assert slope >= 0


def test_a_floor_is_never_shrunk_and_feedback_cannot_lower_it(generator):
    for _ in range(30):
        states, experts = _states(generator)
        lam = generator.normal(size=3) * 3
        trusted = trust_region(lam, states, budget=0.02, floor=(1, 0.6))
        assert trusted.coefficients[1] >= 0.6
        assert trusted.kl <= 0.02
        safe = pool_log_linear(states.reference, experts, [0, 0.6, 0]).log_probs
        pooled = pool_log_linear(states.reference, experts, trusted.coefficients).log_probs
        assert kl_divergence(pooled, safe).mean() == pytest.approx(trusted.kl, abs=1e-10)


def test_a_floor_keeps_what_a_user_wants_beyond_it(generator):
    states, _ = _states(generator)
    trusted = trust_region([0.1, 0.9, 0.0], states, budget=1e6, floor=(1, 0.6))
    assert trusted.coefficients.tolist() == pytest.approx([0.1, 0.9, 0.0])


def test_states_may_count_differently(generator):
    states, _ = _states(generator, n_states=2)
    only_first = trust_region([1, 1, 1], states, budget=0.01, state_shares=np.array([1.0, 0.0]))
    alone = trust_region([1, 1, 1], States(states.reference[:1], states.tilts[:1]), budget=0.01)
    assert only_first.scale == pytest.approx(alone.scale)


def test_bad_regions_are_refused(generator):
    states, _ = _states(generator)
    with pytest.raises(InvalidInputError, match="budget"):
        trust_region([1, 1, 1], states, budget=0.0)
    with pytest.raises(InvalidCoefficientsError, match="3 experts"):
        trust_region([1, 1], states, budget=0.1)
    with pytest.raises(InvalidCoefficientsError, match="floor"):
        trust_region([1, 1, 1], states, budget=0.1, floor=(3, 0.5))


def test_coefficients_are_enlarged_while_the_budget_lasts_and_never_beyond_the_largest_scale(
    generator,
):
    states, _ = _states(generator)
    lam = np.array([0.02, -0.01, 0.03])
    kept = trust_region(lam, states, budget=0.05)
    assert (kept.scale, kept.coefficients) == (1.0, pytest.approx(lam))
    short = trust_region(lam, states, budget=0.05, largest_scale=1.5)
    assert (short.scale, short.coefficients) == (1.5, pytest.approx(1.5 * lam))
    long = trust_region(lam, states, budget=0.05, largest_scale=1e3)
    assert 1.5 < long.scale < 1e3
    assert long.kl == pytest.approx(0.05, abs=1e-9)
    with pytest.raises(InvalidInputError, match="largest scale of 0"):
        trust_region(lam, states, budget=0.05, largest_scale=0.0)


def test_the_kl_of_the_experts_is_that_of_each_alone(generator):
    states, experts = _states(generator)
    alone = [kl_divergence(expert, states.reference).mean() for expert in experts]
    assert expert_kls(states) == pytest.approx(alone)


def test_the_mode_within_is_what_a_general_optimiser_finds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        root = generator.normal(size=(4, 4))
        covariance = root @ root.T + 0.1 * np.eye(4)
        belief = Belief(generator.normal(size=4), covariance)
        precision = np.linalg.inv(covariance)

        def away(m: np.ndarray, p: np.ndarray = precision, mean: np.ndarray = belief.mean) -> float:
            return float((m - mean) @ p @ (m - mean))

        start = np.clip(belief.mean, 0.1, 1.4)
        found = minimize(away, start, bounds=[(0, 1.5)] * 4, tol=1e-12)
        assert away(mode_within(belief, 0.0, 1.5)) <= found.fun + 1e-8
        within = mode_within(belief, 0.0, 1.5)
        assert np.all((within >= 0) & (within <= 1.5))


def test_a_belief_within_the_bounds_is_its_own_mode() -> None:
    belief = Belief(np.array([0.5, 1.2]), np.array([[1.0, 0.3], [0.3, 0.5]]))
    assert mode_within(belief, 0.0, 1.5) == pytest.approx(belief.mean)


def test_giving_up_a_negative_coefficient_moves_what_goes_with_it() -> None:
    # by hand: with correlation 0.9, cutting the second at 0 moves the first by 0.9 * 1 = 0.9
    belief = Belief(np.array([0.5, -1.0]), np.array([[1.0, 0.9], [0.9, 1.0]]))
    assert mode_within(belief, 0.0, 1.5) == pytest.approx([1.4, 0.0])


def test_without_bounds_the_mode_is_the_mean() -> None:
    belief = Belief(np.array([5.0, -9.0]), np.eye(2))
    assert mode_within(belief, None, None) == pytest.approx([5.0, -9.0])
    assert mode_within(belief, None, 2.0) == pytest.approx([2.0, -9.0])


def test_without_a_population_experts_of_one_objective_are_bounded_and_may_all_act_in_full() -> (
    None
):
    kls = np.array([0.1, 0.3])
    axes = settings_for(np.eye(2), kls, has_population=False)
    assert axes == {
        "budget": pytest.approx(0.4),
        "early_budget": pytest.approx(0.2),
        "largest_scale": 2.0,
        "least_coefficient": 0.0,
        "most_coefficient": 1.0,
    }
    of_experts = settings_for(np.array([[0.5, 0.5], [1.0, 0.0]]), kls, has_population=False)
    assert of_experts == {
        "budget": pytest.approx(0.2),
        "early_budget": pytest.approx(0.1),
        "largest_scale": 2.0,
    }
    signed = np.array([[-1.0, 0.0], [1.0, 0.0]])
    assert settings_for(signed, kls, has_population=False) == of_experts
    assert settings_for(np.eye(2), kls, has_population=True) == of_experts
