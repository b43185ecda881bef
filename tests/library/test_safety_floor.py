"""The safety floor: kept by every method."""

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.plan import (
    Plan,
    Row,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.library.safety_floor import MAX_SHARE, Floor, with_floor
from research.mixture.plans import mixture_plan

FLOOR = Floor("safe", 1, 0.4)


def share_of(plan: Plan, expert: int) -> float:
    """The pool coefficient of the row that is this expert alone."""
    wanted = Row(tuple(float(k == expert) for k in range(plan.n_experts)))
    return dict(zip(plan.rows, plan.pool.coefficients, strict=True)).get(wanted, 0.0)


def test_one_pass_has_at_least_the_floor() -> None:
    assert with_floor(reference_plan(n_experts=3), FLOOR).rows[0].coefficients == (0, 0.4, 0)
    assert with_floor(member_plan(index=0, n_experts=3), FLOOR).rows[0].coefficients == (1, 0.4, 0)
    soup = parameter_soup_plan((0.5, -2.0, 0.1))
    assert with_floor(soup, FLOOR).rows[0].coefficients == (0.5, 0.4, 0.1)
    high = parameter_soup_plan((0.5, 0.9, 0.1))
    assert with_floor(high, FLOOR) == high


def test_an_output_soup_has_at_least_the_floor_and_the_reference_gives_way() -> None:
    found = with_floor(output_soup_plan((0.5, 0.1, 0.0)), FLOOR)
    expected = output_soup_plan((0.5, 0.4, 0.0))
    assert found.normal_form() == expected.normal_form() or (
        {r: round(c, 12) for r, c in zip(found.rows, found.pool.coefficients, strict=True)}
        == {r: round(c, 12) for r, c in zip(expected.rows, expected.pool.coefficients, strict=True)}
    )
    assert sum(found.pool.coefficients) == pytest.approx(1.0)


def test_a_mixture_keeps_the_share_and_shrinks_the_others_alike() -> None:
    found = with_floor(mixture_plan(experts=(0, 2), n_experts=3, shares=(0.75, 0.25)), FLOOR)
    assert [share_of(found, k) for k in range(3)] == pytest.approx([0.45, 0.4, 0.15])
    partly = mixture_plan(experts=(0, 1), n_experts=3, shares=(0.8, 0.2))
    assert [share_of(with_floor(partly, FLOOR), k) for k in range(2)] == pytest.approx([0.6, 0.4])
    all_of_it = with_floor(mixture_plan(experts=(0, 2), n_experts=3), Floor("safe", 1, 5.0))
    assert share_of(all_of_it, 1) == pytest.approx(MAX_SHARE)


def test_any_plan_keeps_the_floor_by_brute_force() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        values = generator.normal(size=3)
        shares = generator.dirichlet(np.ones(3)).tolist()
        for plan in (
            parameter_soup_plan(values),
            output_soup_plan(values),
            mixture_plan(experts=(0, 1, 2), n_experts=3, shares=shares),
        ):
            found = with_floor(plan, FLOOR)
            if found.pool.kind == "single":
                assert found.rows[0].coefficients[1] >= 0.4
            else:
                assert share_of(found, 1) >= 0.4 - 1e-12
                assert sum(found.pool.coefficients) == pytest.approx(1.0)


def test_no_floor_changes_nothing_and_a_strange_one_is_refused() -> None:
    plan = parameter_soup_plan((0.5, -2.0, 0.1))
    assert with_floor(plan, None) is plan
    with pytest.raises(InvalidInputError, match="above 0"):
        Floor("safe", 1, 0.0)


def test_a_controlled_mixture_needs_the_row_whose_share_its_decoding_keeps() -> None:
    plan = mixture_plan(experts=(0, 1), n_experts=3, controller="x")
    assert with_floor(plan, FLOOR) is plan
    with pytest.raises(InvalidInputError, match="controlled mixture has no row of 'safe'"):
        with_floor(mixture_plan(experts=(0, 2), n_experts=3, controller="x"), FLOOR)
