from math import log

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.statistics.sequential import (
    hedged_log_capital,
    observations_to_decide,
    predictable_bets,
)


def test_the_capital_by_hand():
    # betting 0.4 on a mean above 0.5: factors 1 + 0.4 * (0.5, 0.5, -0.5) = 1.2, 1.2, 0.8
    capital = hedged_log_capital(
        np.array([1.0, 1.0, 0.0]), bets=np.full(3, 0.4), means=np.array([0.5])
    )
    assert capital[:, 0] == pytest.approx([log(0.6), log(0.72), log(0.576)])


def test_the_capital_is_fair_when_the_mean_is_the_nulls():
    # one gambler at a time: each bet's expected factor is one, over all 2^6 outcomes
    outcomes = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(float)
    chance = 0.3 ** outcomes.sum(1) * 0.7 ** (6 - outcomes.sum(1))
    bets = np.linspace(0.2, 0.6, 6)
    up = np.prod(1 + bets * (outcomes - 0.3), axis=1)
    hedged = np.array(
        [
            np.exp(hedged_log_capital(row, bets=bets, means=np.array([0.3]))[-1, 0])
            for row in outcomes
        ]
    )
    assert chance @ up == pytest.approx(1.0)
    assert chance @ hedged <= 1.0
    assert np.all(hedged >= 0.5 * up - 1e-12)


def test_looking_after_every_observation_keeps_the_error_at_5_percent():
    draws = np.random.default_rng(51)
    n_wrong, n_peeking = 0, 0
    count = np.arange(1, 301)
    for _ in range(2000):
        verdicts = (draws.random(300) < 0.5).astype(float)
        capital = hedged_log_capital(
            verdicts, bets=predictable_bets(verdicts, level=0.05), means=np.array([0.5])
        )
        n_wrong += bool(np.any(capital >= log(20)))
        z = (np.cumsum(verdicts) - count / 2) / np.sqrt(count / 4)
        n_peeking += bool(np.any(np.abs(z[20:]) > 1.96))
    assert n_wrong <= 100
    assert n_peeking > 400  # what an ordinary test does when looked at any time


def test_a_clear_preference_is_decided_early_and_none_is_not():
    draws = np.random.default_rng(52)
    n_needed = observations_to_decide((draws.random(600) < 0.75).astype(float))
    assert n_needed is not None
    assert n_needed < 150
    assert observations_to_decide((draws.random(600) < 0.5).astype(float)) is None


def test_the_decision_comes_when_the_capital_reaches_twenty():
    verdicts = (np.random.default_rng(52).random(600) < 0.75).astype(float)
    bets = predictable_bets(verdicts, level=0.05)
    capital = hedged_log_capital(verdicts, bets=bets, means=np.array([0.5]))[:, 0]
    n_needed = observations_to_decide(verdicts)
    assert capital[n_needed - 1] >= log(20)
    assert np.all(capital[: n_needed - 1] < log(20))


def test_values_between_zero_and_one_are_allowed():
    means = np.random.default_rng(53).beta(20, 60, size=300)  # mean 0.25
    assert observations_to_decide(means) is not None
    assert observations_to_decide(means + 0.25) is None


@pytest.mark.parametrize("values", [[1.5], [-0.1], []])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(InvalidInputError):
        observations_to_decide(values)
