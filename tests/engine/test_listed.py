"""Bounds against the exact cases, brute force over random points, and their edges."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.core.plan import Pool
from palate.engine.listed import Bounded, pool_lists, skip_small

SHARES = [0.5236093097004634, 0.1742943983543966, 0.30209629194513987]


def total_variation(left: Mapping[int, float], right: Mapping[int, float]) -> float:
    tokens = left.keys() | right.keys()
    return 0.5 * math.fsum(abs(left.get(t, 0.0) - right.get(t, 0.0)) for t in tokens)


def as_list(row: list[float], tokens: list[int]) -> dict[int, float]:
    return {token: math.log(row[token]) for token in tokens}


def pool(lists: list[dict[int, float]], kind: Any, coefficients: list[float]) -> Bounded:
    return pool_lists(lists, Pool(kind, tuple(coefficients)), n_vocab=6)


def missing(one: dict[int, float]) -> float:
    return pool([one], "linear", [1.0]).bound


def dense(probs: Mapping[int, float]) -> list[float]:
    return [probs.get(token, 0.0) for token in range(6)]


def longest(row: list[float], k: int) -> list[int]:
    return sorted(range(6), key=lambda token: -row[token])[:k]


def test_lists_of_every_length_meet_the_exact_cases(mope_cases: dict[str, Any]) -> None:
    rows = mope_cases["expert_probs"]
    exact = mope_cases["cases"][0]["mixture"]
    for case in mope_cases["topk"]:
        lists = [as_list(row, ids) for row, ids in zip(rows, case["token_ids"], strict=True)]
        assert np.allclose([missing(one) for one in lists], case["missing_mass"], atol=1e-10)
        found = pool(lists, "linear", SHARES)
        distance = total_variation(found.probs, dict(enumerate(exact)))
        assert np.allclose(dense(found.probs), case["mixture"], atol=1e-10)
        assert distance == pytest.approx(case["tv"], abs=1e-10)
        assert found.bound == pytest.approx(case["tv_bound"], abs=1e-10)


def test_log_linear_lists_meet_the_exact_cases(mope_cases: dict[str, Any]) -> None:
    rows = mope_cases["expert_probs"]
    for case in mope_cases["log_pool_topk"]:
        lists = [as_list(row, longest(row, case["k"])) for row in rows]
        found = pool(lists, "log_linear", case["coefficients"])
        assert sorted(found.probs) == case["intersection"]
        assert np.allclose(dense(found.probs), case["mixture"], atol=1e-10)
        assert found.bound == pytest.approx(case["tv_bound"], abs=1e-10)
        distance = total_variation(found.probs, dict(enumerate(case["exact"])))
        assert distance == pytest.approx(case["tv"], abs=1e-10)


def test_skipping_meets_the_exact_cases(mope_cases: dict[str, Any]) -> None:
    rows, exact = np.array(mope_cases["expert_probs"]), mope_cases["cases"][0]["mixture"]
    for case in mope_cases["skipping"]:
        kept, bound = skip_small(np.array(case["alpha"]), threshold=case["threshold"])
        assert np.allclose(kept, case["alpha_renormalised"], atol=1e-10)
        assert np.allclose(kept @ rows, case["mixture"], atol=1e-10)
        assert 0.5 * np.abs(kept @ rows - exact).sum() == pytest.approx(case["tv"], abs=1e-10)
        assert bound == pytest.approx(case["tv_bound"], abs=1e-10)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_list_is_further_from_the_exact_mixture_than_its_bound(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.full(6, 0.5), size=3).tolist()
    shares = generator.dirichlet(np.full(3, 0.5))
    lists = [as_list(row, longest(row, k)) for row in rows]
    found = pool(lists, "linear", shares.tolist())
    exact = dict(enumerate((shares @ np.array(rows)).tolist()))
    assert total_variation(found.probs, exact) <= found.bound + 1e-12


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 6))
def test_no_log_linear_list_is_further_than_its_bound(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.full(6, 2.0), size=2)
    coefficients = generator.dirichlet(np.ones(2))
    lists = [as_list(row, longest(row, k)) for row in rows.tolist()]
    found = pool(lists, "log_linear", coefficients.tolist())
    scores = np.exp(coefficients @ np.log(rows))
    exact = dict(enumerate((scores / scores.sum()).tolist()))
    assert total_variation(found.probs, exact) <= found.bound + 1e-9


def test_skipping_keeps_the_largest_share_whatever_the_threshold() -> None:
    kept, bound = skip_small(np.array([0.3, 0.4, 0.3]), threshold=0.9)
    assert kept.tolist() == [0.0, 1.0, 0.0]
    assert bound == pytest.approx(0.6)


def test_missing_mass_is_the_rest_to_one(mope_cases: dict[str, Any]) -> None:
    case = mope_cases["unlisted_token"]
    probs = zip(case["listed"]["ids"], case["listed"]["probs"], strict=True)
    assert missing({token: math.log(p) for token, p in probs}) == pytest.approx(
        case["missing_mass"]
    )
    assert missing({0: math.log(0.5), 1: math.log(0.5)}) == 0.0


def test_whole_lists_are_exact_with_coefficients_of_both_signs() -> None:
    rows = np.random.default_rng(0).dirichlet(np.full(6, 2.0), size=2)
    lists = [as_list(row, list(range(6))) for row in rows.tolist()]
    found = pool(lists, "log_linear", [1.5, -0.5])
    scores = rows[0] ** 1.5 / rows[1] ** 0.5
    assert np.allclose(dense(found.probs), scores / scores.sum(), atol=1e-12)
    assert found.bound == 0.0


def test_lists_that_are_no_distributions_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than one"):
        missing({0: math.log(0.7), 1: math.log(0.4)})
    with pytest.raises(InvalidInputError, match="not a number"):
        missing({0: math.nan})
    with pytest.raises(InvalidInputError, match="no bound"):
        pool([{0: 0.0}, {0: 0.0}], "log_linear", [2.0, -1.0])
    with pytest.raises(InvalidInputError, match="longer lists"):
        pool([{0: math.log(0.9)}, {1: math.log(0.9)}], "log_linear", [0.5, 0.5])
