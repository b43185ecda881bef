from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Payoffs, normal_quantile, value_bounds
from research.portfolio.exact import exact_payoffs


def payoffs(values, errors, **more) -> Payoffs:
    values = np.array(values, dtype=float)
    table = PayoffTable(
        objectives=("a", "b"),
        policies=tuple(f"p{k}" for k in range(len(values))),
        values=np.nan_to_num(values),
        standard_errors=np.array(errors, dtype=float),
        beta=0.5,
        kl=np.ones(len(values)),
        preferences=np.full_like(values, np.nan),
    )
    known = exact_payoffs(table)
    return replace(known, table=replace(table, values=values), **more)


def test_one_interval_has_the_textbook_quantile_and_more_have_wider_ones():
    assert normal_quantile(confidence=0.95, n_intervals=1) == pytest.approx(1.959964, abs=1e-6)
    # 0.05 / (2 * 5) = 0.005
    assert normal_quantile(confidence=0.95, n_intervals=5) == pytest.approx(2.575829, abs=1e-6)
    assert normal_quantile(confidence=0.95, n_intervals=0) == 0.0


def test_exact_values_have_no_width_and_hold_for_sure():
    bounds = value_bounds(payoffs([[0.4, 0.2]], [[0, 0]]), confidence=0.9)
    assert bounds.lower.tolist() == bounds.upper.tolist() == [[0.4, 0.2]]
    assert bounds.confidence == 1.0


def test_sampled_values_share_the_failure_probability():
    bounds = value_bounds(
        payoffs([[0.4, 0.2], [0.1, 0.5]], [[0.01, 0], [0.02, 0.03]]), confidence=0.9
    )
    assert bounds.n_intervals == 3
    z = normal_quantile(confidence=0.9, n_intervals=3)
    np.testing.assert_allclose(
        bounds.upper - bounds.lower, 2 * z * np.array([[0.01, 0], [0.02, 0.03]])
    )
    assert bounds.confidence == 0.9


def test_a_missing_reward_is_its_whole_range_minus_the_price_of_kl():
    known = payoffs([[np.nan, 0.2]], [[0, 0]], reward_range=(0.0, 1.0))
    bounds = value_bounds(known, confidence=0.9)
    assert bounds.lower[0].tolist() == [-0.5, 0.2]  # 0 - 0.5 * 1 nat
    assert bounds.upper[0].tolist() == [0.5, 0.2]


def test_a_missing_reward_is_wider_by_what_all_policies_have_in_common():
    """The others are bounded up to a common shift, which a reward in its range does not have."""
    known = payoffs(
        [[np.nan, 0.2]], [[0, 0]], reward_range=(0.0, 1.0), level_errors=np.array([0.1, 0.0])
    )
    bounds = value_bounds(known, confidence=0.95)
    assert bounds.n_intervals == 1
    half = 1.959964 * 0.1
    assert bounds.lower[0, 0] == pytest.approx(-0.5 - half, abs=1e-6)
    assert bounds.upper[0, 0] == pytest.approx(0.5 + half, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 2.0, -0.5, float("nan")])
def test_a_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        value_bounds(payoffs([[0.4, 0.2]], [[0, 0]]), confidence=confidence)
