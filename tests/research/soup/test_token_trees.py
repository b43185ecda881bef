import numpy as np
import pytest
from scipy.special import expit, log_softmax

from research.soup.token_trees import BETA, GAIN, votes, yardstick
from research.soup.trees import answer_log_probs


@pytest.fixture(scope="module")
def world():
    return yardstick(3)


def test_attributes_are_standardised_and_directions_have_unit_length(world):
    chances = np.exp(answer_log_probs(world.reference))
    assert chances.sum() == pytest.approx(1.0)
    assert chances @ world.attributes == pytest.approx(np.zeros(4), abs=1e-12)
    assert chances @ world.attributes**2 == pytest.approx(np.ones(4))
    for rows, n in ((world.anchors, 30), (world.training, 200), (world.users, 6)):
        assert rows.shape == (n, 4)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(n))


def _by_hand(tokens):
    """Log-probability and unscaled attributes of one answer, by the recursion's definition."""
    draws = np.random.default_rng(3)
    W = draws.normal(size=(8, 8)) / np.sqrt(8) * 1.2
    U, E = draws.normal(size=(8, 5)), draws.normal(size=(5, 8)) * 0.7
    h, F, C = draws.normal(size=8), draws.normal(size=(4, 8)), draws.normal(size=(4, 5))
    total = 0.0
    for token in tokens:
        total += log_softmax(E @ h)[token]
        h = np.tanh(W @ h + U[:, token])
    return total, np.tanh(F @ h) + np.mean([C[:, token] for token in tokens], axis=0)


def test_probabilities_and_attributes_follow_the_network_token_by_token(world):
    answers = ["40221", "00000", "13243"]
    index = [int(answer, base=5) for answer in answers]
    totals, raw = zip(
        *[_by_hand([int(token) for token in answer]) for answer in answers], strict=False
    )
    assert answer_log_probs(world.reference)[index] == pytest.approx(totals)
    # standardising shifts and scales: ratios of differences stay
    scaled = world.attributes[index]
    assert (scaled[0] - scaled[1]) / (scaled[0] - scaled[2]) == pytest.approx(
        (raw[0] - raw[1]) / (raw[0] - raw[2])
    )
    assert np.all((scaled[0] - scaled[1]) / (raw[0] - raw[1]) > 0)


def test_users_are_drawn_after_training_users_and_without_them_directly_after_anchors(world):
    alone = yardstick(3, n_training=0)
    assert alone.training.shape == (0, 4)
    assert np.array_equal(alone.anchors, world.anchors)
    assert np.allclose(alone.users, world.training[:6])


def test_votes_follow_returns_with_the_stated_gain(world):
    said = votes(world, user=2)
    again = votes(world, user=2)
    assert np.array_equal(said.labels, again.labels)
    returns = world.attributes @ world.users[2]
    expected = expit(GAIN * (returns[said.first] - returns[said.second]))
    # 300 votes: three standard errors of their mean surprise
    error = np.sqrt(np.mean(expected * (1 - expected)) / 300)
    assert abs(np.mean(said.labels - expected)) < 3 * error
    assert BETA == 0.5
