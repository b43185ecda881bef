import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.soup.explain import (
    contributions,
    length_correlation,
    report_soup,
    top_token_agreement,
)
from palate.soup.normalised import States
from palate.soup.pool import entropy, kl_divergence, log_softmax, pool_log_linear


@pytest.fixture
def states(generator):
    reference = log_softmax(generator.normal(size=(5, 6)))
    experts = log_softmax(generator.normal(size=(3, 5, 6)))
    return States(reference, np.moveaxis(experts - reference, 0, -1))


def _soup(states, lam):
    experts = np.moveaxis(states.tilts, -1, 0) + states.reference
    return pool_log_linear(states.reference, experts, lam).log_probs


def test_contributions_sum_to_the_log_ratio_less_the_states_kl(states):
    lam = np.array([0.8, -0.5, 0.3])
    soup = _soup(states, lam)
    ratio = soup - states.reference
    kl = kl_divergence(soup, states.reference)
    total = contributions(lam, states).sum(axis=-1)
    assert total == pytest.approx(ratio - kl[:, None], abs=1e-10)
    # what the soup's own tokens owe to each expert cancels on average
    means = np.einsum("sv,svk->sk", np.exp(soup), contributions(lam, states))
    assert means == pytest.approx(np.zeros((5, 3)), abs=1e-12)


def test_an_expert_without_a_coefficient_contributes_nothing(states):
    assert np.abs(contributions([0.5, 0.0, 1.0], states)[:, :, 1]).max() == 0.0


def test_the_reported_numbers_are_those_of_the_soup(states):
    lam = [0.8, -0.4, 0.3]
    report = report_soup(lam, states, budget=5.0)
    soup = _soup(states, lam)
    assert report.kl_per_token == pytest.approx(kl_divergence(soup, states.reference).mean())
    assert report.entropy_ratio == pytest.approx(
        entropy(soup).mean() / entropy(states.reference).mean()
    )
    assert report.absolute_sum == pytest.approx(1.5)
    assert report.negative_share == pytest.approx(0.4 / 1.5)


def test_the_reference_has_nothing_to_warn_of(states):
    report = report_soup([0, 0, 0], states, budget=0.2)
    assert report.warnings == ()
    assert report.kl_per_token == pytest.approx(0.0, abs=1e-12)
    assert report.mean_normaliser == pytest.approx(1.0)


def test_peaked_flat_and_giant_soups_are_named(states):
    assert any("Too peaked" in w for w in report_soup([9, 9, 0], states, budget=0.2).warnings)
    peaked = log_softmax(np.array([[5.0, 0.0, 0.0]]))
    flat = States(peaked, -(peaked - log_softmax(np.zeros((1, 3))))[:, :, None])
    assert any("Too flat" in w for w in report_soup([1.0], flat, budget=9.0).warnings)
    assert any("giants" in w for w in report_soup([9, -9, 0], states, budget=99.0).warnings)
    nearly_singular = np.diag([1.0, 1.0, 1e-9])
    report = report_soup([0.1, 0, 0], states, budget=9.0, curvature=nearly_singular)
    assert any("near-duplicate" in w for w in report.warnings)


def test_small_negative_coefficients_are_no_giants(states):
    (said,) = report_soup([-0.3, 0.1, 0], states, budget=9.0).warnings
    assert said.startswith("Mostly negative: 75% of the absolute coefficients")


def test_a_report_needs_states(states):
    with pytest.raises(InvalidInputError, match="at least one"):
        report_soup([1, 0, 0], States(states.reference[:0], states.tilts[:0]), budget=1.0)


def test_a_fit_of_length_is_seen_as_such(generator):
    lengths = generator.normal(size=50)
    assert length_correlation(3 * lengths, lengths) == pytest.approx(1.0)
    assert length_correlation(-lengths, lengths) == pytest.approx(-1.0)
    assert length_correlation(np.ones(50), lengths) == 0.0
    with pytest.raises(InvalidInputError, match="two vectors"):
        length_correlation(np.ones(3), np.ones(2))


def test_a_certain_belief_agrees_with_itself_and_a_wild_one_does_not(states, generator):
    mean = np.array([0.5, -0.2, 0.1])
    sure = top_token_agreement(Belief(mean, 1e-12 * np.eye(3)), states, generator=generator)
    wild = top_token_agreement(Belief(mean, 25 * np.eye(3)), states, generator=generator)
    assert sure == 1.0
    assert wild < 0.6


def test_agreement_between_two_tokens_is_a_normal_tail(generator):
    # the first token leads by 1 and the draw moves the lead by a standard normal: P(z > -1)
    reference = log_softmax(np.array([[1.0, 0.0]]))
    states = States(reference, np.array([[[1.0], [0.0]]]))
    belief = Belief(np.zeros(1), np.eye(1))
    found = top_token_agreement(belief, states, generator=generator, n_draws=20_000)
    assert found == pytest.approx(0.8413, abs=0.01)
    with pytest.raises(InvalidInputError, match="at least one"):
        top_token_agreement(belief, States(reference[:0], states.tilts[:0]), generator=generator)
