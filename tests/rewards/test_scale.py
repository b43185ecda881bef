import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.rewards.scale import fit_scale, require_rewards

finite = st.floats(-1e6, 1e6)


def test_logistic_puts_the_mean_at_one_half_and_uses_the_standard_deviation() -> None:
    scale = fit_scale(np.array([1.0, 3.0]))  # mean 2, sd 1
    logit = np.pi / np.sqrt(3)  # one standard deviation of a logistic distribution
    expected = [0.5, 1 / (1 + np.exp(-logit))]
    np.testing.assert_allclose(scale.apply(np.array([2.0, 3.0])), expected)


def test_a_logistic_sample_becomes_uniform() -> None:
    raw = np.random.default_rng(0).logistic(5.0, 2.0, size=200_000)
    rewards = fit_scale(raw).apply(raw)
    np.testing.assert_allclose(np.quantile(rewards, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)


def test_clip_is_straight_between_its_quantiles_and_flat_beyond() -> None:
    scale = fit_scale(np.arange(101.0), kind="clip")  # quantiles 5 and 95
    found = scale.apply(np.array([-50.0, 5.0, 50.0, 95.0, 200.0]))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("kind", ["logistic", "clip"])
@given(st.lists(finite, min_size=2, max_size=20), st.lists(finite, min_size=2, max_size=20))
def test_scales_are_monotone_and_stay_in_the_unit_interval(
    kind: str, base: list[float], raw: list[float]
) -> None:
    try:
        scale = fit_scale(np.array(base), kind=kind)  # type: ignore[arg-type]
    except InvalidInputError as error:
        assert "no spread" in str(error)  # noqa: PT017
        return
    rewards = scale.apply(np.sort(raw))
    assert ((rewards >= 0) & (rewards <= 1)).all()
    assert (np.diff(rewards) >= 0).all()


def test_equal_rollouts_carry_no_scale() -> None:
    for kind in ("logistic", "clip"):
        with pytest.raises(InvalidInputError, match="no spread"):
            fit_scale(np.full(9, 0.3), kind=kind)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rollouts_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInputError, match="text 1 of the base rollouts"):
        fit_scale(np.array([0.0, bad, 1.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-5, 1.00001])
def test_rewards_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInputError, match="'kind' of text 1"):
        require_rewards(np.array([0.5, bad]), objective="kind")


def test_rounding_beyond_the_unit_interval_is_cut_off() -> None:
    found = require_rewards(np.array([-1e-7, 0.25, 1 + 1e-7]), objective="kind")
    assert found.tolist() == [0.0, 0.25, 1.0]
