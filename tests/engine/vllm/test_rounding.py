"""Rounding of coefficients: the grid, and bounds worked out by hand and by dense matrices."""

import math

import numpy as np
import pytest
import torch

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.engine.vllm.rounding import Rounding, gram_of
from palate.models.adapter import Factor


def random_adapter(seed: int, layers: tuple[str, ...]) -> dict[str, Factor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        layer: Factor(
            torch.randn(2 + seed, 5, generator=generator),
            torch.randn(4, 2 + seed, generator=generator),
            0.5 + seed,
        )
        for layer in layers
    }


def dense(adapter: dict[str, Factor], layer: str) -> np.ndarray:
    factor = adapter.get(layer)
    return np.zeros((4, 5)) if factor is None else (factor.scale * factor.up @ factor.down).numpy()


def test_the_norm_of_what_rounding_changes_is_that_of_the_dense_difference() -> None:
    adapters = [random_adapter(0, ("a", "b")), random_adapter(1, ("b",)), random_adapter(2, ("a",))]
    rounding = Rounding(0.1, gram_of(adapters))
    exact = (0.53, -0.27, 0.08)
    found = rounding.rounded(exact)
    assert found.coefficients == (0.5, -0.3, 0.1)
    moved = np.array(exact) - found.coefficients
    change = [sum(d * dense(a, x) for d, a in zip(moved, adapters, strict=True)) for x in "ab"]
    expected = math.sqrt(sum(float((part**2).sum()) for part in change))
    assert found.parameter_change == pytest.approx(expected, rel=1e-5)


def test_the_bound_is_the_distance_of_every_coefficient_times_its_rate() -> None:
    found = Rounding(0.5, np.eye(2), rates=(0.2, 0.6)).rounded((0.6, -0.3))
    assert found.coefficients == (0.5, -0.5)
    assert found.bound == pytest.approx(0.1 * 0.2 + 0.2 * 0.6)


def test_the_bound_holds_for_a_coin_whose_log_odds_are_the_coefficient() -> None:
    """Total variation is |s(c) - s(c')|; the slope s(1 - s) of the sigmoid is at most a quarter."""
    rounding = Rounding(0.8, np.eye(1), rates=(0.25,))
    tightest = 1.0
    for c in np.linspace(-4, 4, 401):
        found = rounding.rounded([c])
        gap = abs(1 / (1 + math.exp(-c)) - 1 / (1 + math.exp(-found.coefficients[0])))
        assert found.bound is not None
        assert gap <= found.bound + 1e-12
        if found.bound > 0:
            tightest = min(tightest, found.bound / max(gap, 1e-12))
    assert tightest < 1.1  # near zero the bound is almost attained


def test_coefficients_on_the_grid_and_a_step_of_zero_are_exact() -> None:
    for rounding, value in ((Rounding(0.05, np.eye(1)), 0.15), (Rounding(0.0, np.eye(1)), 0.123)):
        found = rounding.rounded([value])
        assert found.coefficients == (value,)
        assert (found.parameter_change, found.bound) == (0.0, 0.0)


def test_without_rates_the_bound_is_unknown_not_zero() -> None:
    rounding = Rounding(0.1, np.eye(1))
    assert rounding.rounded([0.52]).bound is None


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(InvalidCoefficientsError, match="2 coefficients for 1 experts"):
        Rounding(0.1, np.eye(1)).rounded([0.5, 0.5])
    with pytest.raises(InvalidInputError, match="1 rates for 2 experts"):
        Rounding(0.1, np.eye(2), rates=(1.0,))
