import numpy as np
import pytest
from scipy.stats import chisquare

from palate.core.errors import InvalidInputError
from palate.soup.rejection import rejection_sampler, sample_implicit
from palate.soup.states import log_softmax
from research.soup.explicit import pool_log_linear


@pytest.fixture
def case(soup_cases):
    rows = soup_cases["log_linear"]
    reference = log_softmax(np.array(rows["reference_logits"]))
    experts = log_softmax(np.array(rows["expert_logits"]))
    expected = soup_cases["rejection"]
    tilt = np.array(expected["coefficients"]) @ (experts - reference)
    return reference, tilt, expected


def test_acceptance_and_expected_proposals_of_the_case_file(case):
    reference, tilt, expected = case
    assert tilt == pytest.approx(expected["g"], abs=1e-10)
    sampler = rejection_sampler(reference, tilt)
    assert sampler.accept == pytest.approx(expected["accept"], abs=1e-10)
    assert sampler.expected_proposals == pytest.approx(expected["expected_proposals"], abs=1e-10)
    accepted = np.exp(sampler.proposal) * sampler.accept
    assert np.log(accepted / accepted.sum()) == pytest.approx(expected["log_probs"], abs=1e-10)


@pytest.mark.parametrize("cap", [1, 3, 32])
def test_20000_implicit_draws_have_the_explicit_distribution_whatever_the_cap(case, cap, generator):
    reference, tilt, expected = case
    draws = sample_implicit(
        rejection_sampler(reference, tilt), n_draws=20_000, generator=generator, cap=cap
    )
    counts = np.bincount(draws.tokens, minlength=7)
    assert chisquare(counts, 20_000 * np.exp(expected["log_probs"])).pvalue > 0.001
    assert draws.n_proposals.max() <= cap


def test_the_mean_number_of_proposals_is_as_predicted(case, generator):
    reference, tilt, expected = case
    draws = sample_implicit(
        rejection_sampler(reference, tilt), n_draws=20_000, generator=generator, cap=1000
    )
    assert draws.n_fallbacks == 0
    assert draws.n_proposals.mean() == pytest.approx(expected["expected_proposals"], rel=0.03)


def test_masks_and_temperature_give_the_explicit_distribution(case, generator):
    reference, tilt, _ = case
    allowed = np.array([True, True, False, True, True, False, True])
    masked = np.where(allowed, reference, -np.inf)
    sampler = rejection_sampler(masked, tilt, temperature=0.5)
    explicit = log_softmax(np.where(allowed, (reference + tilt) / 0.5, -np.inf))
    accepted = np.exp(sampler.proposal) * sampler.accept
    assert accepted / accepted.sum() == pytest.approx(np.exp(explicit), abs=1e-12)
    # the largest tilt is that of token 5, which is masked: it must not cost rejections
    assert sampler.accept.max() == 1.0
    tokens = sample_implicit(sampler, n_draws=500, generator=generator).tokens
    assert np.all(allowed[tokens])


def test_a_veto_is_never_proposed(generator):
    sampler = rejection_sampler(np.zeros(3), np.array([0.0, -np.inf, 1.0]))
    assert np.isneginf(sampler.proposal[1])
    assert 1 not in sample_implicit(sampler, n_draws=300, generator=generator).tokens


def test_bad_samplers_are_refused(generator):
    with pytest.raises(InvalidInputError, match="one length"):
        rejection_sampler(np.zeros(3), np.zeros(4))
    with pytest.raises(InvalidInputError, match="temperature"):
        rejection_sampler(np.zeros(3), np.zeros(3), temperature=0.0)
    with pytest.raises(InvalidInputError, match="No token"):
        rejection_sampler(np.zeros(3), np.full(3, -np.inf))
    with pytest.raises(InvalidInputError, match="cap"):
        sample_implicit(
            rejection_sampler(np.zeros(2), np.zeros(2)), n_draws=1, generator=generator, cap=0
        )


def test_the_implicit_soup_is_the_explicit_one_on_random_states(generator):
    for _ in range(50):
        reference, experts = generator.normal(size=5), generator.normal(size=(3, 5))
        lam = generator.normal(size=3)
        tilt = lam @ (log_softmax(experts) - log_softmax(reference))
        sampler = rejection_sampler(reference, tilt)
        accepted = np.exp(sampler.proposal) * sampler.accept
        explicit = pool_log_linear(reference, experts, lam).log_probs
        assert accepted / accepted.sum() == pytest.approx(np.exp(explicit), abs=1e-12)
