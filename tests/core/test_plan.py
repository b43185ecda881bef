"""Plans: the normal form keeps the distribution, and what breaks a rule is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.files import dump_json
from palate.core.plan import (
    Plan,
    Pool,
    Row,
    coefficients_from_mapping,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
)
from research.mixture.plans import mixture_plan

LOGITS = {0.0: [0.3, -1.0, 2.0], 1.0: [1.0, 0.5, -0.5], 2.0: [-2.0, 0.1, 0.4]}


def distribution(plan: Plan) -> np.ndarray:
    """The pooled distribution by definition, when a row's first coefficient names its logits."""
    rows = np.array([LOGITS[row.coefficients[0]] for row in plan.rows])
    probs = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    if plan.pool.kind == "single":
        return probs[0]
    shares = np.array(plan.pool.coefficients)
    if plan.pool.kind == "linear":
        return shares @ probs
    joined = np.exp(shares @ np.log(probs))
    return joined / joined.sum()


@given(
    st.sampled_from(["linear", "log_linear"]),
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 4)), min_size=1, max_size=6
    ),
)
def test_the_normal_form_gives_the_same_distribution(
    kind: str, parts: list[tuple[float, int]]
) -> None:
    total = sum(count for _, count in parts)
    if total == 0:
        return
    rows = tuple(Row((name,)) for name, _ in parts)
    plan = Plan(rows, Pool(kind, tuple(count / total for _, count in parts)))
    normal = plan.normal_form()
    assert np.allclose(distribution(plan), distribution(normal))
    assert len(set(normal.rows)) == len(normal.rows)
    assert 0.0 not in normal.pool.coefficients


def test_an_output_soup_of_sum_one_needs_no_reference_row() -> None:
    assert len(output_soup_plan((0.5, 0.5)).rows) == 2
    assert len(output_soup_plan((0.5, 0.3)).rows) == 3
    assert output_soup_plan((0.0, 1.0)) == member_plan(index=1, n_experts=2)
    rounded = output_soup_plan((0.7 - 0.2, 0.1 + 0.2, 0.2 + 1e-15))
    assert len(rounded.rows) == 3  # a reference of rounding errors is not run
    assert output_soup_plan((0.0, 0.0)).rows == (Row((0.0, 0.0)),)


def test_a_mixture_has_one_row_per_active_expert_and_uniform_shares() -> None:
    plan = mixture_plan(experts=(0, 2), n_experts=3)
    assert [row.coefficients for row in plan.rows] == [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    assert plan.pool.coefficients == (0.5, 0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Row((math.nan,)), "not finite"),
        (lambda: Pool("linear", (0.5, 0.6)), "not 1"),
        (lambda: Pool("linear", (1.5, -0.5)), "negative"),
        (lambda: Pool("log_linear", (0.5, 0.6)), "not 1"),
        (lambda: Pool("single", (1.0,)), "takes no coefficients"),
        (lambda: Pool("single", (), "pcm"), "controller"),
        (lambda: Plan((), Pool("single")), "no rows"),
        (lambda: Plan((Row((1.0,)), Row((1.0, 2.0))), Pool("linear", (0.5, 0.5))), "rows have"),
        (lambda: Plan((Row((1.0,)),) * 2, Pool("single")), "takes one row"),
        (lambda: Plan((Row((1.0,)),) * 2, Pool("linear", (1.0,))), "one per row"),
        (lambda: member_plan(index=3, n_experts=3), "does not exist"),
        (lambda: coefficients_from_mapping({"x": 1.0}, experts=["a"]), "unknown expert 'x'"),
        (lambda: parameter_soup_plan((math.inf,)), "not finite"),
    ],
)
def test_what_breaks_a_rule_is_refused_in_a_sentence(make, words: str) -> None:
    with pytest.raises(InvalidCoefficientsError, match=words):
        make()


def test_a_plan_is_plain_data() -> None:
    data = json.loads(dump_json(mixture_plan(experts=(0, 1), n_experts=2).to_json()))
    assert data["pool"] == {
        "kind": "linear",
        "coefficients": [0.5, 0.5],
        "controller": None,
        "context": None,
        "strengths": [],
        "is_implicit": False,
    }


def test_a_controlled_plan_carries_what_its_controller_reads() -> None:
    pool = Pool("linear", controller="pcm", context=(5, 6), strengths=(0.25, 0.75))
    plan = Plan((Row((1.0, 0.0)), Row((0.0, 1.0))), pool)
    assert plan.normal_form() is plan
    data = json.loads(dump_json(plan.to_json()))["pool"]
    assert data["context"] == [5, 6]
    assert data["strengths"] == [0.25, 0.75]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pool("linear", (0.5, 0.5), strengths=(0.5, 0.5)), "belong to a controller"),
        (lambda: Pool("linear", (0.5, 0.5), context=(1,)), "belong to a controller"),
        (lambda: Pool("linear", controller="pcm", context=()), "context is empty"),
        (lambda: Pool("linear", controller="pcm", strengths=(0.5, 0.4)), "sums to 0.9"),
        (
            lambda: Plan((Row((1.0,)),), Pool("linear", controller="c", strengths=(0.5, 0.5))),
            "1 rows",
        ),
    ],
)
def test_what_a_controller_cannot_read_is_refused(make, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        make()
