import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.soup.report import length_correlation, report_soup
from palate.soup.states import States, entropy, kl_divergence, log_softmax
from research.soup.explicit import pool_log_linear


@pytest.fixture
def states(generator):
    reference = log_softmax(generator.normal(size=(5, 6)))
    experts = log_softmax(generator.normal(size=(3, 5, 6)))
    return States(reference, np.moveaxis(experts - reference, 0, -1))


def _soup(states, lam):
    experts = np.moveaxis(states.tilts, -1, 0) + states.reference
    return pool_log_linear(states.reference, experts, lam).log_probs


def test_the_reported_numbers_are_those_of_the_soup(states):
    lam = [0.8, -0.4, 0.3]
    report = report_soup(lam, states, budget=5.0)
    soup = _soup(states, lam)
    assert report.kl_per_token == pytest.approx(kl_divergence(soup, states.reference).mean())
    assert report.entropy_ratio == pytest.approx(
        entropy(soup).mean() / entropy(states.reference).mean()
    )


def test_the_reference_has_nothing_to_warn_of(states):
    report = report_soup([0, 0, 0], states, budget=0.2)
    assert report.warnings == ()
    assert report.kl_per_token == pytest.approx(0.0, abs=1e-12)


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
    (warning,) = report_soup([-0.3, 0.1, 0], states, budget=9.0).warnings
    assert warning.startswith("Mostly negative: 75% of the absolute coefficients")


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
