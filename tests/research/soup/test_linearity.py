"""Shares of variance: exact where the tilts are linear in the features, and by hand."""

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.soup.linearity import (
    TokenStates,
    by_basis,
    by_features,
    by_random_directions,
    energy_by_rank,
    explained,
    ranks_by_number,
)

N_PROMPTS, N_TOKENS, WIDTH, VOCAB = 20, 30, 4, 6


def _centred(raw, shares):
    return raw - np.einsum("sl,sl...->s...", shares, raw[:, :-1])[:, None]


@pytest.fixture
def states(generator):
    """Experts 0 to 2 are changes of the unembedding; 3 is the sum of 0 and 1; all tokens likely."""
    n = N_PROMPTS * N_TOKENS
    hidden = generator.normal(size=(n, WIDTH))
    tokens = np.column_stack([np.tile(np.arange(VOCAB), (n, 1)), generator.integers(VOCAB, size=n)])
    shares = generator.dirichlet(np.ones(VOCAB), size=n)
    changes = generator.normal(size=(3, VOCAB, WIDTH))
    raw = np.einsum("evw,sw->sve", changes, hidden)
    raw = np.concatenate([raw, raw[:, :, :1] + raw[:, :, 1:2]], axis=2)
    taken = np.take_along_axis(raw, tokens[:, -1][:, None, None], axis=1)
    tilts = _centred(np.concatenate([raw, taken], axis=1), shares)
    features = {"psi": hidden, "other": generator.normal(size=(n, WIDTH))}
    prompts = np.repeat(np.arange(N_PROMPTS), N_TOKENS)
    return TokenStates(features, tokens, shares, tilts, prompts, 2 * prompts + (np.arange(n) % 2))


def _halves(states):
    return states.part(states.prompts < 10), states.part(states.prompts >= 10)


def test_changes_of_the_unembedding_are_linear_in_psi_and_in_nothing_else(states):
    train, test = _halves(states)
    for name, least, most in (("psi", 0.97, 1.0), ("other", -0.5, 0.2)):
        predicted, _ = by_features(train, test, name, seed=0)
        for expert in range(4):
            share = explained(test, predicted[:, :, expert], expert=expert, seed=0)
            assert least < share.estimate <= most
            assert share.low <= share.estimate <= share.high
    predicted, _ = by_features(train, test, "psi", seed=0)
    assert explained(test, predicted[..., 0], expert=0, seed=0, is_answers=True).estimate > 0.95


def test_an_expert_in_the_span_of_others_is_explained_by_their_basis(states):
    train, test = _halves(states)
    inside = explained(test, by_basis(train, test, expert=3, rank=3), expert=3, seed=0)
    assert inside.estimate == pytest.approx(1.0, abs=1e-9)
    outside = explained(test, by_basis(train, test, expert=2, rank=3), expert=2, seed=0)
    assert outside.estimate < 0.3


def test_random_directions_explain_a_share_that_grows_with_their_number(states):
    train, test = _halves(states)

    def mean(n):
        drawn = by_random_directions(train, test, name="psi", expert=0, n=n, seed=0)
        return np.mean([explained(test, one, expert=0, seed=0).estimate for one in drawn])

    assert mean(2) < 0.35
    # all changes of the unembedding that differ after centring
    assert mean((VOCAB - 1) * WIDTH) == pytest.approx(1.0, abs=1e-6)


def test_ranks_and_energies_are_those_of_the_singular_values(states):
    values = np.linalg.svd(states.matrix, compute_uv=False) ** 2
    assert energy_by_rank(states) == pytest.approx(np.cumsum(values) / values.sum())
    ranks = ranks_by_number(states, shares=(0.5, 0.999999))
    assert ranks[0] == (1, {0.5: 1.0, 0.999999: 1.0})
    assert ranks[3][1][0.999999] == 3  # of four experts one is the sum of two
    # of the four sets of three, one holds the sum and both its parts
    assert ranks[2][1][0.999999] == pytest.approx((3 + 3 + 3 + 2) / 4)


def test_the_share_by_hand():
    shares = np.array([[0.5, 0.5], [0.25, 0.75]])
    tilts = np.array([[[1.0], [-1.0], [1.0]], [[3.0], [-1.0], [-1.0]]])
    features = {"psi": np.ones((2, 1))}
    tokens = np.array([[0, 1, 0], [0, 1, 1]])
    states = TokenStates(features, tokens, shares, tilts, np.array([0, 1]), np.array([0, 1]))
    predicted = np.array([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
    # variances 1 and 3; nothing wrong in the first state, all of it in the second
    assert explained(states, predicted, expert=0, seed=0).estimate == pytest.approx(1 / 4)
    # whole answers: 1 and -1, of which the first is predicted
    whole = explained(states, predicted, expert=0, seed=0, is_answers=True)
    assert whole.estimate == pytest.approx(1 / 2)
    still = TokenStates(features, tokens, shares, np.zeros((2, 3, 1)), np.arange(2), np.arange(2))
    with pytest.raises(InvalidInputError, match="does not differ from the base"):
        explained(still, predicted, expert=0, seed=0)
