"""Pooling against the methods' exact cases and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row, reference_plan
from palate.engine.pool import RowMap, pool_log_probs

CPU = torch.device("cpu")


def plan_of(kind: str, coefficients: list[float]) -> Plan:
    rows = tuple(Row((float(i),)) for i in range(len(coefficients)))
    return Plan(rows, Pool(kind, tuple(coefficients)))


def test_three_kinds_in_one_batch_pool_as_each_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 11) * 3
    plans = [
        plan_of("log_linear", [0.7, -0.5, 0.8]),
        reference_plan(n_experts=1),
        plan_of("linear", [0.2, 0.8]),
    ]
    found = pool_log_probs(logits, RowMap.of(plans, device=CPU))
    p = torch.softmax(logits.double(), -1)
    soup = 0.7 * logits[0].double() - 0.5 * logits[1].double() + 0.8 * logits[2].double()
    expected = torch.stack(
        [torch.log_softmax(soup, -1), torch.log(p[3]), torch.log(0.2 * p[4] + 0.8 * p[5])]
    )
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert torch.allclose(found.exp().sum(-1), torch.ones(3), atol=1e-5)


def test_adding_a_constant_to_a_rows_logits_changes_nothing() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 7)
    plan = plan_of("log_linear", [0.5, 1.0, -0.5])
    rows = RowMap.of([plan], device=CPU)
    shifted = logits + torch.tensor([[4.0], [-3.0], [10.0]])
    assert torch.allclose(pool_log_probs(logits, rows), pool_log_probs(shifted, rows), atol=1e-5)


def test_linear_pooling_survives_tokens_that_one_row_forbids() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [0.0, 0.0, -torch.inf]])
    found = pool_log_probs(logits, RowMap.of([plan_of("linear", [0.5, 0.5])], device=CPU))
    assert torch.allclose(found.exp(), torch.tensor([[0.5, 0.25, 0.25]]), atol=1e-6)


def test_a_forbidden_token_with_a_negative_coefficient_is_an_error() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, -torch.inf]])
    with pytest.raises(InvalidInputError, match="negative coefficient"):
        pool_log_probs(logits, RowMap.of([plan_of("log_linear", [1.5, -0.5])], device=CPU))


def test_nan_logits_are_an_error() -> None:
    logits = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(InvalidInputError, match="NaN"):
        pool_log_probs(logits, RowMap.of([reference_plan(n_experts=1)], device=CPU))


def test_linear_mixtures_equal_the_exact_cases(shared_folder: Path) -> None:
    cases = json.loads((shared_folder / "methods/cases/mope.json").read_text())
    logits = torch.log(torch.tensor(cases["expert_probs"]))
    for case in cases["cases"]:
        found = pool_log_probs(logits, RowMap.of([plan_of("linear", case["alpha"])], device=CPU))
        assert np.allclose(found[0].exp(), case["mixture"], atol=1e-6), case["name"]


def test_explicit_soups_equal_the_exact_cases(shared_folder: Path) -> None:
    cases = json.loads((shared_folder / "methods/cases/soup.json").read_text())["log_linear"]
    logits = torch.tensor([cases["reference_logits"], *cases["expert_logits"]])
    for case in cases["cases"]:
        coefficients = [1.0 - sum(case["coefficients"]), *case["coefficients"]]
        found = pool_log_probs(logits, RowMap.of([plan_of("log_linear", coefficients)], device=CPU))
        assert np.allclose(found[0], case["log_probs"], atol=1e-5), case
