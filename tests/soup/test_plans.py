import numpy as np
import pytest

from palate.core.errors import InvalidCoefficientsError, InvalidInputError, InvalidPreferenceError
from palate.core.plan import Plan
from palate.soup.plans import (
    mod_plan,
    rewarded_soup_plan,
    soup_plan,
)
from palate.soup.states import log_softmax
from research.soup.explicit import pool_log_linear


def _execute(plan: Plan, reference, experts):
    """What the plan's pool makes of rows whose outputs are linear in the coefficients."""
    change = experts - reference
    rows = [log_softmax(reference + np.array(r.coefficients) @ change) for r in plan.rows]
    if plan.pool.kind == "single":
        return rows[0]
    return log_softmax(np.array(plan.pool.coefficients) @ np.stack(rows))


def test_an_output_soup_has_the_reference_and_the_active_experts():
    plan = soup_plan([0.5, 0.0, -0.25], method="output-soup")
    assert [row.coefficients for row in plan.rows] == [(0, 0, 0), (1, 0, 0), (0, 0, 1)]
    assert plan.pool.coefficients == (0.75, 0.5, -0.25)


def test_a_parameter_soup_is_one_row():
    plan = soup_plan([0.5, 0.0, -0.25], method="soup")
    assert [row.coefficients for row in plan.rows] == [(0.5, 0.0, -0.25)]
    assert plan.pool.kind == "single"
    with pytest.raises(InvalidInputError, match="no soup"):
        soup_plan([1.0], method="stew")


def test_every_plan_is_the_distribution_it_stands_for(generator):
    reference, experts = generator.normal(size=6), generator.normal(size=(3, 6))
    for lam in ([0.4, -0.7, 1.2], [0, 0, 0], [0, 1, 0]):
        expected = pool_log_linear(reference, experts, lam).log_probs
        plan = soup_plan(lam, method="output-soup")
        assert _execute(plan, reference, experts) == pytest.approx(expected, abs=1e-10)
        # logits that are linear in the coefficients: parameter soup and output soup agree
        assert _execute(soup_plan(lam, method="soup"), reference, experts) == pytest.approx(
            expected, abs=1e-10
        )


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [0.1, 0.2, 0.7], [0.7, 0.1, 0.1, 0.1], [0.6, 0.4]])
def test_mod_never_runs_the_reference(shares):
    plan = mod_plan(shares)
    assert len(plan.rows) == len(shares)
    assert all(any(row.coefficients) for row in plan.rows)


def test_a_rewarded_soup_is_a_parameter_soup_on_the_simplex():
    assert rewarded_soup_plan([0.25, 0.75]) == soup_plan([0.25, 0.75], method="soup")
    for make in (rewarded_soup_plan, mod_plan):
        with pytest.raises(InvalidPreferenceError):
            make([0.5, 0.7])


def test_coefficients_that_are_not_finite_are_refused():
    with pytest.raises(InvalidCoefficientsError):
        soup_plan([np.nan], method="soup")
