from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.portfolio import grid


def ratio_rounded(preference: np.ndarray, *, epsilon: float, delta: float) -> np.ndarray:
    """The grid preference that serves this one: each ratio rounded down to an allowed one."""
    levels = grid.ratio_levels(n_objectives=len(preference), epsilon=epsilon, delta=delta)
    ratios = preference / preference.max()
    index = np.searchsorted(levels, ratios * (1.0 + grid.LEVEL_SLACK), side="right") - 1
    return levels[index] / levels[index].sum()


def test_the_ratio_grid_is_that_of_every_case(grid_case):
    for case in grid_case["ratio_grid"]:
        asked = {"n_objectives": case["d"], "epsilon": case["eps"], "delta": case["delta"]}
        assert grid.ratio_grid_size(**asked) == case["size"]
        levels = grid.ratio_levels(**asked)
        assert len(levels) == case["K"]
        if "values" in case:
            np.testing.assert_allclose(levels, case["values"], rtol=0, atol=1e-12)
        if "preferences" in case:
            np.testing.assert_allclose(
                grid.ratio_grid(**asked), case["preferences"], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize(
    ("tolerance", "sizes"),
    [
        ((0.02, 0.02), (399, 164_971)),
        ((0.05, 0.05), (127, 18_019)),
        ((0.1, 0.1), (53, 3_367)),
        ((0.25, 0.1), (25, 721)),
        ((0.5, 0.1), (15, 271)),
    ],
)
def test_grid_sizes_are_those_of_the_published_table(tolerance, sizes):
    epsilon, delta = tolerance
    found = tuple(
        grid.ratio_grid_size(n_objectives=d, epsilon=epsilon, delta=delta) for d in (2, 3)
    )
    assert found == sizes


def test_exact_powers_do_not_gain_a_level():
    # 0.25 * 2^2 = 1 exactly: levels 1, 1/2, 1/4 and zero
    levels = grid.ratio_levels(n_objectives=2, epsilon=1.0, delta=0.25)
    assert levels.tolist() == [0.0, 0.25, 0.5, 1.0]


def test_rounding_goes_down_to_the_grid(grid_case):
    for case in grid_case["rounding"]:
        found = ratio_rounded(np.array(case["w"]), epsilon=case["eps"], delta=case["delta"])
        np.testing.assert_allclose(found, case["grid_preference"], rtol=0, atol=1e-12)


def test_lattices_have_the_stated_size_and_radius(grid_case):
    for case in grid_case["lattice"]:
        n = grid.lattice_denominator(n_objectives=case["d"], beta=case["beta"], gap=case["eta"])
        assert n == case["n"]
        assert grid.lattice_size(n_objectives=case["d"], denominator=n) == case["size"]
        radius = grid.covering_radius(n_objectives=case["d"], denominator=n)
        assert radius == pytest.approx(case["covering_radius_l1"], abs=1e-12)
        assert radius**2 / (8 * case["beta"]) == pytest.approx(case["guaranteed_gap"], abs=1e-12)


def test_lower_bounds_on_the_size_are_those_of_the_case(grid_case):
    for case in grid_case["lower_bound"]:
        found = grid.size_needed(n_objectives=case["d"], epsilon=case["eps"])
        assert found == case["min_size"]
    assert grid.size_needed(n_objectives=4, epsilon=0.1) is None
    assert grid.size_needed(n_objectives=2, epsilon=0.0) == 1


@settings(deadline=None)
@given(st.integers(2, 4), st.floats(0.4, 1.5), st.floats(0.1, 0.9))
def test_every_grid_preference_is_on_the_simplex_and_none_occurs_twice(d, epsilon, delta):
    found = grid.ratio_grid(n_objectives=d, epsilon=epsilon, delta=delta)
    assert len(found) == grid.ratio_grid_size(n_objectives=d, epsilon=epsilon, delta=delta)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    ratios = found / found.max(axis=1, keepdims=True)
    assert len(np.unique(np.round(ratios, 9), axis=0)) == len(found)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_rounding_keeps_each_ratio_within_its_factor(seed, d):
    preference = np.random.default_rng(seed).dirichlet(np.ones(d))
    rounded = ratio_rounded(preference, epsilon=0.4, delta=0.2)
    before, after = preference / preference.max(), rounded / rounded.max()
    assert np.all(after <= before + 1e-12)
    assert np.all((after * 1.4 >= before - 1e-9) | (before <= 0.2 / (d - 1) + 1e-12))


def test_the_size_bound_is_the_smaller_of_both_guarantees():
    lattice_only = grid.lattice_size(
        n_objectives=3,
        denominator=grid.lattice_denominator(n_objectives=3, beta=0.1, gap=0.05),
    )
    assert grid.size_bound(n_objectives=3, beta=0.1, gap=0.05) == lattice_only
    tolerance = 0.05 / 1.95
    by_ratio = grid.ratio_grid_size(n_objectives=3, epsilon=tolerance, delta=tolerance)
    assert grid.size_bound(n_objectives=3, beta=0.0, gap=0.05) == by_ratio > lattice_only
    assert grid.size_bound(n_objectives=3, beta=0.1, gap=0.0) is None
    assert grid.size_bound(n_objectives=1, beta=0.1, gap=0.3) == 1


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 0.1), (0.1, 0.0), (0.1, 2.0), (-1.0, 0.1), (np.nan, 0.1)]
)
def test_tolerances_out_of_range_are_refused(epsilon, delta):
    with pytest.raises(InvalidInputError, match="infeasible"):
        grid.ratio_grid(n_objectives=3, epsilon=epsilon, delta=delta)


def test_the_affordable_tolerance_is_affordable_and_one_step_less_is_not():
    tolerance, delta = grid.affordable_tolerances(n_objectives=3, max_calls=300)
    assert delta == tolerance
    size = grid.ratio_grid_size(n_objectives=3, epsilon=tolerance, delta=tolerance)
    assert size <= 300
    finer = tolerance * 0.9
    assert grid.ratio_grid_size(n_objectives=3, epsilon=finer, delta=finer) > 300
    with pytest.raises(InvalidInputError, match="allow more"):
        grid.affordable_tolerances(n_objectives=3, max_calls=2)


def test_one_objective_needs_one_policy():
    assert grid.ratio_grid(n_objectives=1, epsilon=0.1, delta=0.1).tolist() == [[1.0]]
    assert grid.ratio_grid_size(n_objectives=1, epsilon=0.1, delta=0.1) == 1


def test_the_order_is_that_of_descending_ratios():
    found = grid.ratio_grid(n_objectives=2, epsilon=1.0, delta=0.25)
    ratios = [1.0, 0.5, 0.25, 0.0]
    expected = [np.array(u) / sum(u) for u in product(ratios, repeat=2) if max(u) == 1.0]
    np.testing.assert_allclose(found, expected, atol=1e-15)
