import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.soup.states import entropy, kl_divergence, log_softmax
from research.soup.explicit import pool_log_linear

SEEDS = st.integers(0, 10_000)


def _logits(seed, *, n_experts=3, vocab=6):
    draws = np.random.default_rng(seed)
    return draws.normal(size=vocab) * 2, draws.normal(size=(n_experts, vocab)) * 2, draws


def _null_is_minus_inf(values):
    return np.array([-np.inf if value is None else value for value in values])


def test_the_case_file_is_pooled_exactly(soup_cases):
    case = soup_cases["log_linear"]
    reference, experts = np.array(case["reference_logits"]), np.array(case["expert_logits"])
    assert len(case["cases"]) == 7
    for each in case["cases"]:
        pooled = pool_log_linear(reference, experts, each["coefficients"])
        base = log_softmax(reference)
        assert pooled.log_probs == pytest.approx(each["log_probs"], abs=1e-10)
        assert float(pooled.log_normaliser) == pytest.approx(each["log_Z"], abs=1e-10)
        assert kl_divergence(pooled.log_probs, base) == pytest.approx(
            each["kl_to_reference"], abs=1e-10
        )
        assert kl_divergence(base, pooled.log_probs) == pytest.approx(
            each["kl_from_reference"], abs=1e-10
        )
        assert entropy(pooled.log_probs) == pytest.approx(each["entropy"], abs=1e-10)


def test_the_mask_of_the_case_file_acts_after_pooling(soup_cases):
    case = soup_cases["log_linear"]
    masked = case["masked"]
    pooled = pool_log_linear(
        np.array(case["reference_logits"]),
        np.array(case["expert_logits"]),
        masked["coefficients"],
        allowed=np.array(masked["allowed"], dtype=bool),
    )
    assert pooled.log_probs == pytest.approx(_null_is_minus_inf(masked["log_probs"]), abs=1e-10)


def test_the_vetoes_of_the_case_file(soup_cases):
    case = soup_cases["log_linear"]
    experts = np.array(case["expert_logits"])
    where = case["veto"]["minus_inf"]
    experts[where["expert"], where["token"]] = -np.inf
    for each in case["veto"]["cases"]:
        pooled = pool_log_linear(np.array(case["reference_logits"]), experts, each["coefficients"])
        assert pooled.log_probs == pytest.approx(_null_is_minus_inf(each["log_probs"]), abs=1e-10)
        assert not np.any(np.isnan(pooled.log_probs))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_no_coefficients_give_the_reference_and_one_gives_that_expert(seed):
    reference, experts, _ = _logits(seed)
    zero = pool_log_linear(reference, experts, [0, 0, 0]).log_probs
    assert zero == pytest.approx(log_softmax(reference), abs=1e-12)
    # identity, even when every other row forbids something
    reference[0] = experts[0, 1] = experts[2, 2] = -np.inf
    one = pool_log_linear(reference, experts, [0, 1, 0]).log_probs
    assert one == pytest.approx(log_softmax(experts[1]), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_constants_added_to_a_row_change_nothing(seed):
    reference, experts, draws = _logits(seed)
    lam = draws.normal(size=3)
    shifted = pool_log_linear(reference + 7.0, experts + draws.normal(size=(3, 1)) * 9, lam)
    assert shifted.log_probs == pytest.approx(
        pool_log_linear(reference, experts, lam).log_probs, abs=1e-10
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_coefficients_that_sum_to_one_do_not_read_the_reference(seed):
    reference, experts, draws = _logits(seed)
    lam = np.array([0.5, 0.75, -0.25])
    # the MOD product of powers, computed from probabilities
    powers = np.prod(np.exp(log_softmax(experts)) ** lam[:, None], axis=0)
    expected = np.log(powers / powers.sum())
    assert pool_log_linear(reference, experts, lam).log_probs == pytest.approx(expected, abs=1e-10)
    other = draws.normal(size=6)
    other[3] = -np.inf
    assert pool_log_linear(other, experts, lam).log_probs == pytest.approx(expected, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(-2, 3))
def test_one_expert_is_a_change_of_strength(seed, strength):
    reference, experts, _ = _logits(seed, n_experts=1)
    p0, p1 = np.exp(log_softmax(reference)), np.exp(log_softmax(experts[0]))
    powers = p0 ** (1 - strength) * p1**strength
    assert pool_log_linear(reference, experts, [strength]).log_probs == pytest.approx(
        np.log(powers / powers.sum()), abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_permuting_experts_with_their_coefficients_changes_nothing(seed):
    reference, experts, draws = _logits(seed, n_experts=4)
    lam, order = draws.normal(size=4), draws.permutation(4)
    assert pool_log_linear(reference, experts[order], lam[order]).log_probs == pytest.approx(
        pool_log_linear(reference, experts, lam).log_probs, abs=1e-10
    )


def test_states_are_pooled_each_as_alone(generator):
    reference, experts = generator.normal(size=(4, 5, 6)), generator.normal(size=(3, 4, 5, 6))
    lam = [0.4, -0.8, 1.1]
    together = pool_log_linear(reference, experts, lam).log_probs
    alone = pool_log_linear(reference[2, 3], experts[:, 2, 3], lam).log_probs
    assert together.shape == (4, 5, 6)
    assert together[2, 3] == pytest.approx(alone, abs=1e-12)


def test_what_the_reference_forbids_stays_forbidden_even_if_experts_forbid_it_too():
    reference = np.array([0.0, -np.inf, 0.0, 0.0])
    experts = np.array([[0.0, 5.0, 0.0, 1.0], [0.0, -np.inf, 1.0, 0.0]])
    pooled = pool_log_linear(reference, experts, [0.5, -0.7]).log_probs
    assert np.isneginf(pooled).tolist() == [False, True, False, False]
    assert np.exp(pooled).sum() == pytest.approx(1.0)


def test_a_forbidding_expert_with_a_negative_coefficient_is_refused_unless_clipped():
    reference, experts = np.zeros(3), np.array([[0.0, 0.0, -np.inf]])
    with pytest.raises(InvalidInputError, match="clip the tilts"):
        pool_log_linear(reference, experts, [-0.5])
    with pytest.raises(InvalidInputError, match="clip the tilts"):
        pool_log_linear(reference, np.array([experts[0], [0.0] * 3]), [-0.5, 1.5])
    pooled = pool_log_linear(reference, experts, [-0.5], clip=30.0)
    assert pooled.n_clipped == 1
    # tilts log(3/2), log(3/2), -30; halved and negated
    weights = np.exp(-0.5 * np.array([np.log(1.5), np.log(1.5), -30.0]))
    assert np.exp(pooled.log_probs) == pytest.approx(weights / weights.sum(), abs=1e-12)


@pytest.mark.parametrize("bad", [[0.1, 0.2], [0.1, float("nan"), 0.0], [[1.0, 0.0, 0.0]]])
def test_coefficients_that_do_not_fit_are_refused(bad):
    reference, experts, _ = _logits(1)
    with pytest.raises(InvalidCoefficientsError, match="3 experts"):
        pool_log_linear(reference, experts, bad)


def test_distributions_that_do_not_fit_are_refused():
    reference, experts, _ = _logits(1)
    with pytest.raises(InvalidInputError, match="same states"):
        pool_log_linear(reference[:5], experts, [0, 0, 0])
    with pytest.raises(InvalidInputError, match="NaN"):
        pool_log_linear(np.full(6, np.nan), experts, [0.5, 0, 0])
    with pytest.raises(InvalidInputError, match="no allowed token"):
        pool_log_linear(reference, experts, [1, 0, 0], allowed=np.zeros(6, dtype=bool))


def test_head_only_adapters_make_parameter_soup_and_output_soup_the_same(soup_cases):
    case = soup_cases["head_only"]
    psi, E = np.array(case["psi"]), np.array(case["E"])
    heads = np.array(case["Theta"])
    lam = np.array(case["coefficients"])
    in_parameters = psi @ (E + np.tensordot(lam, heads, axes=1))
    assert in_parameters == pytest.approx(case["logits_parameter_soup"], abs=1e-10)
    in_outputs = pool_log_linear(psi @ E, np.stack([psi @ (E + head) for head in heads]), lam)
    assert in_outputs.log_probs == pytest.approx(log_softmax(in_parameters), abs=1e-10)
    assert in_outputs.log_probs == pytest.approx(case["log_probs"], abs=1e-10)
