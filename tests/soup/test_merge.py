import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.soup.merge import (
    Factors,
    compress,
    merge,
    merge_modules,
)
from research.soup.rivals import factor_mean


@pytest.fixture
def adapters(soup_cases):
    return [
        Factors(np.array(each["A"]), np.array(each["B"]), each["lora_alpha"])
        for each in soup_cases["lora"]["adapters"]
    ]


def _random(draws, rank, *, n_out=7, n_in=6, is_rank_stabilised=False):
    return Factors(
        draws.normal(size=(rank, n_in)),
        draws.normal(size=(n_out, rank)),
        float(draws.uniform(1, 8)),
        is_rank_stabilised,
    )


def test_merged_factors_of_the_case_file(soup_cases, adapters):
    for case in soup_cases["lora"]["cases"]:
        merged = merge(adapters, case["coefficients"])
        assert merged.scale == 1.0
        assert merged.delta() == pytest.approx(np.array(case["delta"]), abs=1e-10)
        kept = np.repeat(np.array(case["coefficients"]) != 0, [2, 2, 3])
        if not kept.any():
            assert merged.rank == 1
            continue
        assert np.array(case["stacked_A"])[kept] == pytest.approx(merged.A, abs=1e-12)
        assert np.array(case["stacked_B"])[:, kept] == pytest.approx(merged.B, abs=1e-12)
        assert np.array(soup_cases["lora"]["base_matrix"]) + merged.delta() == pytest.approx(
            np.array(case["merged_matrix"]), abs=1e-10
        )


def test_the_factor_mean_of_the_case_file_is_not_the_soup(soup_cases, adapters):
    for case in soup_cases["lora"]["factor_mean_baseline"]["cases"]:
        mean = factor_mean(adapters[:2], case["coefficients"]).delta()
        assert mean == pytest.approx(np.array(case["delta"]), abs=1e-10)
    soup = merge(adapters[:2], [0.5, 0.5]).delta()
    assert np.linalg.norm(factor_mean(adapters[:2], [0.5, 0.5]).delta() - soup) > 0.5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_merging_is_exact_for_any_signs_ranks_and_scales(seed):
    draws = np.random.default_rng(seed)
    adapters = [
        _random(draws, int(draws.integers(1, 5)), is_rank_stabilised=bool(draws.integers(2)))
        for _ in range(4)
    ]
    lam = draws.normal(size=4) * draws.integers(0, 2, size=4)
    dense = np.zeros((7, 6))
    for coefficient, each in zip(lam, adapters, strict=True):
        root = np.sqrt(each.rank) if each.is_rank_stabilised else each.rank
        dense += coefficient * each.lora_alpha / root * each.B @ each.A
    merged = merge(adapters, lam)
    assert merged.delta() == pytest.approx(dense, abs=1e-10)
    assert merged.rank == max(1, sum(a.rank for a, c in zip(adapters, lam, strict=True) if c))
    assert merge(adapters[::-1], lam[::-1]).delta() == pytest.approx(dense, abs=1e-10)


def test_coefficient_one_on_one_expert_is_that_expert(generator):
    adapters = [_random(generator, 2), _random(generator, 3, is_rank_stabilised=True)]
    assert merge(adapters, [0, 1]).delta() == pytest.approx(adapters[1].delta(), abs=1e-12)
    assert adapters[1].scale == pytest.approx(adapters[1].lora_alpha / np.sqrt(3))


def test_a_map_that_only_some_adapters_change_is_merged_from_those(generator):
    q1, q2, up = _random(generator, 2), _random(generator, 1), _random(generator, 2, n_out=9)
    merged = merge_modules([{"q": q1, "up": up}, {"q": q2}], [0.5, -2.0])
    assert merged["q"].delta() == pytest.approx(0.5 * q1.delta() - 2 * q2.delta(), abs=1e-12)
    assert merged["up"].delta() == pytest.approx(0.5 * up.delta(), abs=1e-12)
    assert sorted(merged) == ["q", "up"]


def test_compression_is_the_best_of_its_rank_and_says_what_it_lost(generator):
    merged = merge([_random(generator, 3), _random(generator, 4)], [0.7, -0.4])
    dense = merged.delta()
    values = np.linalg.svd(dense, compute_uv=False)
    for rank in (1, 3, 5):
        small = compress(merged, rank=rank)
        lost = np.linalg.norm(dense - small.factors.delta()) / np.linalg.norm(dense)
        assert small.factors.rank == rank
        assert small.factors.scale == 1.0
        assert small.relative_error == pytest.approx(lost, abs=1e-10)
        best = np.sqrt(np.sum(values[rank:] ** 2) / np.sum(values**2))
        assert small.relative_error == pytest.approx(best, abs=1e-10)
        assert small.singular_values[:6] == pytest.approx(values[:6], abs=1e-10)


def test_compression_to_the_full_rank_or_more_loses_nothing(generator):
    merged = merge([_random(generator, 2), _random(generator, 2)], [1.0, 1.0])
    for rank in (4, 40):
        small = compress(merged, rank=rank)
        assert small.relative_error < 1e-12
        assert small.factors.delta() == pytest.approx(merged.delta(), abs=1e-10)
    # equal adapters sum to one of their own rank
    twin = _random(generator, 2)
    assert compress(merge([twin, twin], [0.5, 0.5]), rank=2).relative_error < 1e-12
    nothing = compress(merge([twin], [0.0]), rank=1)
    assert nothing.relative_error == 0.0
    assert np.abs(nothing.factors.delta()).max() == 0.0


def factor_mean_error(coefficients) -> float:
    """Expected relative error of the factor mean for independent random adapters of one scale."""
    squares = np.square(coefficients)
    crossed = squares.sum() ** 2 - np.sum(squares**2)
    return float(np.sqrt((crossed + np.sum((squares - coefficients) ** 2)) / squares.sum()))


def test_the_predicted_error_of_the_factor_mean():
    assert factor_mean_error([1 / 3] * 3) == pytest.approx(0.82, abs=0.005)
    assert factor_mean_error([1, 1, -1]) == pytest.approx(1.8, abs=0.05)
    assert factor_mean_error([1.0]) == 0.0
    draws = np.random.default_rng(3)
    lam = np.array([0.9, -0.6, 0.4])
    adapters = [Factors(draws.normal(size=(8, 300)), draws.normal(size=(300, 8)), 8.0) for _ in lam]
    soup = merge(adapters, lam).delta()
    off = np.linalg.norm(factor_mean(adapters, lam).delta() - soup) / np.linalg.norm(soup)
    assert off == pytest.approx(factor_mean_error(lam), rel=0.05)


def test_adapters_that_do_not_fit_are_refused(generator):
    small, large = _random(generator, 2), _random(generator, 2, n_out=9)
    with pytest.raises(FormatError, match="sizes"):
        merge([small, large], [1, 1])
    with pytest.raises(InvalidCoefficientsError, match="2 experts"):
        merge([small, small], [1, 1, 1])
    with pytest.raises(InvalidCoefficientsError, match="at least one"):
        merge([], [])
    with pytest.raises(FormatError, match="one rank and scale"):
        factor_mean([small, _random(generator, 3)], [1, 1])
    with pytest.raises(FormatError, match="do not multiply"):
        Factors(np.zeros((2, 3)), np.zeros((4, 3)), 1.0)
    with pytest.raises(FormatError, match="at least one"):
        Factors(np.zeros((0, 3)), np.zeros((4, 0)), 1.0)
    with pytest.raises(InvalidInputError, match="rank 0"):
        compress(small, rank=0)
