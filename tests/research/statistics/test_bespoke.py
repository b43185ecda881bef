import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.statistics.bespoke import bespoke_share, ratio_interval


@pytest.fixture
def generator():
    return np.random.default_rng(20240731)


def test_shares_by_hand(generator):
    # gains 1 + 3 of 2 + 4; utilities 2 + 5 of 3 + 6
    share = bespoke_share(
        np.array([2.0, 5.0]),
        base=np.array([1.0, 2.0]),
        ceiling=np.array([3.0, 6.0]),
        generator=generator,
    )
    assert share.gain.estimate == pytest.approx(4 / 6)
    assert share.raw.estimate == pytest.approx(7 / 9)
    assert share.worst == pytest.approx(0.5)
    assert share.gain.n == 2


def test_intervals_of_the_gain_cover_93_to_97_percent():
    draws = np.random.default_rng(71)
    hits = []
    for _ in range(800):
        possible = draws.uniform(0.5, 1.5, size=25)
        got = possible * draws.normal(0.8, 0.2, size=25)
        gain = ratio_interval(got, possible, generator=draws)
        hits.append(gain.low <= 0.8 <= gain.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_a_ceiling_below_the_base_is_refused(generator):
    with pytest.raises(InvalidInputError, match="no gain"):
        bespoke_share(np.ones(3), base=np.ones(3), ceiling=np.zeros(3), generator=generator)
    with pytest.raises(InvalidInputError, match="two users"):
        bespoke_share(np.ones(1), base=np.zeros(1), ceiling=np.ones(1), generator=generator)
