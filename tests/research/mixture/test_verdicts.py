"""Verdicts and win rates by paper and pencil."""

import numpy as np
import pytest

from research.mixture.verdicts import (
    Compared,
    average_of,
    joined,
    judged,
    rates_of,
    verdicts,
    wanted_mean,
)

WANTED = np.array([[True, True, True, False]])


def one(*gold: float) -> np.ndarray:
    return np.array([gold])


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((0.5, 0.5, 0.5, 0.0), (0.4, 0.4, 0.9, 1.0), 1.0),  # two of three, however large the loss
        ((0.5, 0.5, 0.5, 1.0), (0.5, 0.6, 0.5, 0.0), 0.0),  # what is not wanted does not count
        ((0.5, 0.5, 0.5, 1.0), (0.4, 0.6, 0.5, 0.0), 0.5),  # one each and one tie
        ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0), 0.5),
    ],
)
def test_objectives_are_counted_and_not_weighed(first, second, verdict: float) -> None:
    assert judged(one(*first), one(*second), WANTED).tolist() == [verdict]


def test_coding_survives_the_swap_of_the_two_answers() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 3, size=(2, 500, 4)) / 2.0
    wanted = np.tile(WANTED, (500, 1))
    there, back = verdicts(first, second, wanted), verdicts(second, first, wanted)
    assert np.array_equal(there, 1.0 - back)
    assert set(there.tolist()) == {0.0, 0.5, 1.0}


def compared(n_prompts: int = 6, n_users: int = 4) -> Compared:
    n = n_prompts * n_users
    return Compared(
        np.ones((n, 3), dtype=bool),
        np.repeat(np.arange(n_prompts), n_users),
        np.tile(np.arange(n_users), n_prompts),
    )


def test_rates_count_wins_ties_and_losses() -> None:
    won = np.array([1.0] * 12 + [0.5] * 8 + [0.0] * 4)
    rates = rates_of(won, compared())
    assert (rates.n_wins, rates.n_ties, rates.n_losses) == (12, 8, 4)
    assert rates.ties_out is not None
    assert rates.ties_out.estimate == pytest.approx(12 / 16)
    assert rates.ties_half.estimate == pytest.approx(16 / 24)
    assert rates.ties_lost.estimate == pytest.approx(12 / 24)


def test_the_average_is_the_mean_of_the_rates_and_lies_in_its_interval() -> None:
    generator = np.random.default_rng(1)
    won = {name: generator.choice([0.0, 0.5, 1.0], size=24) for name in ("a", "b")}
    found = average_of(won, compared())
    decided = [row[row != 0.5].mean() for row in won.values()]
    assert found.ties_out.estimate == pytest.approx(np.mean(decided))
    assert found.ties_half.estimate == pytest.approx(np.mean([row.mean() for row in won.values()]))
    assert found.ties_out.low < found.ties_out.estimate < found.ties_out.high


def test_the_interval_of_one_rivals_average_is_about_that_of_its_rate() -> None:
    generator = np.random.default_rng(2)
    place = compared(n_prompts=60, n_users=8)
    won = generator.choice([0.0, 0.5, 1.0], p=[0.2, 0.3, 0.5], size=480)
    rate = rates_of(won, place).ties_out
    average = average_of({"x": won}, place).ties_out
    assert rate is not None
    assert average.estimate == pytest.approx(rate.estimate)
    assert average.high - average.low == pytest.approx(rate.high - rate.low, rel=0.25)


def test_wanted_means_leave_out_what_is_not_wanted() -> None:
    assert wanted_mean(one(0.3, 0.6, 0.9, 100.0), WANTED).tolist() == pytest.approx([0.6])


def test_seeds_are_joined_with_the_same_prompts_as_clusters() -> None:
    both = joined([compared(), compared()])
    assert len(both.prompt) == 48
    assert len(np.unique(both.prompt)) == 6
